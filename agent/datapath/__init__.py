"""What enforces: `base` is the contract, `memory` and `bpf` keep it and do not know each other."""
