"""What `agentctl bugtool` collects: an allow-list, redacted, in one archive. What is not named here is not read."""
