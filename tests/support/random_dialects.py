"""Random clusters with policies of all kinds, and with answers of DNS: `random_cluster`, and what the dialects add."""

from __future__ import annotations

import dataclasses
import ipaddress
import random
from collections.abc import Callable, Iterator, Sequence

from agent import snapshot
from agent.fqdn import patterns
from agent.model import endpoint, fqdn, labels, net, resources
from tests.support import random_cluster

NAMES = ("a.example", "b.example", "api.b.example", "x.a.example", "x1.y.a.example")
CILIUM = ("a.example", "*.example", "*.*.example", "**.example", "*", "x*.a.example", "*p*.b.example", "*.a.example")
CLUSTER = ("a.example", "b.example", "api.b.example", "*.a.example", "*.b.example")
ACTIONS = tuple(resources.RuleAction)
NOBODYS = ("203.0.113.200", "198.51.100.200", "2001:db8:2::200", "2001:db8:9::1") * 2
"""Addresses of nobody, in blocks that policies name and out of them."""
ANSWERS = 12
TRIES = 3
"""So many connections to each address."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """DNS gave a pod an address for a name."""

    pod: tuple[str, str]
    name: str
    address: net.Address


def cluster(seed: int) -> tuple[random_cluster.Cluster, tuple[Answer, ...]]:
    """Draw the cluster of `seed`, and what its pods have asked for; every node's datapath learns names."""
    drawn = _Draw(seed).cluster(endpoint.HoldMode.PERMISSIVE)
    rng = random.Random(seed ^ 0xD1A1EC7)
    views = {name: dataclasses.replace(view, learns_names=True) for name, view in drawn.views.items()}
    built = drawn.snapshot
    if rng.random() < 0.5:
        built = _with_api_server(built, rng)
    return dataclasses.replace(drawn, views=views, snapshot=built), _answers(built, rng)


def attempts(of: random_cluster.Cluster, answers: Sequence[Answer]) -> Iterator[random_cluster.Attempt]:
    """Draw connections to addresses that DNS has given, by the pods that have asked."""
    rng = random.Random(of.seed ^ 0xA5CED)
    for answer in answers:
        own = [each for each in of.snapshot.pods[answer.pod].addresses if each.version == answer.address.version]
        for client in own[:1]:
            for _ in range(TRIES):
                yield random_cluster.Attempt(
                    client=client,
                    server=answer.address,
                    protocol=rng.choice((*random_cluster.TRANSPORTS, net.Protocol.TCP)),
                    port=rng.choice(random_cluster.NUMBERS),
                )


def _with_api_server(built: snapshot.Snapshot, rng: random.Random) -> snapshot.Snapshot:
    part = resources.EndpointSlice(
        namespace="default",
        name="kubernetes",
        service="kubernetes",
        addresses=tuple(rng.sample(_addresses(built), 1)),
        ports=(resources.EndpointPort(name="https", number=443, protocol=net.Protocol.TCP),),
    )
    return dataclasses.replace(built, endpoint_slices={**built.endpoint_slices, ("default", "kubernetes"): part})


def _answers(built: snapshot.Snapshot, rng: random.Random) -> tuple[Answer, ...]:
    asking = [key for key, pod in built.pods.items() if pod.has_identity]
    given = [*_addresses(built), *map(ipaddress.ip_address, NOBODYS)]
    return tuple(
        Answer(pod=rng.choice(asking), name=rng.choice(NAMES), address=rng.choice(given))
        for _ in range(ANSWERS if asking else 0)
    )


def _addresses(built: snapshot.Snapshot) -> list[net.Address]:
    holders: tuple[random_cluster.Holder, ...] = (*built.pods.values(), *built.nodes.values(), *built.hosts.values())
    return list(dict.fromkeys(address for holder in holders for address in holder.addresses))


