"""The agent's own gRPC API on a unix socket: server for the daemon, client for agentctl and the lab."""
