"""Tests of agent.services."""
