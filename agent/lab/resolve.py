"""Completes manifests to what a running cluster's API would show: addresses, phases, nodes, node ports.

What the manifests state is kept, whatever else is in them is passed through untouched, malformed parts too (the agents
shall see them). What they leave open is allocated, avoiding everything stated; objects that a previous resolution
knows keep what they were given, so that changing one policy moves no pod. Pure.
"""

from __future__ import annotations

import copy
import dataclasses
import ipaddress
import itertools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agent.model import net

Document = dict[str, Any]

FINISHED = ("Succeeded", "Failed")
DEFAULT_NODE = "node-1"
UIDS = uuid.UUID("6b1f5f3e-3c0b-5d0c-9f0e-6e6f64657761")
SUBNET_BITS = {net.Family.IPV4: 24, net.Family.IPV6: 64}
NODES = {
    net.Family.IPV4: ipaddress.ip_network("172.18.0.0/16"),
    net.Family.IPV6: ipaddress.ip_network("fd00:172:18::/64"),
}
PODS = {
    net.Family.IPV4: ipaddress.ip_network("10.244.0.0/16"),
    net.Family.IPV6: ipaddress.ip_network("fd00:10:244::/48"),
}
SERVICES = {
    net.Family.IPV4: ipaddress.ip_network("10.96.0.0/16"),
    net.Family.IPV6: ipaddress.ip_network("fd00:10:96::/112"),
}
NODE_PORTS = range(30000, 32768)


@dataclasses.dataclass(slots=True)
class _Resolution:
    """One run: the documents and what is taken."""

    documents: list[Document]
    families: tuple[net.Family, ...]
    taken: set[net.Address]
    nodes: dict[str, Document] = dataclasses.field(default_factory=dict)


def resolve(
    documents: Sequence[Document], *, families: Sequence[net.Family] = (), previous: Sequence[Document] = ()
) -> list[Document]:
    """Return the completed documents; `families` are those every pod shall have, besides what is stated.

    Without `families`, those of the stated addresses, IPv4 where none is stated.
    """
    flat = [copy.deepcopy(item) for document in documents for item in expand(document)]
    known = {key_of(document): document for document in previous}
    stated = [address for document in flat for address in _stated(document)]
    given = tuple(dict.fromkeys([*families, *(net.family_of(address) for address in stated)]))
    run = _Resolution(
        documents=flat,
        families=given or (net.Family.IPV4,),
        taken={*stated, *(address for document in previous for address in _stated(document))},
    )
    _place_pods(run)
    _complete_nodes(run, known)
    for document in run.documents:
        match document.get("kind"):
            case "Pod":
                _complete_pod(run, document, known.get(key_of(document), {}), tuple(families))
            case "Service":
                _complete_service(run, document, known.get(key_of(document), {}))
    return run.documents


def expand(document: object) -> Iterator[Document]:
    """Yield the objects of a document: itself, or the items of a List."""
    if isinstance(document, dict):
        items = document.get("items")
        if str(document.get("kind", "")).endswith("List") and isinstance(items, list):
            typed = {"apiVersion": document.get("apiVersion"), "kind": str(document["kind"]).removesuffix("List")}
            for item in items:
                if isinstance(item, dict):
                    yield from expand(item if document["kind"] == "List" else typed | item)
        else:
            yield document


def key_of(document: Document) -> tuple[str, str, str, str]:
    """Name an object: apiVersion, kind, namespace, name."""
    metadata = mapping(document, "metadata")
    return tuple(
        str(part or "")
        for part in (  # type: ignore[return-value]  # four of four
            document.get("apiVersion"),
            document.get("kind"),
            metadata.get("namespace"),
            metadata.get("name"),
        )
    )


