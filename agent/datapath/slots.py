"""Two generations in one map value: filling the slot that does not count.

The rule: the slot that counts is left as it is, key by key, so that writing the result entry by entry
changes no verdict. For prefixes that takes care: a longer prefix that only the other generation has must
answer, in this one, what the next shorter prefix of this one answers. These functions must not delete:
a key that the new generation lacks goes only after the flip.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Generic, TypeAlias, TypeVar

from agent.model import net

Slots: TypeAlias = tuple[int, int]
"""One number a generation, [generation & 1]; 0: no entry in that generation."""

K = TypeVar("K")
V = TypeVar("V")


def merge(have: Mapping[K, tuple[V, V]], want: Mapping[K, tuple[V, V]], *, idle: int, empty: V) -> dict[K, tuple[V, V]]:
    """Return every key of both with slot `idle` as wanted and the other slot as it is."""
    live = 1 - idle
    vacant = (empty, empty)
    merged: dict[K, tuple[V, V]] = {}
    for key, pair in have.items():
        merged[key] = _pair(pair[live], want.get(key, vacant)[idle], idle)
    for key, pair in want.items():
        if key not in have:
            merged[key] = _pair(empty, pair[idle], idle)
    return merged


def merge_prefixes(
    have: Mapping[net.Network, Slots], want: Mapping[net.Network, Slots], *, idle: int, empty: int
) -> dict[net.Network, Slots]:
    """Do as `merge` does, a prefix that one side lacks taking there the value of that side's next shorter one."""
    live = 1 - idle
    in_want, in_have = Covering(want), Covering(have)
    merged: dict[net.Network, Slots] = {}
    for network in have.keys() | want.keys():
        old = have.get(network) or in_have.value(network)
        new = want.get(network) or in_want.value(network)
        merged[network] = _pair(old[live] if old else empty, new[idle] if new else empty, idle)
    return merged


class Covering(Generic[V]):
    """Finds the longest prefix of a table that contains a network or an address."""

    def __init__(self, table: Mapping[net.Network, V]) -> None:
        """Index `table`, which must not change afterwards."""
        self._values = {_key(network): value for network, value in table.items()}
        self._lengths = {4: _lengths(table, 4), 6: _lengths(table, 6)}

    def value(self, network: net.Network) -> V | None:
        """Return the value of the longest prefix that contains `network` (or is it), if there is one."""
        return self._longest(network.network_address, network.prefixlen)

    def of_address(self, address: net.Address) -> V | None:
        """Return the value of the longest prefix that contains `address`, if there is one."""
        return self._longest(address, address.max_prefixlen)

    def _longest(self, address: net.Address, most: int) -> V | None:
        version, value, width = address.version, int(address), address.max_prefixlen
        for length in self._lengths[version]:
            if length <= most:
                found = self._values.get((version, value >> (width - length), length))
                if found is not None:
                    return found
        return None


def _pair(live: V, idle_value: V, idle: int) -> tuple[V, V]:
    return (live, idle_value) if idle else (idle_value, live)


def _key(network: net.Network) -> tuple[int, int, int]:
    upper = int(network.network_address) >> (network.max_prefixlen - network.prefixlen)
    return network.version, upper, network.prefixlen


def _lengths(table: Iterable[net.Network], version: int) -> list[int]:
    return sorted({network.prefixlen for network in table if network.version == version}, reverse=True)
