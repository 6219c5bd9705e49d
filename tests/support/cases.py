"""Loads the truth tables of `tests/cases` (format: `tests/cases/README.md`); whoever judges them lives elsewhere.

A table is read strictly: an unknown key, a pattern that means nobody, or a pair that is both open and blocked is a
mistake in the table and raises ValueError, for a table that checks nothing would hold for ever.
"""

from __future__ import annotations

import copy
import dataclasses
import fnmatch
import functools
import ipaddress
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import yaml

from agent.model import net

DIRECTORY = pathlib.Path(__file__).parent.parent / "cases"
FIXTURES = "fixtures"

Document: TypeAlias = dict[str, Any]
Pair: TypeAlias = tuple[str, str]

CASE_KEYS = frozenset({"name", "fixture", "rules", "needs", "steps"})
STEP_KEYS = frozenset(
    {"label", "objects", "pods", "delete", "learned", "policies", "audit"}
    | {"expect", "services", "queries", "problems", "zone"}
)
CHECK_KEYS = frozenset({"port", "family", "blocked", "open", "audited"})
PATTERN_KEYS = frozenset({"from", "to", "exceptFrom", "exceptTo"})
FINISHED = frozenset({"Succeeded", "Failed"})
HOST_PREFIX = "host/"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Who may connect to one port."""

    port: int
    protocol: net.Protocol
    family: net.Family | None
    """None: in every family that both ends have."""
    expected: Mapping[Pair, bool]
    """(from, to) -> can connect; names are `namespace/pod` and `host/NAME`."""
    audited: frozenset[Pair] = frozenset()
    """Those that connect, and of which some side is told as AUDIT; no other is."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceCheck:
    """What sources get that dial a Service's cluster address."""

    namespace: str
    service: str
    port: int
    protocol: net.Protocol
    reached: Mapping[str, str]
    """Source -> `all`, `none` or `mixed` of the backends, or `refused` where there is no backend."""
    audited: frozenset[str] = frozenset()
    """Sources whose dialling itself is told as AUDIT, for no backend would be allowed; no other's is."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class QueryCheck:
    """Which names somebody who can reach a DNS server may ask it for."""

    source: str
    target: str
    """`namespace/pod` or `host/NAME`; of a Service `namespace/name`."""
    port: int
    protocol: net.Protocol
    service: bool
    """Whether a Service's cluster address is asked."""
    answered: Mapping[str, bool]
    """Name -> whether the query passes."""
    audited: frozenset[str]
    """Names whose queries pass and would be refused were the policies in audit enforced; no other's would."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """One answer of DNS."""

    pod: str
    """`namespace/pod`, who asked."""
    name: str
    addresses: tuple[net.Address, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A whole cluster and what must be true of it."""

    manifests: tuple[Document, ...]
    checks: tuple[Check, ...]
    services: tuple[ServiceCheck, ...]
    queries: tuple[QueryCheck, ...]
    problems: frozenset[tuple[str, str]]
    """(`namespace/name` of the policy, path) of every problem that must be shown; no other may be."""
    zone: Mapping[str, Mapping[str, Any]]
    """FQDN tables: name -> what DNS answers."""
    learned: tuple[Learned, ...] = ()
    """What DNS has answered to pods by now; nothing of it has expired."""

    def documents(self) -> list[Document]:
        """Return the manifests of the whole cluster; the caller's to change."""
        return copy.deepcopy(list(self.manifests))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One truth table."""

    name: str
    path: pathlib.Path
    rules: tuple[str, ...]
    """The numbered rules it is about."""
    needs: frozenset[str]
    """What an engine must be able to do to run it: `fqdn`."""
    fixture: tuple[Document, ...]
    steps: tuple[Step, ...]

    @property
    def id(self) -> str:
        """Return the path inside the directory of tables, without its ending."""
        return str(self.path.relative_to(DIRECTORY).with_suffix(""))


def paths() -> list[pathlib.Path]:
    """Return the path of every table."""
    return sorted(path for path in DIRECTORY.rglob("*.yaml") if FIXTURES not in path.relative_to(DIRECTORY).parts)


def load(path: pathlib.Path) -> Case:
    """Read one table; ValueError names the file and what is wrong with it. Whoever reads it again gets the same."""
    try:
        return _case(path, path.read_text())
    except (KeyError, ValueError) as error:
        raise ValueError(f"table {path}: {error}") from error


@functools.cache
def _fixture(name: str) -> list[Document]:
    return _read((DIRECTORY / FIXTURES / f"{name}.yaml").read_text())


def _read(text: str) -> list[Document]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [document for document in yaml.load_all(text, loader) if document is not None]


@functools.cache
def _case(path: pathlib.Path, text: str) -> Case:
    table = _read(text)[0]
    _known(table, CASE_KEYS)
    fixture = _fixture(table["fixture"])
    cluster = [copy.deepcopy(document) for document in fixture]
    steps: list[Step] = []
    for step in table["steps"]:
        _known(step, STEP_KEYS)
        _change(cluster, step)
        before = steps[-1].learned if steps else ()
        steps.append(_step(cluster, step, (*before, *map(_learned, step.get("learned", ())))))
    return Case(
        name=table["name"],
        path=path,
        rules=tuple(table.get("rules", ())),
        needs=frozenset(table.get("needs", ())),
        fixture=tuple(fixture),
        steps=tuple(steps),
    )


def _change(cluster: list[Document], step: Document) -> None:
    """Bring the cluster to what the step says, in the order of the format's description."""
    for change in step.get("label", ()):
        _label(_find(cluster, change), change["set"])
    for document in step.get("objects", ()):
        cluster[:] = [kept for kept in cluster if _key(kept) != _key(document)]
        cluster.append(copy.deepcopy(document))
    for change in step.get("pods", ()):
        pod = _find(cluster, change)
        if "phase" in change:
            pod.setdefault("status", {})["phase"] = change["phase"]
        if change.get("deleting"):
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    for gone in step.get("delete", ()):
        target = _find(cluster, gone)
        namespace = target["metadata"]["name"] if target["kind"] == "Namespace" else None
        cluster[:] = [
            kept for kept in cluster if kept is not target and kept["metadata"].get("namespace", "") != namespace
        ]


