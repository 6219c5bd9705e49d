"""Enforcement by BPF: socket programs by BCC, packet programs through libbpf, one set of pinned maps."""
