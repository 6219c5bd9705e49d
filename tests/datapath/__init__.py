"""Tests of agent.datapath."""
