"""Values only: what the agent talks about. No I/O, no clock, no logging."""
