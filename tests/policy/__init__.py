"""Tests of agent.policy."""
