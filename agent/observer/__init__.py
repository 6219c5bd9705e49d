"""Verdicts: from the kernel's ring to whoever watches, with names of policies, pods and processes added once."""
