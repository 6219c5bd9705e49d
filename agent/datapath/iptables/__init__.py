"""Enforcement by iptables and ipset: the packet layer of kernels that run no netfilter BPF."""
