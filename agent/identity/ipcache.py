"""What is known of every address, told apart only where some policy tells it apart.

The rule: an address has the facts that a policy of the present snapshot can see and no others, so that
labels nobody selects by make no identities, and pods that come and go touch the ipcache alone. Blocks are
facts of pods too (rule A22); hence identities go by address, for a pod's two addresses lie in different
blocks (rules A24, A25). This module must not look at policies: what they mention arrives as `Mentioned`.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from agent.identity import allocator
from agent.model import identity, net, resources
from agent.model import labels as labels_

NO_NODES: Mapping[net.Address, identity.NodePlace] = MappingProxyType({})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mentioned:
    """Everything that peers of policies mention, and hence can tell apart."""

    pod_keys: frozenset[str] = frozenset()
    namespace_keys: frozenset[str] = frozenset()
    ports: frozenset[tuple[str, net.Protocol]] = frozenset()
    """Names of container ports that egress rules use; ingress rules look at the subject's (rule A31)."""
    blocks: frozenset[net.Network] = frozenset()
    """Every cidr and every except."""
    nodes: bool = False
    """Whether addresses of nodes are told from those of others (rules E10, E11)."""

    def __or__(self, other: Mentioned) -> Mentioned:
        """Return what either mentions."""
        return Mentioned(
            pod_keys=self.pod_keys | other.pod_keys,
            namespace_keys=self.namespace_keys | other.namespace_keys,
            ports=self.ports | other.ports,
            blocks=self.blocks | other.blocks,
            nodes=self.nodes or other.nodes,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IPCache:
    """The facts of every pod address and of every mentioned prefix, and their numbers."""

    hosts: Mapping[net.Address, identity.NumericIdentity]
    cidrs: Mapping[net.Network, identity.NumericIdentity]
    identities: Mapping[identity.NumericIdentity, identity.Identity]

    def __post_init__(self) -> None:
        """Hold the invariant that every number stands for something."""
        assert self.identities.keys() >= set(self.hosts.values()) | set(self.cidrs.values())  # noqa: S101 - invariant


class Blocks:
    """Finds the mentioned prefixes that contain an address or a prefix; one dictionary look-up a prefix length."""

    def __init__(self, networks: Iterable[net.Network]) -> None:
        """Index `networks`."""
        self._networks = {allocator.network_key(network): network for network in networks}
        lengths = {(network.version, network.prefixlen) for network in self._networks.values()}
        self._masks = {
            version: [(length, _mask(version, length)) for found, length in sorted(lengths) if found == version]
            for version in (4, 6)
        }

    def containing(self, version: int, value: int, longest: int = 128) -> tuple[net.Network, ...]:
        """Return the prefixes that contain address `value`, shortest first, none longer than `longest`."""
        if not self._masks[version]:
            return ()
        found = (
            self._networks.get((version, value & mask, length))
            for length, mask in self._masks[version]
            if length <= longest
        )
        return tuple(network for network in found if network is not None)


def build(
    owners: Mapping[net.Address, resources.Pod],
    namespaces: Mapping[str, resources.Namespace],
    mentioned: Mentioned,
    nodes: Mapping[net.Address, identity.NodePlace] = NO_NODES,
) -> IPCache:
    """Tell apart the addresses of `owners`, and all others by `mentioned.blocks`; unknown namespaces have no labels.

    Those of `nodes` are told from the rest of the world where that is mentioned, as prefixes of full length.
    """
    places = {net.host_network(address): place for address, place in nodes.items()} if mentioned.nodes else {}
    networks = list(dict.fromkeys((*mentioned.blocks, *places)))
    blocks = Blocks(mentioned.blocks)
    profiles = _Profiles(namespaces, mentioned)
    hosts = [profiles.of_pod(pod, blocks.containing(address.version, int(address))) for address, pod in owners.items()]
    cidrs = [
        profiles.of_block(
            blocks.containing(block.version, int(block.network_address), longest=block.prefixlen), places.get(block)
        )
        for block in networks
    ]
    numbers = allocator.allocate(profiles.found)
    return IPCache(
        hosts={address: numbers[place] for address, place in zip(owners, hosts, strict=True)},
        cidrs={block: numbers[place] for block, place in zip(networks, cidrs, strict=True)},
        identities={
            number: identity.Identity(id=number, facts=facts)
            for number, facts in zip(numbers, profiles.found, strict=True)
        },
    )


class Lookup:
    """Answers which identity an address has, as the datapath does."""

    def __init__(self, cache: IPCache) -> None:
        """Index the prefixes of `cache`."""
        self._cache = cache
        self._blocks = Blocks(cache.cidrs)

    def identity_of(self, address: net.Address) -> identity.NumericIdentity:
        """Return a pod's identity, else that of the longest prefix, else WORLD."""
        host = self._cache.hosts.get(address)
        if host is not None:
            return host
        containing = self._blocks.containing(address.version, int(address))
        return self._cache.cidrs[containing[-1]] if containing else identity.WORLD


class _Profiles:
    """Gathers distinct facts and answers with places in `found`: hashing whole Facts for every pod is dear."""

    def __init__(self, namespaces: Mapping[str, resources.Namespace], mentioned: Mentioned) -> None:
        self._mentioned = mentioned
        self._namespace_labels = {
            name: _project(namespace.labels, mentioned.namespace_keys) for name, namespace in namespaces.items()
        }
        self._known: dict[object, int] = {}
        self.found: list[identity.Facts] = []

    def of_block(self, blocks: tuple[net.Network, ...], node: identity.NodePlace | None) -> int:
        """Return the place of what an address inside `blocks` has that is no pod's."""
        self.found.append(identity.Facts(blocks=blocks, node=node))
        return len(self.found) - 1

    def of_pod(self, pod: resources.Pod, blocks: tuple[net.Network, ...]) -> int:
        """Return the place of the facts of `pod` at an address inside `blocks`."""
        keys = self._mentioned.pod_keys
        pairs = tuple([pair for pair in pod.labels.items() if pair[0] in keys])
        ports = self._ports(pod.ports) if self._mentioned.ports and pod.ports else ()
        profile = (pod.namespace, pairs, ports, blocks)
        place = self._known.setdefault(profile, len(self.found))
        if place == len(self.found):
            self.found.append(
                identity.Facts(
                    namespace=pod.namespace,
                    labels=labels_.Labels(dict(pairs)),
                    namespace_labels=self._namespace_labels.get(pod.namespace, labels_.NO_LABELS),
                    ports=ports,
                    blocks=blocks,
                )
            )
        return place

    def _ports(self, ports: Sequence[resources.ContainerPort]) -> tuple[resources.ContainerPort, ...]:
        """Keep the named ports that a rule names with that protocol (rules A31, A32), each once."""
        kept = {port for port in ports if (port.name, port.protocol) in self._mentioned.ports}
        return tuple(sorted(kept, key=lambda port: (port.name or "", port.protocol.value, port.number)))


def _project(labels: labels_.Labels, keys: frozenset[str]) -> labels_.Labels:
    return labels_.Labels({key: value for key, value in labels.items() if key in keys})


def _mask(version: int, length: int) -> int:
    width = ipaddress.IPV4LENGTH if version == net.Family.IPV4.value else ipaddress.IPV6LENGTH
    return ((1 << length) - 1) << (width - length)
