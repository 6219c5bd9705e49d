"""Identities: which facts an address has, the number of those facts, and which address carries which."""
