"""From many addresses or interfaces to the chain of each, in few rules on any packet's way.

The problem: netfilter has no look-up that ends in a chain, and a rule a pod is a linear list. The rule: a tree of
chains by prefix, at most sixteen rules in each, cut at hexadecimal digits (or letters of a name), so that a pod that
comes or goes changes one leaf. Chains are entered with `-g`: from a chain somebody has flushed, a packet falls off.
"""

from __future__ import annotations

import dataclasses
import hashlib
import ipaddress
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from agent.datapath.iptables import ruleset
from agent.model import net

FANOUT = 16
"""Most rules of one chain of a tree, but for its end, as far as the depth allows."""
DEPTH = 7
"""Most chains one below the other; nf_tables follows sixteen, and policy needs some too (NFT_JUMP_STACK_SIZE)."""
_DIGIT = 4
"""Bits of a hexadecimal digit."""

Key: TypeAlias = str
"""What a tree is cut by: an address in hexadecimal digits, all of them, or an interface's name."""


class Match(Protocol):
    """Writes the words that match a key or all keys with a prefix."""

    def whole(self, key: Key) -> tuple[str, ...]:
        """Match just `key`."""

    def prefix(self, prefix: Key) -> tuple[str, ...]:
        """Match every key that begins with `prefix`."""


@dataclasses.dataclass(frozen=True, slots=True)
class ByAddress:
    """Matches addresses of one family; `option` is `-s` or `-d`."""

    option: str
    family: net.Family

    def whole(self, key: Key) -> tuple[str, ...]:
        """Match one address."""
        return self.option, f"{self._address(key)}/{len(key) * _DIGIT}"

    def prefix(self, prefix: Key) -> tuple[str, ...]:
        """Match a network."""
        digits = (ipaddress.IPV4LENGTH if self.family is net.Family.IPV4 else ipaddress.IPV6LENGTH) // _DIGIT
        return self.option, f"{self._address(prefix.ljust(digits, '0'))}/{len(prefix) * _DIGIT}"

    def _address(self, key: Key) -> net.Address:
        value = int(key, 16)
        return ipaddress.IPv4Address(value) if self.family is net.Family.IPV4 else ipaddress.IPv6Address(value)


class ByInterface:
    """Matches the interface a packet came in by."""

    def whole(self, key: Key) -> tuple[str, ...]:
        """Match one interface."""
        return "-i", key

    def prefix(self, prefix: Key) -> tuple[str, ...]:
        """Match interfaces whose names begin alike."""
        return "-i", prefix + "+"


class ByPort:
    """Matches the bridge port a frame came in by; only where br_netfilter shows frames to netfilter."""

    def whole(self, key: Key) -> tuple[str, ...]:
        """Match one port."""
        return "-m", "physdev", "--physdev-in", key

    def prefix(self, prefix: Key) -> tuple[str, ...]:
        """Match ports whose names begin alike."""
        return "-m", "physdev", "--physdev-in", prefix + "+"


def address_key(address: net.Address) -> Key:
    """Return the key of an address."""
    width = ipaddress.IPV4LENGTH if address.version == net.Family.IPV4.value else ipaddress.IPV6LENGTH
    return f"{int(address):0{width // _DIGIT}x}"


def tree(
    root: str, match: Match, leaves: Mapping[Key, Sequence[str]], end: Iterable[ruleset.Rule]
) -> dict[str, tuple[ruleset.Rule, ...]]:
    """Build the chains: `root`, where every packet begins, and those below it, named after it and their prefix.

    `leaves` gives the rest of the rule for each key; what no key matches meets the rules `end`.
    """
    grower = _Grower(root, match, leaves, tuple(end))
    grower.grow(root, sorted(leaves), 1)
    return dict(sorted(grower.chains.items()))


class _Grower:
    """Builds the chains of one tree."""

    def __init__(
        self, root: str, match: Match, leaves: Mapping[Key, Sequence[str]], end: tuple[ruleset.Rule, ...]
    ) -> None:
        self._root = root
        self._match = match
        self._leaves = leaves
        self._end = end
        self.chains: dict[str, tuple[ruleset.Rule, ...]] = {}

    def grow(self, chain: str, keys: Sequence[Key], depth: int) -> None:
        if len(keys) <= FANOUT or depth == DEPTH:
            rules = [self._leaf(key) for key in keys]
        else:
            rules = [self._branch(prefix, found, depth) for prefix, found in _cut(keys)]
        self.chains[chain] = (*rules, *self._end)

    def _branch(self, prefix: Key, keys: Sequence[Key], depth: int) -> ruleset.Rule:
        if len(keys) == 1:
            return self._leaf(keys[0])
        chain = f"{self._root}-{hashlib.blake2b(prefix.encode(), digest_size=4).hexdigest()}"
        self.grow(chain, keys, depth + 1)
        return ruleset.Rule((*self._match.prefix(prefix), "-g", chain))

    def _leaf(self, key: Key) -> ruleset.Rule:
        return ruleset.Rule((*self._match.whole(key), *self._leaves[key]))


def _cut(keys: Sequence[Key]) -> list[tuple[Key, list[Key]]]:
    """Part sorted keys by the first place where they differ; a key that ends there comes alone and first."""
    first, last = keys[0], keys[-1]
    same = next((place for place, letter in enumerate(first) if not last.startswith(letter, place)), len(first))
    parts: defaultdict[Key, list[Key]] = defaultdict(list)
    for key in keys:
        parts[key[: same + 1]].append(key)
    return sorted(parts.items())
