"""The resources the agent lists and watches."""

from __future__ import annotations

import dataclasses
import enum


@dataclasses.dataclass(frozen=True, slots=True)
class _Type:
    api_version: str
    kind: str
    namespaced: bool = True
    custom: bool = False


class Resource(enum.Enum):
    """A resource of the API; the value is its plural as paths and RBAC spell it."""

    PODS = "pods"
    NAMESPACES = "namespaces"
    NODES = "nodes"
    NETWORK_POLICIES = "networkpolicies"
    SERVICES = "services"
    ENDPOINT_SLICES = "endpointslices"
    CILIUM_NETWORK_POLICIES = "ciliumnetworkpolicies"
    CLUSTER_NETWORK_POLICIES = "clusternetworkpolicies"

    @property
    def api_version(self) -> str:
        """Return `v1`, or `group/version`."""
        return _TYPES[self].api_version

    @property
    def kind(self) -> str:
        """Return the kind of one object."""
        return _TYPES[self].kind

    @property
    def namespaced(self) -> bool:
        """Tell whether its objects are in namespaces."""
        return _TYPES[self].namespaced

    @property
    def custom(self) -> bool:
        """Tell whether it is there only where its CustomResourceDefinition was installed."""
        return _TYPES[self].custom

    @property
    def path(self) -> str:
        """Return the path of the list over all namespaces."""
        root = "apis" if "/" in self.api_version else "api"
        return f"/{root}/{self.api_version}/{self.value}"


_TYPES = {
    Resource.PODS: _Type("v1", "Pod"),
    Resource.NAMESPACES: _Type("v1", "Namespace", namespaced=False),
    Resource.NODES: _Type("v1", "Node", namespaced=False),
    Resource.NETWORK_POLICIES: _Type("networking.k8s.io/v1", "NetworkPolicy"),
    Resource.SERVICES: _Type("v1", "Service"),
    Resource.ENDPOINT_SLICES: _Type("discovery.k8s.io/v1", "EndpointSlice"),
    Resource.CILIUM_NETWORK_POLICIES: _Type("cilium.io/v2", "CiliumNetworkPolicy", custom=True),
    Resource.CLUSTER_NETWORK_POLICIES: _Type(
        "policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", namespaced=False, custom=True
    ),
}
POLICIES = (Resource.NETWORK_POLICIES, Resource.CILIUM_NETWORK_POLICIES, Resource.CLUSTER_NETWORK_POLICIES)
"""What is enforced."""
