"""Random clusters whose policies restrict the names that may be asked for: `random_dialects`, and `rules.dns`."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Sequence

from agent import snapshot as snapshot_
from agent.fqdn import patterns
from agent.model import fqdn, net, resources
from tests.support import random_cluster, random_dialects

NAMES = (*random_dialects.NAMES, "other.org", "a.b.c.example", "example", "not a host name", ".")
ASKED = tuple(text for text in random_dialects.CILIUM if text != patterns.STAR)
"""`*` restricts nothing, so no decoded entry has it beside a restriction."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A name that somebody asks somebody for."""

    client: net.Address
    server: net.Address
    port: int
    name: str


def cluster(seed: int) -> tuple[random_cluster.Cluster, tuple[random_dialects.Answer, ...]]:
    """Draw the cluster of `seed` with rules that restrict; every node's datapath reads queries."""
    drawn, answers = random_dialects.cluster(seed)
    rng = random.Random(seed ^ 0xA5C)
    policies = {ref: _restricting(policy, rng) for ref, policy in drawn.snapshot.policies.items()}
    views = {name: dataclasses.replace(view, filters_queries=True) for name, view in drawn.views.items()}
    snapshot = _by_datagrams(dataclasses.replace(drawn.snapshot, policies=policies))
    return dataclasses.replace(drawn, snapshot=snapshot, views=views), answers


def queries(of: random_cluster.Cluster, count: int) -> Iterator[Query]:
    """Draw queries of pods to anybody of their family."""
    rng = random.Random(of.seed ^ 0xD25)
    holders: tuple[random_cluster.Holder, ...] = (
        *of.snapshot.pods.values(),
        *of.snapshot.nodes.values(),
        *of.snapshot.hosts.values(),
    )
    servers = [address for holder in holders for address in holder.addresses]
    clients = [address for pod in of.snapshot.pods.values() if pod.has_identity for address in pod.addresses]
    for _ in range(count if clients else 0):
        client = rng.choice(clients)
        yield Query(
            client=client,
            server=rng.choice([address for address in servers if address.version == client.version]),
            port=rng.choice(random_cluster.NUMBERS),
            name=rng.choice(NAMES),
        )


def _by_datagrams(built: snapshot_.Snapshot) -> snapshot_.Snapshot:
    """Have every Service listen for datagrams, for nothing else can be asked."""
    udp = net.Protocol.UDP
    services = {
        key: dataclasses.replace(one, ports=tuple(dataclasses.replace(port, protocol=udp) for port in one.ports))
        for key, one in built.services.items()
    }
    slices = {
        key: dataclasses.replace(one, ports=tuple(dataclasses.replace(port, protocol=udp) for port in one.ports))
        for key, one in built.endpoint_slices.items()
    }
    return dataclasses.replace(built, services=services, endpoint_slices=slices)


def _restricting(policy: resources.NetworkPolicy, rng: random.Random) -> resources.NetworkPolicy:
    if policy.kind != "CiliumNetworkPolicy":
        return policy
    return dataclasses.replace(policy, egress=tuple(_restricted(rule, rng) for rule in policy.egress))


def _restricted(rule: resources.PolicyRule, rng: random.Random) -> resources.PolicyRule:
    """Restrict some ports, as `decode` would: of a rule that allows, towards no names, by UDP alone."""
    by_name = any(isinstance(peer, resources.NamesPeer) for peer in rule.peers or ())
    if rule.action is not resources.RuleAction.ALLOW or by_name:
        return rule
    if rule.ports is None:
        return rule if rng.random() < 0.3 else dataclasses.replace(rule, ports=(_asking(None, rng),))
    return dataclasses.replace(
        rule, ports=tuple(match if rng.random() < 0.3 else _asking(match.port, rng) for match in rule.ports)
    )


def _asking(port: net.PortRange | str | None, rng: random.Random) -> resources.PortMatch:
    asks = rng.sample(ASKED, rng.choice((1, 1, 2)))
    return resources.PortMatch(protocol=net.Protocol.UDP, port=port, asks=_parsed(asks))


def _parsed(texts: Sequence[str]) -> tuple[fqdn.NamePattern, ...]:
    return tuple(dict.fromkeys(patterns.parse_cilium_pattern(text) for text in texts))
