"""Whose an address is: pod, node, Service or host, for people who read verdicts.

Built from one snapshot and one desired state when the first event of that generation needs it, and then shared. The
order decides where two claim one address: this node's own pods are known from their network namespaces and come
first, then pods of the API, nodes, Services, hosts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from agent import desired as desired_
from agent import snapshot as snapshot_
from agent.model import labels as labels_
from agent.model import net, resources


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """What is known of one address; a pod has `namespace` and `pod`, anything else has `owner`."""

    namespace: str = ""
    pod: str = ""
    labels: labels_.Labels = labels_.NO_LABELS
    owner: resources.ObjectRef | None = None


NOBODY = Name()


def of_endpoint(endpoint: desired_.Endpoint, snapshot: snapshot_.Snapshot) -> Name:
    """Name a local pod; its labels are all the API knows, where the API knows it."""
    pod = snapshot.pods.get((endpoint.namespace, endpoint.pod))
    labels = pod.labels if pod is not None else labels_.Labels(endpoint.labels)
    return Name(namespace=endpoint.namespace, pod=endpoint.pod, labels=labels)


def index(state: desired_.DesiredState, snapshot: snapshot_.Snapshot) -> Mapping[net.Address, Name]:
    """Return the name of every address that has one."""
    found: dict[net.Address, Name] = {}
    for host in snapshot.hosts.values():
        _own(found, host.addresses, resources.ObjectRef("Host", "", host.name))
    for service in snapshot.services.values():
        ref = resources.ObjectRef("Service", service.namespace, service.name)
        _own(found, (*service.external_addresses, *service.cluster_addresses), ref)
    for node in snapshot.nodes.values():
        _own(found, node.addresses, resources.ObjectRef("Node", "", node.name))
    for pod in snapshot.pods.values():
        if pod.has_identity:
            name = Name(namespace=pod.namespace, pod=pod.name, labels=pod.labels)
            found.update(dict.fromkeys(pod.addresses, name))
    for endpoint in state.endpoints.values():
        found.update(dict.fromkeys(endpoint.addresses, of_endpoint(endpoint, snapshot)))
    return found


def _own(found: dict[net.Address, Name], addresses: tuple[net.Address, ...], ref: resources.ObjectRef) -> None:
    found.update(dict.fromkeys(addresses, Name(owner=ref)))