def _find(cluster: list[Document], change: Document) -> Document:
    """Return the object that `pod: x/a`, `namespace: x` or `service: x/s` of a change means."""
    kind = next(kind for kind in ("pod", "namespace", "service") if kind in change)
    namespace, _, name = change[kind].rpartition("/")
    for document in cluster:
        if _key(document) == (kind, namespace, name):
            return document
    raise ValueError(f"there is no {kind} {change[kind]}")


def _key(document: Document) -> tuple[str, str, str]:
    metadata = document["metadata"]
    return document["kind"].lower(), metadata.get("namespace", ""), metadata["name"]


def _label(target: Document, changes: Mapping[str, str | None]) -> None:
    labels = target["metadata"].setdefault("labels", {})
    for key, value in changes.items():
        if value is None:
            labels.pop(key, None)
        else:
            labels[key] = value


def _learned(answer: Document) -> Learned:
    _known(answer, {"pod", "name", "addresses"})
    addresses = tuple(ipaddress.ip_address(address) for address in answer["addresses"])
    return Learned(pod=answer["pod"], name=answer["name"], addresses=addresses)


def _step(cluster: list[Document], step: Document, learned: tuple[Learned, ...]) -> Step:
    manifests = tuple(copy.deepcopy([*cluster, *step.get("policies", ())]))
    for name in step.get("audit", ()):
        _audit(manifests, name)
    parties = dict(_parties(cluster))
    return Step(
        manifests=manifests,
        checks=tuple(_check(parties, check) for check in step.get("expect", ())),
        services=tuple(_service(parties, check) for check in step.get("services", ())),
        queries=tuple(map(_queries, step.get("queries", ()))),
        problems=frozenset((problem["policy"], problem["path"]) for problem in step.get("problems", ())),
        zone=step.get("zone", {}),
        learned=learned,
    )


def _audit(manifests: Iterable[Document], name: str) -> None:
    """Annotate the policy `x/p` or the namespace `x`."""
    namespace, slash, policy = name.partition("/")
    wanted = ("networkpolicy", namespace, policy) if slash else ("namespace", "", namespace)
    found = [one for one in manifests if _key(one) == wanted]
    if not found:
        raise ValueError(f"there is no {wanted[0]} {name} to audit")
    for one in found:
        one["metadata"].setdefault("annotations", {})["nodewall.io/audit"] = "true"


def _parties(cluster: Iterable[Document]) -> Iterator[tuple[str, frozenset[tuple[int, str]]]]:
    """Yield everybody who can be an end of a flow, with the ports they declare."""
    for document in cluster:
        metadata, spec = document["metadata"], document.get("spec", {})
        if document["kind"] == "Host":
            yield f"{HOST_PREFIX}{metadata['name']}", frozenset((p["port"], p["protocol"]) for p in spec["ports"])
        status = document.get("status", {})
        if document["kind"] == "Pod" and status.get("phase") not in FINISHED and status.get("podIP"):
            yield f"{metadata['namespace']}/{metadata['name']}", frozenset(_container_ports(spec))


