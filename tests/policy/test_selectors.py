"""The index must answer what a scan answers."""

from __future__ import annotations

import ipaddress
import random

from agent.identity import ipcache
from agent.model import identity, labels, net, resources
from agent.policy import selectors, tiers

TCP = net.Protocol.TCP
VALUES = ("a", "b", "")
BLOCKS = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "10.0.0.0/24", "10.0.0.1/32", "fd00::/16")))


def draw_labels(rng: random.Random) -> labels.Labels:
    return labels.Labels({key: rng.choice(VALUES) for key in ("app", "tier") if rng.random() < 0.6})


def draw_selector(rng: random.Random) -> labels.LabelSelector:
    def requirement() -> labels.Requirement:
        operator = rng.choice(list(labels.Operator))
        valued = operator in (labels.Operator.IN, labels.Operator.NOT_IN)
        values = frozenset(rng.sample(VALUES, rng.randint(1, 2))) if valued else frozenset[str]()
        return labels.Requirement(key=rng.choice(("app", "tier", "absent")), operator=operator, values=values)

    return labels.LabelSelector(tuple(requirement() for _ in range(rng.randint(0, 2))))


def draw_facts(rng: random.Random) -> identity.Facts:
    blocks = tuple(rng.sample(BLOCKS, rng.randint(0, 3)))
    if rng.random() < 0.2:
        return identity.Facts(blocks=blocks)
    return identity.Facts(
        namespace=rng.choice("xyz"), labels=draw_labels(rng), namespace_labels=draw_labels(rng), blocks=blocks
    )


def draw_peer(rng: random.Random) -> tiers.Peer:
    if rng.random() < 0.3:
        cidr, *excepts = rng.sample(BLOCKS, rng.randint(1, 3))
        return tiers.BlockPeer(cidr=cidr, excepts=tuple(excepts))
    namespaces = draw_selector(rng) if rng.random() < 0.6 else None
    return tiers.PodsPeer(pods=draw_selector(rng), namespaces=namespaces, namespace=rng.choice("xyz"))


def scan(peer: tiers.Peer, facts: identity.Facts) -> bool:
    if not isinstance(peer, tiers.PodsPeer):
        assert isinstance(peer, tiers.BlockPeer)
        return peer.cidr in facts.blocks and not any(hole in facts.blocks for hole in peer.excepts)
    if facts.namespace is None or not peer.pods.selects(facts.labels):
        return False
    if peer.namespaces is None:
        return facts.namespace == peer.namespace
    return peer.namespaces.selects(facts.namespace_labels)


def index(*facts: identity.Facts) -> selectors.Index:
    return selectors.Index(
        identity.Identity(id=identity.NumericIdentity(256 + place), facts=each) for place, each in enumerate(facts)
    )


def test_the_index_answers_what_a_scan_answers() -> None:
    """Rules A11, A20 to A23."""
    rng = random.Random(3)
    for _ in range(40):
        facts = [draw_facts(rng) for _ in range(rng.randint(0, 30))]
        indexed = index(*facts)
        for peer in [draw_peer(rng) for _ in range(30)]:
            expected = [256 + place for place, each in enumerate(facts) if scan(peer, each)]
            assert indexed.members(indexed.peer(peer)) == expected


def test_a_selector_of_everything_never_means_bare_addresses() -> None:
    """Rule A21."""
    indexed = index(identity.Facts(blocks=BLOCKS[:1]), identity.Facts(namespace="x"))
    everything = tiers.PodsPeer(pods=labels.EVERYTHING, namespaces=labels.EVERYTHING)
    assert indexed.members(indexed.peer(everything)) == [257]


def test_ports_are_found_by_name_and_protocol() -> None:
    """Rules A31, A32."""
    named = identity.Facts(namespace="x", ports=(resources.ContainerPort(80, TCP, "web"),))
    indexed = index(identity.Facts(namespace="x"), named)
    assert indexed.members(indexed.naming("web", TCP)) == [257]
    assert indexed.naming("web", net.Protocol.UDP) == 0
    assert indexed.ports_of(1) == named.ports


def test_select_yields_the_items_whose_bit_is_set() -> None:
    assert list(selectors.select("abcde", 0b10110)) == ["b", "c", "e"]
    assert list(selectors.select("abcde", 0)) == []


def test_mentioned_collects_from_peers_of_both_directions_and_names_from_egress() -> None:
    def selector(key: str) -> labels.LabelSelector:
        return labels.LabelSelector((labels.Requirement(key=key, operator=labels.Operator.EXISTS),))

    ingress = resources.PolicyRule(
        peers=(resources.PodPeer(pods=selector("app"), namespaces=selector("team")),),
        ports=(resources.PortMatch(protocol=TCP, port="in"),),
    )
    egress = resources.PolicyRule(
        peers=(resources.IPBlock(cidr=BLOCKS[0], excepts=BLOCKS[1:2]), resources.PodPeer(pods=selector("tier"))),
        ports=(resources.PortMatch(protocol=TCP, port="out"), resources.PortMatch(protocol=TCP)),
    )
    assert selectors.mentioned([ingress], iter([egress])) == ipcache.Mentioned(
        pod_keys=frozenset({"app", "tier"}),
        namespace_keys=frozenset({"team"}),
        ports=frozenset({("out", TCP)}),
        blocks=frozenset(BLOCKS[:2]),
    )
