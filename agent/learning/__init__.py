"""What DNS told this node's pods: from the kernel's ring to what a policy that comes later finds."""
