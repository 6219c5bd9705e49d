"""Tests of agent/lab."""
