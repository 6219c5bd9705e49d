"""Valid documents to start tests from; each call returns fresh ones."""

from __future__ import annotations

from typing import Any

from agent.model import net, resources


def policy(**spec: Any) -> dict[str, Any]:
    """Return a NetworkPolicy x/p."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "p", "namespace": "x", "uid": "u-1"},
        "spec": spec,
    }


def full_policy() -> dict[str, Any]:
    """Return a NetworkPolicy that uses every field of the API."""
    return policy(
        podSelector={
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back"]}],
        },
        policyTypes=["Ingress", "Egress"],
        ingress=[
            {
                "from": [
                    {"podSelector": {"matchLabels": {"app": "web"}}},
                    {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "Exists"}]}},
                    {"podSelector": {}, "namespaceSelector": {"matchLabels": {"team": "a"}}},
                    {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16", "10.2.0.0/16"]}},
                ],
                "ports": [
                    {"protocol": "TCP", "port": 80},
                    {"protocol": "UDP", "port": 53, "endPort": 80},
                    {"port": "web"},
                    {"protocol": "SCTP"},
                ],
            },
            {"ports": [{"port": 443}]},
        ],
        egress=[{"to": [{"ipBlock": {"cidr": "2001:db8::/32"}}]}, {}],
    )


def pod() -> dict[str, Any]:
    """Return a running Pod x/a."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "a", "namespace": "x", "uid": "u-2", "labels": {"app": "web"}},
        "spec": {
            "nodeName": "node-1",
            "initContainers": [
                {"name": "sidecar", "restartPolicy": "Always", "ports": [{"name": "mesh", "containerPort": 15}]},
                {"name": "once", "ports": [{"name": "never", "containerPort": 16}]},
            ],
            "containers": [
                {"name": "one", "ports": [{"name": "web", "containerPort": 80}]},
                {"name": "two", "ports": [{"name": "web", "containerPort": 81, "protocol": "UDP"}]},
            ],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}, {"ip": "2001:db8::1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def service() -> dict[str, Any]:
    """Return a dual-stack Service x/s."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "s", "namespace": "x"},
        "spec": {
            "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1", "2001:db8:1::1"],
            "externalIPs": ["192.0.2.1"],
            "selector": {"app": "web"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "web", "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "lb.example"}]}},
    }


def endpoint_slice() -> dict[str, Any]:
    """Return an EndpointSlice of Service x/s."""
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s-1", "namespace": "x", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": True}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": False, "serving": True}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": False, "serving": False}},
            {"addresses": ["10.0.0.4"]},
        ],
        "ports": [{"name": "http", "port": 8080}, {"name": "all"}],
    }


def node() -> dict[str, Any]:
    """Return a Node node-1."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node-1"},
        "spec": {"podCIDR": "10.0.0.0/24", "podCIDRs": ["10.0.0.0/24", "2001:db8::/64"]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": "192.0.2.10"},
                {"type": "Hostname", "address": "node-1"},
                {"type": "ExternalIP", "address": "198.51.100.10"},
            ]
        },
    }


def namespace() -> dict[str, Any]:
    """Return a Namespace x."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x", "labels": {"team": "a"}}}


def host() -> dict[str, Any]:
    """Return a Host, a machine outside the cluster."""
    return {
        "apiVersion": "lab.nodewall/v1",
        "kind": "Host",
        "metadata": {"name": "client"},
        "spec": {"addresses": ["203.0.113.1"], "ports": [{"port": 443}, {"port": 53, "protocol": "UDP"}]},
    }


def cilium_policy(**spec: Any) -> dict[str, Any]:
    """Return a CiliumNetworkPolicy x/c that selects app=web."""
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "c", "namespace": "x"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "web"}}, **spec},
    }


def cluster_policy(**spec: Any) -> dict[str, Any]:
    """Return a ClusterNetworkPolicy w of the Admin tier that selects all pods."""
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "w"},
        "spec": {"tier": "Admin", "priority": 10, "subject": {"namespaces": {}}, **spec},
    }


def calico_policy(**spec: Any) -> dict[str, Any]:
    """Return a Calico NetworkPolicy x/k."""
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "NetworkPolicy",
        "metadata": {"name": "k", "namespace": "x"},
        "spec": spec,
    }


def all_kinds() -> tuple[dict[str, Any], ...]:
    """Return one document of every kind that is read."""
    rule = {"fromEndpoints": [{}], "toPorts": [{"ports": [{"port": "80"}], "rules": {"http": [{"method": "GET"}]}}]}
    return (
        full_policy(),
        pod(),
        service(),
        endpoint_slice(),
        node(),
        namespace(),
        host(),
        cilium_policy(ingress=[rule], egressDeny=[{}], enableDefaultDeny={"ingress": True}),
        cluster_policy(ingress=[{"action": "Pass", "from": [{"namespaces": {}}], "protocols": [{"tcp": {}}]}]),
        calico_policy(selector="app == 'web' && has(tier)", types=["Ingress"], ingress=[{"action": "Allow"}]),
    )


def tcp(port: int) -> resources.PortMatch:
    """Return what one TCP port is decoded to."""
    return resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(port, port))


def port_text(port: net.PortRange | str | None) -> str:
    """Write a decoded port: `80-90`, a name, or `None`."""
    return f"{port.first}-{port.last}" if isinstance(port, net.PortRange) else str(port)