def _container_ports(spec: Document) -> Iterator[tuple[int, str]]:
    sidecars = [c for c in spec.get("initContainers", ()) if c.get("restartPolicy") == "Always"]
    for container in (*spec["containers"], *sidecars):
        for port in container.get("ports", ()):
            yield port["containerPort"], port.get("protocol", "TCP")


def _check(parties: Mapping[str, frozenset[tuple[int, str]]], check: Document) -> Check:
    _known(check, CHECK_KEYS)
    number, _, protocol = check["port"].partition("/")
    servers = {name for name, ports in parties.items() if (int(number), protocol) in ports}
    pairs = [(source, target) for source in parties for target in servers if source != target]
    expected: dict[Pair, bool] = {}
    if "open" not in check:
        expected = {pair: True for pair in pairs if not any(end.startswith(HOST_PREFIX) for end in pair)}
    opened = {pair for pattern in check.get("open", ()) for pair in _meant(pairs, pattern)}
    blocked = {pair for pattern in check.get("blocked", ()) for pair in _meant(pairs, pattern)}
    if opened & blocked:
        raise ValueError(f"both open and blocked on {check['port']}: {sorted(opened & blocked)}")
    expected |= dict.fromkeys(opened, True) | dict.fromkeys(blocked, False)
    if not expected:
        raise ValueError(f"nothing is checked on {check['port']}")
    audited = {pair for pattern in check.get("audited", ()) for pair in _meant(pairs, pattern)}
    if any(not expected.get(pair) for pair in audited):
        raise ValueError(f"audited on {check['port']} and not open: {sorted(audited)}")
    if "audited" in check and not audited:
        raise ValueError(f"nobody is audited on {check['port']}")
    return Check(
        port=int(number),
        protocol=net.Protocol[protocol],
        family=net.Family[check["family"].upper()] if "family" in check else None,
        expected=expected,
        audited=frozenset(audited),
    )


def _meant(pairs: Iterable[Pair], pattern: Document) -> set[Pair]:
    _known(pattern, PATTERN_KEYS)
    without_source, without_target = pattern.get("exceptFrom", ()), pattern.get("exceptTo", ())
    return {
        (source, target)
        for source, target in pairs
        if _matches(source, [pattern["from"]])
        and _matches(target, [pattern["to"]])
        and not _matches(source, without_source)
        and not _matches(target, without_target)
    }


def _matches(name: str, globs: Iterable[str]) -> bool:
    """Tell whether a glob means `name`; only a glob that says `host/` means a machine outside the cluster."""
    return any(
        fnmatch.fnmatchcase(name, glob) and name.startswith(HOST_PREFIX) == glob.startswith(HOST_PREFIX)
        for glob in globs
    )


def _service(parties: Mapping[str, object], check: Document) -> ServiceCheck:
    """Read `{service: x/web, port: 80/TCP, all: [y/*], none: [x/b]}`."""
    _known(check, {"service", "port", "all", "none", "mixed", "refused", "audited"})
    namespace, _, service = check["service"].partition("/")
    number, _, protocol = check["port"].partition("/")
    reached = {
        source: outcome
        for outcome in ("all", "none", "mixed", "refused")
        for source in parties
        if _matches(source, check.get(outcome, ()))
    }
    if not reached:
        raise ValueError(f"nothing is checked of service {check['service']}")
    return ServiceCheck(
        namespace=namespace,
        service=service,
        port=int(number),
        protocol=net.Protocol[protocol],
        reached=reached,
        audited=frozenset(source for source in reached if _matches(source, check.get("audited", ()))),
    )


def _queries(check: Document) -> QueryCheck:
    """Read `{from: x/a, to: y/dns, port: 53/UDP, answered: [a.example], refused: [b.example]}`."""
    _known(check, {"from", "to", "service", "port", "answered", "refused", "audited"})
    number, _, protocol = check["port"].partition("/")
    answered = dict.fromkeys(check.get("answered", ()), True)
    refused = dict.fromkeys(check.get("refused", ()), False)
    audited = frozenset(check.get("audited", ()))
    if answered.keys() & refused.keys() or not answered.keys() | refused.keys() or audited - answered.keys():
        raise ValueError(f"queries from {check['from']}: answered, refused and audited do not go together")
    return QueryCheck(
        source=check["from"],
        target=check["service"] if "service" in check else check["to"],
        port=int(number),
        protocol=net.Protocol[protocol],
        service="service" in check,
        answered=answered | refused,
        audited=audited,
    )


def _known(mapping: Mapping[str, object], keys: Iterable[str]) -> None:
    unknown = sorted(set(mapping) - set(keys))
    if unknown:
        raise ValueError(f"unknown keys {', '.join(unknown)}")
