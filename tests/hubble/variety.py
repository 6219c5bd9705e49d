"""Flows of every kind there is, the same ones every time."""

from __future__ import annotations

import ipaddress
import random

from agent.hubble import records
from agent.model import labels, net, resources, verdict

NODE = "n1"
RUN = records.run_number(NODE, 1)
BEGAN_NS = 1_700_000_000_000_000_000
STEP_NS = 10_000_000


def pod(namespace: str, name: str, address: str, identity: int, **labelled: str) -> verdict.FlowEnd:
    return verdict.FlowEnd(
        address=ipaddress.ip_address(address),
        port=0,
        identity=identity,
        namespace=namespace,
        pod=name,
        labels=labels.Labels(labelled),
    )


def other(address: str, identity: int, kind: str = "", name: str = "", namespace: str = "") -> verdict.FlowEnd:
    owner = resources.ObjectRef(kind, namespace, name) if kind else None
    return verdict.FlowEnd(address=ipaddress.ip_address(address), port=0, identity=identity, owner=owner)


IPV4_ENDS = (
    pod("x", "web-1", "10.0.0.2", 300, app="web", tier="front"),
    pod("x", "db-1", "10.0.0.3", 301, app="db"),
    pod("y", "web-2", "10.0.1.4", 302, app="web"),
    pod("default", "lone", "10.0.1.5", 303),
    other("10.96.0.10", 2, "Service", "dns", "kube-system"),
    other("10.96.0.11", 2, "Service", "web", "x"),
    other("192.168.0.1", 1, "Node", "n1"),
    other("192.168.0.2", 1, "Node", "n2"),
    other("203.0.113.7", 2, "Host", "api.example.com"),
    other("203.0.113.8", 2),
    other("10.0.9.9", 3),
)
IPV6_ENDS = (
    pod("x", "web-1", "fd00::2", 300, app="web", tier="front"),
    pod("y", "web-2", "fd00:1::4", 302, app="web"),
    other("2001:db8::7", 2, "Host", "api.example.com"),
    other("2001:db8::8", 400),
)
POLICIES = tuple(resources.ObjectRef("NetworkPolicy", "x", name) for name in ("deny-all", "web"))
PORTS = (53, 80, 443, 8080)
NAMES = ("www.example.net", "api.example.com")


def flows(count: int = 400) -> tuple[records.Record, ...]:
    """Return records STEP_NS apart, numbered from 0."""
    choose = random.Random(6)
    return tuple(records.Record(_event(choose, number), number, RUN) for number in range(count))


def _event(choose: random.Random, number: int) -> verdict.VerdictEvent:
    source, destination = choose.sample(choose.choice((IPV4_ENDS, IPV4_ENDS, IPV6_ENDS)), 2)
    protocol = choose.choice((*net.Protocol, net.Protocol.TCP, net.Protocol.UDP)).value
    if number % 50 == 0:
        protocol = 47
    with_ports = protocol in (6, 17, 132, 136)
    reason = choose.choice(tuple(verdict.Reason))
    allowed = reason in (verdict.Reason.RULE_ALLOWED, verdict.Reason.NOT_ISOLATED)
    direction = choose.choice(tuple(net.Direction))
    by_rule = reason in (verdict.Reason.RULE_ALLOWED, verdict.Reason.POLICY_DENY)
    by_default = reason in (verdict.Reason.POLICY_DENIED, verdict.Reason.SERVICE_DENIED)
    socket = choose.random() < 0.3
    return verdict.VerdictEvent(
        time_ns=BEGAN_NS + number * STEP_NS,
        node=NODE,
        verdict=verdict.Verdict.FORWARDED if allowed else verdict.Verdict.DROPPED,
        reason=reason,
        direction=direction,
        layer=verdict.Layer.SOCKET if socket else verdict.Layer.PACKET,
        protocol=protocol,
        source=_port(source, choose.choice((40000, 53, 80)) if with_ports else 0),
        destination=_port(destination, choose.choice(PORTS) if with_ports else 0, NAMES[: number % 3]),
        generation=1,
        rule=verdict.RuleRef(policy=POLICIES[1], direction=direction, index=number % 3) if by_rule else None,
        isolating=POLICIES[: 1 + number % 2] if by_default else (),
        process=verdict.Process(pid=number + 1, command="cu\x1b[1mrl") if socket else None,
        match=tuple(verdict.Match)[number % len(verdict.Match)],
        dialled=_port(IPV4_ENDS[4 + number % 3], 80) if number % 7 == 0 and not socket else None,
        repeats=number % 5 * (number % 3),
        query=verdict.Query(name=f"{NAMES[number % 2]}.", type="A") if number % 11 == 0 and by_default else None,
    )


def _port(end: verdict.FlowEnd, port: int, names: tuple[str, ...] = ()) -> verdict.FlowEnd:
    return verdict.FlowEnd(
        address=end.address,
        port=port,
        identity=end.identity,
        namespace=end.namespace,
        pod=end.pod,
        labels=end.labels,
        owner=end.owner,
        names=names,
    )
