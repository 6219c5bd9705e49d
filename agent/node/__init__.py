"""What only the node itself knows of its pods: network namespaces, addresses, host interfaces."""