class _Draw(random_cluster.Draw):
    """Draws policies of every kind in place of NetworkPolicy alone."""

    def _policy(self, index: int) -> resources.NetworkPolicy:
        draw = self._rng.choice(
            (super()._policy, self._cilium, self._cilium, self._cluster_policy, self._cluster_policy)
        )
        return draw(index)

    def _cilium(self, index: int) -> resources.NetworkPolicy:
        rng = self._rng
        return resources.NetworkPolicy(
            namespace=rng.choice(random_cluster.NAMESPACES),
            name=f"policy-{index}",
            kind="CiliumNetworkPolicy",
            subject=self._subject(),
            directions=frozenset(each for each in net.Direction if rng.random() < 0.8),
            ingress=self._cilium_rules(egress=False),
            egress=self._cilium_rules(egress=True),
        )

    def _subject(self, keys: tuple[str, ...] = random_cluster.KEYS) -> labels.LabelSelector:
        return labels.EVERYTHING if self._rng.random() < 0.6 else self._selector(keys=keys)

    def _cilium_rules(self, *, egress: bool) -> tuple[resources.PolicyRule, ...]:
        allow, deny = resources.RuleAction.ALLOW, resources.RuleAction.DENY
        actions = [allow] * self._rng.randint(0, 3) + [deny] * self._rng.choice((0, 0, 1, 2))
        return tuple(self._of(self._cilium_peers(egress=egress and action is allow), action) for action in actions)

    def _cilium_peers(self, *, egress: bool) -> tuple[resources.Peer, ...] | None:
        """One kind of peer a rule (rule E5)."""
        rng = self._rng
        kind: Callable[[], resources.Peer] | None = rng.choice(
            (None, self._endpoints, self._outside, self._entity, *([self._cilium_names] * 4 if egress else []))
        )
        return None if kind is None else tuple(kind() for _ in range(rng.choice((0, 1, 1, 2))))

    def _endpoints(self) -> resources.Peer:
        named = self._selector(keys=(random_cluster.METADATA_NAME,)) if self._rng.random() < 0.5 else None
        return resources.PodPeer(pods=self._selector(), namespaces=named)

    def _outside(self) -> resources.Peer:
        return dataclasses.replace(self._block(), outside=True)

    def _entity(self) -> resources.Peer:
        return resources.EntityPeer(entity=self._rng.choice(list(resources.Entity)))

    def _cilium_names(self) -> resources.Peer:
        return resources.NamesPeer(patterns=self._patterns(CILIUM, patterns.parse_cilium_pattern))

    def _cluster_policy(self, index: int) -> resources.NetworkPolicy:
        rng = self._rng
        tier = rng.choice((resources.Tier.ADMIN, resources.Tier.ADMIN, resources.Tier.BASELINE))
        return resources.NetworkPolicy(
            namespace="",
            name=f"policy-{index}",
            kind="ClusterNetworkPolicy",
            subject=self._subject(),
            subject_namespaces=self._subject(keys=(*random_cluster.KEYS, random_cluster.METADATA_NAME)),
            tier=tier,
            priority=rng.randint(0, 3),
            ingress=self._cluster_rules(tier, egress=False),
            egress=self._cluster_rules(tier, egress=True),
        )

    def _cluster_rules(self, tier: resources.Tier, *, egress: bool) -> tuple[resources.PolicyRule, ...]:
        drawn = tuple(self._cluster_rule(tier, egress=egress) for _ in range(self._rng.choice((0, 1, 2, 2, 3))))
        if tier is not resources.Tier.ADMIN or not egress or self._rng.random() < 0.5:
            return drawn
        passing = self._of((self._block(),), resources.RuleAction.PASS)
        return (passing, self._of((self._cluster_names(),), resources.RuleAction.ALLOW), *drawn)

    def _cluster_rule(self, tier: resources.Tier, *, egress: bool) -> resources.PolicyRule:
        rng = self._rng
        action = rng.choice(ACTIONS)
        kinds: list[Callable[[], resources.Peer]] = [self._selected, *([self._block] if egress else [])]
        if egress and action is resources.RuleAction.ALLOW and tier is resources.Tier.ADMIN:
            kinds += [self._cluster_names] * 4
        return self._of(tuple(rng.choice(kinds)() for _ in range(rng.choice((1, 1, 2)))), action)

    def _selected(self) -> resources.Peer:
        spaces = self._selector(keys=(*random_cluster.KEYS, random_cluster.METADATA_NAME))
        return resources.PodPeer(pods=self._selector() if self._rng.random() < 0.5 else None, namespaces=spaces)

    def _cluster_names(self) -> resources.Peer:
        return resources.NamesPeer(patterns=self._patterns(CLUSTER, patterns.parse_cluster))

    def _patterns(self, texts: Sequence[str], parse: Callable[[str], fqdn.NamePattern]) -> tuple[fqdn.NamePattern, ...]:
        return tuple(parse(text) for text in self._rng.sample(texts, self._rng.choice((1, 1, 2))))

    def _of(self, peers: tuple[resources.Peer, ...] | None, action: resources.RuleAction) -> resources.PolicyRule:
        rule = dataclasses.replace(self._rule(), peers=peers, action=action)
        return rule if self._rng.random() < 0.5 else dataclasses.replace(rule, ports=None)
