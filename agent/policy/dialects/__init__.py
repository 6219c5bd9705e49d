"""One file an API kind: its objects become tiers."""
