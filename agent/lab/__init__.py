"""A cluster on this machine: nodes, pods and outside hosts as network namespaces, Services as kube-proxy does them."""
