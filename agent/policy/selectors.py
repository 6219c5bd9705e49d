"""Peers as sets of identities, by index and never by scanning: one Python int is a set, one bit an identity.

The rule: resolve a selector over distinct facts instead of pods, look each label up once, and remember each
peer's answer. Integers of ten thousand bits are combined in a tenth of a microsecond, which is why ten
thousand pods and five thousand policies need no native code. What is mentioned decides which facts exist,
so `mentioned` and `Index` must read the same policies.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias, TypeVar

from agent.identity import ipcache
from agent.model import fqdn, identity, labels, net, resources
from agent.policy import tiers

Bits: TypeAlias = int
"""A set of identities: bit i stands for `Index.numbers[i]`."""

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

_BINARY_DIGITS = bytes.maketrans(b"01", b"\x00\x01")


Rule: TypeAlias = tiers.Rule | resources.PolicyRule


def mentioned(ingress: Iterable[Rule], egress: Iterable[Rule]) -> ipcache.Mentioned:
    """Collect every label key, port name and prefix by which a peer of these rules can tell identities apart.

    Takes decoded rules too: of the whole cluster's policies only what they mention is needed.
    """
    egress = list(egress)
    pod_keys: set[str] = set()
    namespace_keys: set[str] = set()
    blocks: set[net.Network] = set()
    nodes = False
    for rule in itertools.chain(ingress, egress):
        for peer in rule.peers or ():
            nodes = nodes or _tells_nodes(peer)
            if isinstance(peer, tiers.BlockPeer | resources.IPBlock):
                blocks.add(peer.cidr)
                blocks.update(peer.excepts)
            elif isinstance(peer, tiers.PodsPeer | resources.PodPeer):
                pod_keys.update(_keys(peer.pods))
                namespace_keys.update(_keys(peer.namespaces))
    matches = itertools.chain.from_iterable(rule.ports or () for rule in egress)
    return ipcache.Mentioned(
        pod_keys=frozenset(pod_keys),
        namespace_keys=frozenset(namespace_keys),
        ports=frozenset((match.port, match.protocol) for match in matches if isinstance(match.port, str)),
        blocks=frozenset(blocks),
        nodes=nodes,
    )


def _tells_nodes(peer: tiers.Peer | resources.Peer) -> bool:
    """Tell whether a peer means nodes, or whoever is no node: Cilium's names are among these (rules E10, E11, E15)."""
    match peer:
        case tiers.NodesPeer():
            return True
        case tiers.BlockPeer() | resources.IPBlock():
            return peer.outside
        case tiers.NamesPeer():
            return any(pattern.dialect is fqdn.Dialect.CILIUM for pattern in peer.patterns)
        case _:
            return False


def _keys(selector: labels.LabelSelector | None) -> list[str]:
    return [requirement.key for requirement in selector.requirements] if selector is not None else []


