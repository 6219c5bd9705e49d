"""Egress by DNS name: what patterns match, as the kernel looks it up, and what endpoints were told. Pure."""
