"""Services as kube-proxy does them with iptables: a node's chains as text for iptables-restore. Pure.

Own writing on purpose, and own reading of Services: the agent's classification of frontends is what the lab puts to
the test. A connection to a frontend goes to a random backend; without backends it is refused; a backend that talks to
itself, and whoever comes by a node port, is masqueraded (mark 0x4000), as the answer would not come back otherwise.

Chains are declared and so emptied, nothing else of the tables is touched: the agent may have rules of its own there.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

from agent import snapshot
from agent.model import net, resources

MASQUERADE = "0x4000/0x4000"
CONTENT_HEX = 16


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Frontend:
    """One address and port a Service listens on, and where that leads; a node port has no address."""

    service: str
    address: net.Address | None
    port: int
    protocol: net.Protocol
    backends: tuple[tuple[net.Address, int], ...]


def frontends(picture: snapshot.Snapshot, family: net.Family) -> list[Frontend]:
    """Return every frontend of the cluster's Services in one family."""
    found = []
    for service in picture.services.values():
        addresses = [a for a in (*service.cluster_addresses, *service.external_addresses) if net.family_of(a) is family]
        for port in service.ports:
            ends = tuple(dict.fromkeys(_backends(picture, service, port, family)))
            listeners = [(address, port.port) for address in addresses]
            node_ports = [(None, port.node_port)] if port.node_port else []
            found += [
                Frontend(
                    service=f"{service.namespace}/{service.name}",
                    address=address,
                    port=number,
                    protocol=port.protocol,
                    backends=ends,
                )
                for address, number in (*listeners, *node_ports)
            ]
    return found


def _backends(
    picture: snapshot.Snapshot, service: resources.Service, port: resources.ServicePort, family: net.Family
) -> Iterator[tuple[net.Address, int]]:
    """Yield backends: of the Service's EndpointSlices, where there are none of the pods it selects."""
    slices = [
        s for s in picture.endpoint_slices.values() if (s.namespace, s.service) == (service.namespace, service.name)
    ]
    for slice_ in slices:
        numbers = [p.number for p in slice_.ports if (p.name, p.protocol) == (port.name, port.protocol)]
        yield from ((a, number) for a in slice_.addresses if net.family_of(a) is family for number in numbers)
    if slices or service.selector is None:
        return
    for pod in picture.pods.values():
        selected = all(pod.labels.get(key) == value for key, value in service.selector.items())
        if pod.namespace != service.namespace or not selected or pod.finished or pod.deleting or not pod.ready:
            continue
        target = _target(pod, port)
        yield from ((a, target) for a in pod.addresses if target and net.family_of(a) is family)


def _target(pod: resources.Pod, port: resources.ServicePort) -> int | None:
    if isinstance(port.target, int):
        return port.target
    named = [p.number for p in pod.ports if (p.name, p.protocol) == (port.target, port.protocol)]
    return named[0] if named else None


def render(fronts: Sequence[Frontend], nodes: Sequence[net.Address]) -> str:
    """Return the whole input of `iptables-restore --noflush` for a node with the addresses `nodes` of one family."""
    nat = ["*nat", ":LAB-SERVICES - [0:0]", ":LAB-POSTROUTING - [0:0]"]
    rules = [f"-A LAB-POSTROUTING -m mark --mark {MASQUERADE} -j MASQUERADE"]
    refused = ["*filter", ":LAB-REFUSED - [0:0]"]
    for front in fronts:
        match = f"-p {front.protocol.name.lower()} -m {front.protocol.name.lower()} --dport {front.port}"
        for destination in _destinations(front, nodes):
            where = f"-d {destination} {match}"
            if not front.backends:
                refused.append(f"-A LAB-REFUSED {where} -m conntrack --ctstate NEW -j REJECT")
                continue
            chain = _chain("SVC", front, str(destination))
            nat.append(f":{chain} - [0:0]")
            rules.append(f"-A LAB-SERVICES {where} -j {chain}")
            if front.address is None:
                rules.append(f"-A {chain} -j MARK --set-xmark {MASQUERADE}")
            for index, (address, port) in enumerate(front.backends):
                end = _chain("SEP", front, f"{destination} {address} {port}")
                nat.append(f":{end} - [0:0]")
                share = 1 / (len(front.backends) - index)
                some = f" -m statistic --mode random --probability {share:.10f}" if share < 1 else ""
                rules.append(f"-A {chain}{some} -j {end}")
                rules.append(f"-A {end} -s {address} -j MARK --set-xmark {MASQUERADE}")
                rules.append(
                    f"-A {end} {match.partition(' --dport')[0]} -j DNAT --to-destination {_end(address, port)}"
                )
    return "\n".join([*nat, *rules, "COMMIT", *refused, "COMMIT", ""])


def render_hooks() -> str:
    """Return the input that makes the chains and, once, the jumps into them."""
    lines = ["*nat", ":LAB-SERVICES - [0:0]", ":LAB-POSTROUTING - [0:0]"]
    lines += [f"-A {chain} -j LAB-SERVICES" for chain in ("PREROUTING", "OUTPUT")]
    lines += ["-A POSTROUTING -j LAB-POSTROUTING", "COMMIT", "*filter", ":LAB-REFUSED - [0:0]"]
    lines += [f"-A {chain} -j LAB-REFUSED" for chain in ("INPUT", "FORWARD", "OUTPUT")]
    return "\n".join([*lines, "COMMIT", ""])


def _destinations(front: Frontend, nodes: Sequence[net.Address]) -> Sequence[net.Address]:
    return nodes if front.address is None else (front.address,)


def _chain(kind: str, front: Frontend, rest: str) -> str:
    content = f"{front.service} {front.port} {front.protocol.name} {rest}"
    return f"LAB-{kind}-{hashlib.sha256(content.encode()).hexdigest()[:CONTENT_HEX].upper()}"


def _end(address: net.Address, port: int) -> str:
    return f"[{address}]:{port}" if net.family_of(address) is net.Family.IPV6 else f"{address}:{port}"
