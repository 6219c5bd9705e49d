"""An address has the facts that some policy can see, and no others."""

from __future__ import annotations

import ipaddress
import random

from agent.identity import ipcache
from agent.model import identity, labels, net, resources

X = {"x": resources.Namespace(name="x", labels=labels.Labels({"team": "t", "noise": "1"}))}
A4, A6 = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::1")


def pod(
    name: str, *addresses: net.Address, ports: tuple[resources.ContainerPort, ...] = (), **found: str
) -> resources.Pod:
    return resources.Pod(
        namespace="x", name=name, uid=name, labels=labels.Labels(found), addresses=addresses, ports=ports
    )


def networks(*texts: str) -> frozenset[net.Network]:
    return frozenset(map(ipaddress.ip_network, texts))


def facts_at(cache: ipcache.IPCache, address: net.Address) -> identity.Facts:
    return cache.identities[cache.hosts[address]].facts


def test_labels_that_no_selector_mentions_make_no_identities() -> None:
    owners = {
        A4: pod("a", A4, app="a", noise="1"),
        ipaddress.ip_address("10.0.0.2"): pod("b", A4, app="a", noise="2"),
    }
    mentioned = ipcache.Mentioned(pod_keys=frozenset({"app"}), namespace_keys=frozenset({"team"}))
    cache = ipcache.build(owners, X, mentioned)
    assert len(cache.identities) == 1
    assert facts_at(cache, A4) == identity.Facts(
        namespace="x", labels=labels.Labels({"app": "a"}), namespace_labels=labels.Labels({"team": "t"})
    )


def test_a_pods_addresses_differ_where_blocks_do_and_families_do_not_mix() -> None:
    """Rules A22, A24, A25."""
    both = pod("a", A4, A6)
    cache = ipcache.build({A4: both, A6: both}, X, ipcache.Mentioned(blocks=networks("0.0.0.0/0")))
    assert facts_at(cache, A4).blocks == tuple(networks("0.0.0.0/0"))
    assert facts_at(cache, A6).blocks == ()


def test_only_port_names_that_rules_use_with_that_protocol_are_facts() -> None:
    """Rules A31, A32."""
    ports = (
        resources.ContainerPort(81, net.Protocol.TCP, "web"),
        resources.ContainerPort(80, net.Protocol.TCP, "web"),
        resources.ContainerPort(80, net.Protocol.UDP, "web"),
        resources.ContainerPort(9, net.Protocol.TCP, "other"),
        resources.ContainerPort(10, net.Protocol.TCP),
    )
    mentioned = ipcache.Mentioned(ports=frozenset({("web", net.Protocol.TCP)}))
    cache = ipcache.build({A4: pod("a", A4, ports=ports)}, X, mentioned)
    assert facts_at(cache, A4).ports == (ports[1], ports[0])


def test_a_prefix_has_every_mentioned_prefix_around_it_as_facts() -> None:
    """Rules A22, A23: the except of one block is a fact of addresses in it for every other rule."""
    nested = networks("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "192.0.2.0/24", "::/0")
    cache = ipcache.build({}, {}, ipcache.Mentioned(blocks=nested))
    inner = ipaddress.ip_network("10.1.0.0/16")
    expected = tuple(map(ipaddress.ip_network, ("0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16")))
    assert cache.identities[cache.cidrs[inner]].facts == identity.Facts(blocks=expected)
    assert len(set(cache.cidrs.values())) == 5


def test_an_unknown_namespace_has_no_labels() -> None:
    cache = ipcache.build({A4: pod("a", A4)}, {}, ipcache.Mentioned(namespace_keys=frozenset({"team"})))
    assert facts_at(cache, A4).namespace_labels == labels.NO_LABELS


def test_lookup_prefers_the_pod_then_the_longest_prefix_then_the_world() -> None:
    mentioned = ipcache.Mentioned(blocks=networks("10.0.0.0/8", "10.0.0.0/24"))
    cache = ipcache.build({A4: pod("a", A4)}, X, mentioned)
    lookup = ipcache.Lookup(cache)
    assert lookup.identity_of(A4) == cache.hosts[A4]
    for text, network in (("10.0.0.2", "10.0.0.0/24"), ("10.9.0.1", "10.0.0.0/8")):
        assert lookup.identity_of(ipaddress.ip_address(text)) == cache.cidrs[ipaddress.ip_network(network)]
    assert lookup.identity_of(ipaddress.ip_address("11.0.0.1")) == identity.WORLD
    assert lookup.identity_of(A6) == identity.WORLD


def test_blocks_finds_what_a_scan_finds() -> None:
    rng = random.Random(1)
    found = {ipaddress.ip_network((rng.randrange(1 << 32), rng.randrange(33)), strict=False) for _ in range(300)} | {
        ipaddress.ip_network((rng.randrange(1 << 128), rng.choice((0, 1, 8, 64, 128))), strict=False) for _ in range(99)
    }
    blocks = ipcache.Blocks(found)
    for _ in range(300):
        near = rng.choice(sorted(found, key=str))
        address = near[rng.randrange(min(near.num_addresses, 1 << 20))]
        expected = sorted(
            (network for network in found if network.version == address.version and address in network),
            key=lambda network: network.prefixlen,
        )
        assert list(blocks.containing(address.version, int(address))) == expected
