"""`agentctl`: one file a verb group; it asks an agent over its socket, or answers offline from manifests."""
