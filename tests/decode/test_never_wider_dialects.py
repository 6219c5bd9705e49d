"""A broken CiliumNetworkPolicy or ClusterNetworkPolicy lets no flow through that the sound one stops (rules A50, D9).

Judged by the evaluator in a small cluster where a NetworkPolicy isolates everybody, so that what is allowed to more
pods than was meant shows, and where DNS has given the sender an address outside.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest

from agent import decode, snapshot
from agent.decode import fields
from agent.model import labels, net, resources
from agent.policy import evaluator, queries
from tests.decode import samples

TCP = net.Protocol.TCP
WRONG = (3.5, fields.Repeated(4), [3.5], {"unknown": 1})
NAMES = frozenset({"api.example.com"})
TCP_80 = [{"ports": [{"port": "80", "protocol": "TCP"}]}]
ASKING = {
    "ports": [{"port": "53", "protocol": "UDP"}],
    "rules": {"dns": [{"matchName": "a.example"}, {"matchPattern": "*.b.example"}]},
}
ASKED = ("a.example", "x.b.example", "c.example")
CILIUM = samples.cilium_policy(
    ingress=[{"fromEndpoints": [{"matchLabels": {"app": "db"}}], "toPorts": TCP_80}],
    egress=[
        {"toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "y"}}]},
        {"toCIDRSet": [{"cidr": "203.0.113.0/24", "except": ["203.0.113.7/32"]}], "toPorts": TCP_80},
        {"toFQDNs": [{"matchName": "api.example.com"}], "toPorts": TCP_80},
        {"toEndpoints": [{"matchLabels": {"app": "db"}}], "toPorts": [ASKING]},
    ],
    egressDeny=[{"toEntities": ["world"], "toPorts": [{"ports": [{"port": "22", "endPort": 53, "protocol": "ANY"}]}]}],
)
CLUSTER = samples.cluster_policy(
    subject={
        "pods": {"namespaceSelector": {"matchLabels": {"team": "x"}}, "podSelector": {"matchLabels": {"app": "web"}}}
    },
    ingress=[
        {"action": "Deny", "from": [{"namespaces": {"matchLabels": {"team": "y"}}}]},
        {"action": "Accept", "from": [{"namespaces": {"matchLabels": {"team": "x"}}}]},
    ],
    egress=[
        {
            "action": "Deny",
            "to": [{"networks": ["203.0.113.7/32"]}],
            "protocols": [{"tcp": {"destinationPort": {"number": 80}}}],
        },
        {"action": "Pass", "to": [{"pods": {"namespaceSelector": {"matchLabels": {"team": "y"}}, "podSelector": {}}}]},
        {"action": "Accept", "to": [{"domainNames": ["*.example.com"]}, {"namespaces": {}}]},
    ],
)


def _pod(namespace: str, app: str, last: int) -> resources.Pod:
    return resources.Pod(
        namespace=namespace,
        name=f"{app}-{last}",
        uid=str(last),
        labels=labels.Labels({"app": app}),
        addresses=(ipaddress.ip_address(f"10.0.0.{last}"),),
    )


PODS = (_pod("x", "web", 1), _pod("x", "db", 2), _pod("y", "web", 3), _pod("y", "db", 4))
OUTSIDE = tuple(map(ipaddress.ip_address, ("203.0.113.7", "203.0.113.8", "198.51.100.1")))
ISOLATED = frozenset(net.Direction)


def _cluster(policy: resources.NetworkPolicy) -> snapshot.Snapshot:
    isolating = (resources.NetworkPolicy(namespace=space, name="all", directions=ISOLATED) for space in ("x", "y"))
    spaces = (resources.Namespace(name=name, labels=labels.Labels({"team": name})) for name in ("x", "y"))
    return snapshot.build([*PODS, *spaces, *isolating, policy])


@functools.cache
def _flows() -> tuple[evaluator.Flow, ...]:
    return tuple(_each_flow())


def _each_flow() -> Iterator[evaluator.Flow]:
    ends: list[tuple[evaluator.Party, net.Address]] = [(pod, pod.addresses[0]) for pod in PODS]
    for source, opener in ends:
        for destination, address in [*ends, *((None, address) for address in OUTSIDE)]:
            for port, protocol in ((80, TCP), (22, TCP), (53, TCP), (53, net.Protocol.UDP)):
                if source is not destination:
                    yield evaluator.Flow(
                        source=source,
                        destination=destination,
                        source_address=opener,
                        destination_address=address,
                        protocol=protocol,
                        port=port,
                        names=NAMES,
                    )


def _allowed(policy: resources.NetworkPolicy) -> set[tuple[int, str]]:
    """Return which side of which flow lets it through, and which names it may be asked for through it."""
    cluster = _cluster(policy)
    decisions = ((place, evaluator.evaluate(cluster, flow)) for place, flow in enumerate(_flows()))
    asked = {
        (place, name)
        for place, flow in enumerate(_flows())
        if flow.protocol is net.Protocol.UDP
        for name in _asked(evaluator.walk(cluster, flow).egress)
    }
    return asked | {
        (place, side.direction.name)
        for place, decision in decisions
        for side in (decision.egress, decision.ingress)
        if side.allowed
    }


def _asked(walk: evaluator.SideWalk) -> Iterator[str]:
    """Yield which names may be asked for."""
    restriction = queries.restriction(walk)
    for name in ASKED if walk.side.allowed else ():
        if restriction is None or restriction.admits(name):
            yield name


def _places(value: object, path: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*path, key))


def _broken(document: dict[str, Any]) -> Iterator[Any]:
    """Yield the document with each value of its spec replaced, and with an unknown field beside it."""
    for path in _places(document["spec"], ("spec",)):
        for wrong in WRONG:
            changed = copy.deepcopy(document)
            inner: Any = changed
            for step in path[:-1]:
                inner = inner[step]
            value, inner[path[-1]] = inner[path[-1]], wrong
            if path != ("spec",):
                yield changed
            if isinstance(value, dict) and wrong is WRONG[0]:
                beside = copy.deepcopy(changed)
                inner[path[-1]] = {**value, "unknown": 7}
                yield changed
                changed = beside


@pytest.mark.parametrize("document", [CILIUM, CLUSTER], ids=["cilium", "cluster"])
def test_no_broken_place_lets_anything_through_that_the_sound_policy_stops(document: dict[str, Any]) -> None:
    """Rules A50, D9, E17."""
    decoded = decode.decode(document)
    assert isinstance(decoded.resource, resources.NetworkPolicy)
    assert decoded.problems == ()
    sound = _allowed(decoded.resource)
    assert 0 < len(sound) < 2 * len(_flows())
    assert {name for _, name in sound} >= {"a.example", "x.b.example"}
    known: dict[object, set[tuple[int, str]]] = {}
    for changed in _broken(document):
        found = decode.decode(changed)
        assert found.problems, changed
        assert isinstance(found.resource, resources.NetworkPolicy), changed
        what = dataclasses.astuple(found.resource)
        allowed = known[what] if what in known else known.setdefault(what, _allowed(found.resource))
        assert allowed <= sound, changed
