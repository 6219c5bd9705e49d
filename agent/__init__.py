"""nodewall: a per-node agent that enforces Kubernetes network policy."""
