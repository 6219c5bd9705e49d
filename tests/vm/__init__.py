"""What only other kernels can show: `make test-vm`."""
