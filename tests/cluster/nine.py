"""The nine pods of the truth tables, x, y and z times a, b and c, as real pods, each behind a Service of its own.

They are made once for all tables: a table changes labels and policies and nothing else. Every namespace and every node
has three of them, and no two of a namespace share a node. A table speaks of the addresses that its fixture gives the
pods, of one family; here each block is that of the pod's real address, and its counterpart of the other family stands
beside it, so that both are judged alike.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tests.cluster import api, prober, settings
from tests.support import cases

Document = dict[str, Any]
NAMESPACES = ("x", "y", "z")
NAMES = ("a", "b", "c")
PORTS = tuple((number, protocol) for number in (80, 81) for protocol in ("TCP", "UDP", "SCTP"))
WHOLE = {"0.0.0.0/4": "fd00::/8"}
"""What a block that holds every pod is in the other family."""
NODES = 3


def namespaces() -> Iterator[Document]:
    """Yield them; the API server adds the label that holds the name."""
    for where in NAMESPACES:
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": where, "labels": {"ns": where}}}


def pods() -> Iterator[Document]:
    """Yield them: they do nothing themselves, a prober serves inside."""
    for row, where in enumerate(NAMESPACES):
        for column, name in enumerate(NAMES):
            ports = [
                {"name": f"serve-{number}-{protocol.lower()}", "containerPort": number, "protocol": protocol}
                for number, protocol in PORTS
            ]
            container = {"name": "main", "image": settings.AGNHOST_IMAGE, "imagePullPolicy": "Never", "ports": ports}
            node = f"node{(row + column) % NODES + 1}"
            yield {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "namespace": where, "labels": {"pod": name}},
                "spec": {
                    "nodeName": node,
                    "terminationGracePeriodSeconds": 1,
                    "containers": [container | {"args": ["pause"]}],
                },
            }


def services() -> Iterator[Document]:
    """Yield one a pod, under the pod's name, of both families; without SCTP, which some kernels cannot translate."""
    for where in NAMESPACES:
        for name in NAMES:
            ports = [
                {"name": f"{protocol.lower()}-{number}", "port": number, "protocol": protocol}
                for number, protocol in PORTS
                if protocol != "SCTP"
            ]
            spec = {"selector": {"pod": name}, "ipFamilyPolicy": "RequireDualStack", "ports": ports}
            yield {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": where},
                "spec": spec,
            }


def relabelled(documents: Iterable[Document]) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Yield path and labels of each namespace and pod of a table's cluster."""
    for document in documents:
        if document["kind"] in {"Namespace", "Pod"}:
            own = dict(document["metadata"].get("labels", {}))
            yield api.of({"apiVersion": "v1"} | document), own


def policies(documents: Iterable[Document], addresses: Mapping[str, tuple[str, ...]]) -> list[Document]:
    """Return the policies of a table's cluster, with the blocks that mean the real pods.

    `addresses` has those of each pod by `namespace/name`, IPv4 first. Raises ValueError for a block that is neither.
    """
    known = list(documents)
    real = {
        document["status"]["podIP"]: addresses[f"{document['metadata']['namespace']}/{document['metadata']['name']}"]
        for document in known
        if document["kind"] == "Pod"
    }
    return [_with_real_blocks(document, real) for document in known if document["kind"] == "NetworkPolicy"]


def _with_real_blocks(policy: Document, real: Mapping[str, tuple[str, ...]]) -> Document:
    changed = copy.deepcopy(policy)
    for direction, peers in (("ingress", "from"), ("egress", "to")):
        for rule in changed["spec"].get(direction) or ():
            if rule.get(peers):
                rule[peers] = [one for peer in rule[peers] for one in _both(peer, real)]
    return changed


def _both(peer: Document, real: Mapping[str, tuple[str, ...]]) -> Iterator[Document]:
    if "ipBlock" not in peer:
        yield peer
        return
    block = peer["ipBlock"]
    ranges = _real(block["cidr"], real)
    exceptions = [_real(one, real) for one in block.get("except", ())]
    for family, cidr in enumerate(ranges):
        without = {"except": [one[family] for one in exceptions]} if exceptions else {}
        yield {"ipBlock": {"cidr": cidr} | without}


def _real(cidr: str, real: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    if cidr in WHOLE:
        return cidr, WHOLE[cidr]
    meant = real.get(cidr.removesuffix("/32"))
    if meant is None:
        raise ValueError(f"no pod of the fixture has the address of the block {cidr}")
    return tuple(f"{one}/{ipaddress.ip_address(one).max_prefixlen}" for one in meant)


def questions(
    check: cases.Check, pods_at: Mapping[str, tuple[str, ...]], services_at: Mapping[str, tuple[str, ...]]
) -> Iterator[tuple[prober.Question, bool]]:
    """Yield what a check asks and what is to come of it: by each address of the pod and each of its Service.

    SCTP goes to pods alone: what stands in for SCTP on a kernel without it cannot follow a translated address.
    """
    protocol = check.protocol.name
    for (source, target), allowed in check.expected.items():
        through = () if protocol == "SCTP" else services_at[target]
        for address in (*pods_at[target], *through):
            where = target if address in pods_at[target] else f"service of {target}"
            asked = prober.Question(source=source, target=where, address=address, port=check.port, protocol=protocol)
            yield asked, allowed
