"""What DNS told the endpoints of a node, by classes of names, as the kernel's sets are to have it.

For each endpoint the addresses it learned, and by which classes until when. An expiry never comes nearer (requirement
F19). Of one endpoint there are ADDRESSES_MAX addresses; the one that was learned longest ago goes, whichever pod asks
for how many, and nobody else's (requirement F21). What has expired stays until then: a connection goes on by it (F17).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from agent.fqdn import history
from agent.model import fqdn, net

CLASSES_MAX = 64
"""Of one address; a name has two at most, and addresses that so many rules tell apart are shared by many names."""


class Entry(NamedTuple):
    """That an endpoint may reach an address by a class of names."""

    endpoint: int
    class_number: int
    address: net.Address
    expires_ns: int = 0
    """CLOCK_BOOTTIME."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What is new, and what is not known any more."""

    added: tuple[Entry, ...] = ()
    removed: tuple[Entry, ...] = ()


class Book:
    """Learns; for one thread at a time."""

    def __init__(self) -> None:
        """Know nothing."""
        self._endpoints: dict[int, dict[net.Address, dict[int, int]]] = {}
        """Endpoint -> address, learned longest ago first -> class -> expiry."""
        self.evicted = 0
        """Addresses that were forgotten before they expired, for ADDRESSES_MAX."""
        self.class_evicted = 0
        """Classes of an address, for CLASSES_MAX."""

    def learn(self, entries: Iterable[Entry], now_ns: int) -> Change:
        """Learn these; what was known to last longer is no change."""
        added: list[Entry] = []
        removed: list[Entry] = []
        for entry in entries:
            addresses = self._endpoints.setdefault(entry.endpoint, {})
            known = addresses.pop(entry.address, {})
            addresses[entry.address] = known
            if known.get(entry.class_number, -1) < entry.expires_ns:
                known[entry.class_number] = entry.expires_ns
                added.append(entry)
            if len(known) > CLASSES_MAX:
                least = min(known, key=lambda one: (known[one], one))
                self.class_evicted += known[least] > now_ns
                removed.append(Entry(entry.endpoint, least, entry.address, known.pop(least)))
            if len(addresses) > history.ADDRESSES_MAX:
                oldest = next(iter(addresses))
                gone = addresses.pop(oldest)
                self.evicted += any(expires_ns > now_ns for expires_ns in gone.values())
                removed += [Entry(entry.endpoint, one, oldest, expires_ns) for one, expires_ns in gone.items()]
        return Change(tuple(added), tuple(removed))

    def of(self, endpoint: int, class_number: int) -> Iterator[Entry]:
        """Yield what an endpoint learned by a class, longest ago first."""
        for address, classes in self._endpoints.get(endpoint, {}).items():
            if class_number in classes:
                yield Entry(endpoint, class_number, address, classes[class_number])

    def endpoints(self) -> tuple[int, ...]:
        """Return who has learned something."""
        return tuple(self._endpoints)

    def known(self, endpoint: int) -> dict[fqdn.Place, tuple[fqdn.Learned, ...]]:
        """Return all that an endpoint learned, expired or not."""
        return {
            (endpoint, address): tuple(fqdn.Learned(number, expires_ns) for number, expires_ns in classes.items())
            for address, classes in self._endpoints.get(endpoint, {}).items()
        }

    def classes(self, endpoint: int, address: net.Address) -> dict[int, int]:
        """Return by which classes an endpoint learned an address, until when."""
        return dict(self._endpoints.get(endpoint, {}).get(address, {}))

    def keep_only(self, endpoints: Collection[int]) -> None:
        """Forget endpoints that are gone."""
        for gone in self._endpoints.keys() - set(endpoints):
            del self._endpoints[gone]
