"""Tests of agent.fqdn; F1 to F31 are the requirements of egress by name."""
