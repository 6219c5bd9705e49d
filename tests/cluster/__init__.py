"""Three Kubernetes nodes in namespaces of this machine, and what is tested on them."""
