"""Egress by DNS name: patterns and what names resolved to. Nothing is enforced by name yet."""
