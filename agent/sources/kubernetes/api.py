"""The resources the agent lists and watches."""

from __future__ import annotations

import enum


class Resource(enum.Enum):
    """A resource of the API; the value is its plural as paths and RBAC spell it."""

    PODS = "pods"
    NAMESPACES = "namespaces"
    NODES = "nodes"
    NETWORK_POLICIES = "networkpolicies"
    SERVICES = "services"
    ENDPOINT_SLICES = "endpointslices"

    @property
    def api_version(self) -> str:
        """Return `v1`, or `group/version`."""
        return _TYPES[self][0]

    @property
    def kind(self) -> str:
        """Return the kind of one object."""
        return _TYPES[self][1]

    @property
    def path(self) -> str:
        """Return the path of the list over all namespaces."""
        root = "apis" if "/" in self.api_version else "api"
        return f"/{root}/{self.api_version}/{self.value}"


_TYPES = {
    Resource.PODS: ("v1", "Pod"),
    Resource.NAMESPACES: ("v1", "Namespace"),
    Resource.NODES: ("v1", "Node"),
    Resource.NETWORK_POLICIES: ("networking.k8s.io/v1", "NetworkPolicy"),
    Resource.SERVICES: ("v1", "Service"),
    Resource.ENDPOINT_SLICES: ("discovery.k8s.io/v1", "EndpointSlice"),
}