class Index:
    """Answers which identities a peer means."""

    def __init__(self, identities: Iterable[identity.Identity]) -> None:
        """Index `identities`; they must not change afterwards."""
        ordered = sorted(identities, key=lambda each: each.id)
        self.numbers = [each.id for each in ordered]
        self._facts = [each.facts for each in ordered]
        self._pods = _bits(index for index, facts in enumerate(self._facts) if facts.namespace is not None)
        self._nodes = _group((facts.node, index) for index, facts in enumerate(self._facts))
        self._namespaces = _group((facts.namespace, index) for index, facts in enumerate(self._facts))
        self._labels = _LabelIndex([facts.labels for facts in self._facts])
        self._namespace_labels = _LabelIndex([facts.namespace_labels for facts in self._facts])
        self._blocks = _group((block, index) for index, facts in enumerate(self._facts) for block in facts.blocks)
        self._ports = _group(
            ((port.name, port.protocol), index) for index, facts in enumerate(self._facts) for port in facts.ports
        )
        self._peers: dict[tiers.Peer, Bits] = {}

    def peer(self, peer: tiers.Peer) -> Bits:
        """Return the identities that `peer` means."""
        found = self._peers.get(peer)
        if found is None:
            found = self._peers[peer] = self._resolved(peer)
        return found

    @property
    def in_cluster(self) -> Bits:
        """The identities of pods and nodes."""
        return self._pods | self._nodes.get(identity.NodePlace.HOST, 0) | self._nodes.get(identity.NodePlace.REMOTE, 0)

    def naming(self, name: str, protocol: net.Protocol) -> Bits:
        """Return the identities whose pods declare a port of this name and protocol (rule A31)."""
        return self._ports.get((name, protocol), 0)

    def ports_of(self, position: int) -> tuple[resources.ContainerPort, ...]:
        """Return the named ports of the identity at bit `position`."""
        return self._facts[position].ports

    def members(self, bits: Bits) -> list[identity.NumericIdentity]:
        """Return the numbers of the identities in `bits`, ascending."""
        return list(select(self.numbers, bits))

    def positions(self, bits: Bits) -> list[int]:
        """Return the positions of the bits that are set."""
        return list(select(range(len(self.numbers)), bits))

    def _resolved(self, peer: tiers.Peer) -> Bits:
        match peer:
            case tiers.BlockPeer():
                return self._block(peer) & ~self.in_cluster if peer.outside else self._block(peer)
            case tiers.PodsPeer():
                return self._selected(peer)
            case tiers.NodesPeer():
                return self._nodes.get(peer.place, 0)
            case tiers.NamesPeer():
                return 0  # an address has a name by what is learned, not by what it is

    def _block(self, peer: tiers.BlockPeer) -> Bits:
        """Inside the cidr and outside the excepts of this very peer (rules A22, A23)."""
        bits = self._blocks.get(peer.cidr, 0)
        for hole in peer.excepts:
            bits &= ~self._blocks.get(hole, 0)
        return bits

    def _selected(self, peer: tiers.PodsPeer) -> Bits:
        """Pods only, never bare addresses (rules A20, A21)."""
        if peer.namespaces is None:
            bits = self._namespaces.get(peer.namespace, 0)
        else:
            bits = self._pods & self._namespace_labels.selected(peer.namespaces)
        return bits & self._labels.selected(peer.pods) if bits and peer.pods.requirements else bits


class _LabelIndex:
    """Which positions a label selector selects (rule A11)."""

    def __init__(self, sets: Sequence[labels.Labels]) -> None:
        self._everything = (1 << len(sets)) - 1
        self._pairs = _group((pair, index) for index, each in enumerate(sets) for pair in each.items())
        self._keys = _group((key, index) for index, each in enumerate(sets) for key in each)
        self._known: dict[labels.Requirement, Bits] = {}

    def selected(self, selector: labels.LabelSelector) -> Bits:
        bits = self._everything
        for requirement in selector.requirements:
            found = self._known.get(requirement)
            if found is None:
                found = self._known[requirement] = self._admitted(requirement)
            bits &= found
        return bits

    def _admitted(self, requirement: labels.Requirement) -> Bits:
        match requirement.operator:
            case labels.Operator.IN:
                return self._with_value(requirement)
            case labels.Operator.NOT_IN:
                return self._everything & ~self._with_value(requirement)
            case labels.Operator.EXISTS:
                return self._keys.get(requirement.key, 0)
            case labels.Operator.DOES_NOT_EXIST:
                return self._everything & ~self._keys.get(requirement.key, 0)

    def _with_value(self, requirement: labels.Requirement) -> Bits:
        bits = 0
        for value in requirement.values:
            bits |= self._pairs.get((requirement.key, value), 0)
        return bits


def select(items: Iterable[T], bits: Bits) -> Iterator[T]:
    """Yield the items whose bit is set; linear where shifting bit by bit is quadratic."""
    return itertools.compress(items, bin(bits)[:1:-1].encode().translate(_BINARY_DIGITS))


def _bits(positions: Iterable[int]) -> Bits:
    """Set the bits at ascending `positions`."""
    found = list(positions)
    if not found:
        return 0
    field = bytearray((found[-1] >> 3) + 1)
    for position in found:
        field[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(field, "little")


def _group(pairs: Iterable[tuple[K, int]]) -> Mapping[K, Bits]:
    """Gather the positions of each key; positions must ascend."""
    grouped: defaultdict[K, list[int]] = defaultdict(list)
    for key, position in pairs:
        grouped[key].append(position)
    return {key: _bits(positions) for key, positions in grouped.items()}
