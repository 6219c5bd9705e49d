"""The container runtime by its CRI socket: a cross-check of the CNI cache, and its stand-in where there is none."""