def mapping(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a member that should be a mapping; an empty one if it is anything else."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def member(document: Document, key: str) -> dict[str, Any]:
    """Return a member that shall be a mapping, and make it one."""
    if not isinstance(document.get(key), dict):
        document[key] = {}
    made: dict[str, Any] = document[key]
    return made


def addresses_of(texts: Sequence[object]) -> list[net.Address]:
    """Return those of `texts` that are addresses, each once."""
    found: dict[net.Address, None] = {}
    for text in texts:
        try:
            found[ipaddress.ip_address(str(text))] = None
        except ValueError:
            continue
    return list(found)


def _entries(document: Mapping[str, Any], key: str) -> list[Any]:
    value = document.get(key)
    return value if isinstance(value, list) else []


def _stated(document: Document) -> list[net.Address]:
    """Return the addresses a document gives to its object."""
    spec, status = mapping(document, "spec"), mapping(document, "status")
    match document.get("kind"):
        case "Pod":
            listed = [entry.get("ip") for entry in _entries(status, "podIPs") if isinstance(entry, dict)]
            return addresses_of([status.get("podIP"), *listed])
        case "Node":
            entries = [entry for entry in _entries(status, "addresses") if isinstance(entry, dict)]
            return addresses_of([entry.get("address") for entry in entries if entry.get("type") == "InternalIP"])
        case "Service":
            return addresses_of([spec.get("clusterIP"), *_entries(spec, "clusterIPs")])
        case "Host":
            return addresses_of(_entries(spec, "addresses"))
        case _:
            return []


def _allocate(run: _Resolution, candidates: Iterator[net.Address]) -> net.Address:
    address = next(candidate for candidate in candidates if candidate not in run.taken)
    run.taken.add(address)
    return address


def _place_pods(run: _Resolution) -> None:
    """Give every pod a node, in turn, and every node an object."""
    pods = [document for document in run.documents if document.get("kind") == "Pod"]
    run.nodes = {key_of(document)[3]: document for document in run.documents if document.get("kind") == "Node"}
    named = [mapping(pod, "spec").get("nodeName") for pod in pods]
    for name in named:
        if isinstance(name, str) and name not in run.nodes:
            _add_node(run, name)
    if not run.nodes:
        _add_node(run, DEFAULT_NODE)
    turns = itertools.cycle(sorted(run.nodes))
    for pod, name in zip(pods, named, strict=True):
        if not isinstance(name, str):
            member(pod, "spec")["nodeName"] = next(turns)


def _add_node(run: _Resolution, name: str) -> None:
    run.nodes[name] = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
    run.documents.append(run.nodes[name])


def _complete_nodes(run: _Resolution, known: Mapping[tuple[str, str, str, str], Document]) -> None:
    """Give nodes addresses of every family, and pod ranges that hold no other node's pod."""
    pods = [document for document in run.documents if document.get("kind") == "Pod"]
    fixed = {name: [] for name in run.nodes}  # type: dict[str, list[net.Address]]
    for pod in pods:
        if not mapping(pod, "spec").get("hostNetwork"):
            fixed[mapping(pod, "spec")["nodeName"]] += _stated(pod)
    ranges: list[net.Network] = []
    for name in sorted(run.nodes):
        node = run.nodes[name]
        before = known.get(key_of(node), {})
        status = member(node, "status")
        addresses = _inherit(_stated(node), _stated(before))
        for family in run.families:
            if all(net.family_of(address) is not family for address in addresses):
                addresses.append(_allocate(run, itertools.islice(NODES[family].hosts(), 1, None)))
        if not _stated(node) or addresses != _stated(node):
            kept = [e for e in _entries(status, "addresses") if isinstance(e, dict) and e.get("type") != "InternalIP"]
            status["addresses"] = [{"type": "InternalIP", "address": str(address)} for address in addresses] + kept
        spec = member(node, "spec")
        if not (_entries(spec, "podCIDRs") or spec.get("podCIDR")):
            inherited = [ipaddress.ip_network(text) for text in _entries(mapping(before, "spec"), "podCIDRs")]
            mine = inherited or _ranges(run, name, fixed, ranges)
            ranges += mine
            spec["podCIDRs"] = [str(range_) for range_ in mine]


def _ranges(
    run: _Resolution, name: str, fixed: Mapping[str, Sequence[net.Address]], others: Sequence[net.Network]
) -> list[net.Network]:
    foreign = [address for node, addresses in fixed.items() if node != name for address in addresses]
    found: dict[net.Network, None] = {}
    for address in fixed[name]:
        subnet = _subnet(address)
        if not any(stranger in subnet for stranger in foreign):
            found[subnet] = None
    for family in run.families:
        if all(net.family_of(range_) is not family for range_ in found):
            start = 1 if family is net.Family.IPV4 else 0
            free: Iterator[net.Network] = itertools.islice(
                PODS[family].subnets(new_prefix=SUBNET_BITS[family]), start, None
            )
            stated = [*others, *found]
            found[next(r for r in free if r not in stated and not any(address in r for address in foreign))] = None
    return list(found)


def _subnet(address: net.Address) -> net.Network:
    return ipaddress.ip_network(f"{address}/{SUBNET_BITS[net.family_of(address)]}", strict=False)


def _complete_pod(run: _Resolution, pod: Document, before: Document, families: Sequence[net.Family]) -> None:
    """Give a pod UID, phase and addresses; finished pods keep what they have (rule A27)."""
    metadata, spec, status = member(pod, "metadata"), mapping(pod, "spec"), member(pod, "status")
    _api, _kind, namespace, name = key_of(pod)
    metadata["namespace"] = namespace = namespace or "default"
    metadata.setdefault("uid", str(uuid.uuid5(UIDS, f"{namespace}/{name}")))
    if status.get("phase") in FINISHED:
        return
    status["phase"] = "Running"
    node = run.nodes[spec["nodeName"]]
    addresses = _stated(node) if spec.get("hostNetwork") else _stated(pod)
    wanted = families or (() if addresses else run.families[:1])
    if mapping(before, "spec").get("nodeName") == spec["nodeName"]:
        addresses = _inherit(addresses, [a for a in _stated(before) if net.family_of(a) in wanted])
    for family in () if spec.get("hostNetwork") else wanted:
        if all(net.family_of(address) is not family for address in addresses):
            texts = _entries(mapping(node, "spec"), "podCIDRs") or [mapping(node, "spec").get("podCIDR")]
            ranges = [range_ for range_ in map(ipaddress.ip_network, texts) if net.family_of(range_) is family]
            if ranges:
                addresses.append(_allocate(run, itertools.islice(ranges[0].hosts(), 1, None)))
    status["podIPs"] = [{"ip": str(address)} for address in addresses]
    if addresses:
        status["podIP"] = str(addresses[0])
        status.setdefault("hostIP", str(_stated(node)[0]))


def _inherit(stated: list[net.Address], before: Sequence[net.Address]) -> list[net.Address]:
    """Return what is stated and, for families that it lacks, what there was before."""
    families = {net.family_of(address) for address in stated}
    return stated + [address for address in before if net.family_of(address) not in families]


def _complete_service(run: _Resolution, service: Document, before: Document) -> None:
    """Give a Service cluster addresses and node ports, as its type asks."""
    spec, earlier = member(service, "spec"), mapping(before, "spec")
    kind = spec.get("type", "ClusterIP")
    if kind == "ExternalName" or spec.get("clusterIP") == "None":
        return
    addresses = _stated(service) or _stated(before)
    for family in () if addresses else run.families:
        if all(net.family_of(address) is not family for address in addresses):
            addresses.append(_allocate(run, itertools.islice(SERVICES[family].hosts(), 99, None)))
    spec["clusterIP"], spec["clusterIPs"] = str(addresses[0]), [str(address) for address in addresses]
    if kind in ("NodePort", "LoadBalancer"):
        used = {
            p.get("nodePort")
            for d in run.documents
            for p in _entries(mapping(d, "spec"), "ports")
            if isinstance(p, dict)
        }
        had = {(p.get("port"), p.get("protocol", "TCP")): p.get("nodePort") for p in _entries(earlier, "ports")}
        for port in _entries(spec, "ports"):
            if isinstance(port, dict) and "nodePort" not in port:
                kept = had.get((port.get("port"), port.get("protocol", "TCP")))
                port["nodePort"] = kept or next(number for number in NODE_PORTS if number not in used)
                used.add(port["nodePort"])
