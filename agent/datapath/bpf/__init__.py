"""Enforcement by BPF: socket programs compiled by BCC, packet programs loaded through libbpf, one set of pinned maps."""
