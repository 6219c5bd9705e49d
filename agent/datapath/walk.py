"""Every look-up of a judgement, kept in order, so that two judgements of one flow can be laid side by side.

The problem: a verdict does not say which entry it came from, and an entry that somebody changed shows only there. The
rule: `judge.Judge` decides here as everywhere; what it looks into is `Recording`, which asks a `Place` and keeps what
was asked and which entry answered. A place is one content of the maps: of a state (`of_state`), of tables, or the
kernel's own. Pure; whoever reads the kernel has a place of its own.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

from agent import desired as desired_
from agent.datapath import lookups, plan
from agent.fqdn import classes
from agent.model import identity, net

PORT_BITS = 16
PREFIXED = frozenset({plan.Table.IPCACHE_CIDR, plan.Table.HELD})
"""Tables that are asked for an address and answer by prefix."""
UNSLOTTED = frozenset({plan.Table.POLICY, plan.Table.SERVICE_CLASS})
SETS = ("_set", "_audit")
"""How those fields of an endpoint's slot end that hold the number of a policy set."""

NO_NAMES = classes.Classes()

Key: TypeAlias = Any
"""A key of `plan.Tables`; what is asked of `policy` has all 16 bits of the port."""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The entry that answered, and what it says in the generation that counts."""

    entry: Key
    """As `plan.Tables` has it; a prefix, where the table finds the longest."""
    value: Any
    """A number, a `plan.EndpointSlot`, a `desired.Row` or a `plan.ClassValue`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """One look-up; `found` None: no entry answered."""

    table: plan.Table
    key: Key
    found: Found | None


class Place(Protocol):
    """Where one content of the maps can be looked into."""

    def look(self, table: plan.Table, key: Key) -> Found | None:
        """Return the entry that answers for `key`: the longest prefix, where the map finds that. Raises OSError."""

    def learned(self, endpoint: int, address: net.Address) -> Sequence[int]:
        """Return the classes of the names for which DNS gave an endpoint this address, lowest first. Raises OSError."""

    def classes_of(self, name: str) -> Sequence[int]:
        """Return the classes of a name that is asked for. Raises OSError."""

    def reads(self, ifindex: int) -> bool:
        """Tell whether what comes from the pod by a veth is read and put to filters. Raises OSError, DatapathError."""


class Recording(lookups.Lookups):
    """Looks into a place as the programs do (`bpf/include/lookup.h`), and remembers each look in order."""

    def __init__(self, place: Place, *, learned_in: Place | None = None) -> None:
        """Begin with no look made. `learned_in`: where it is known what DNS has said, which no state says."""
        self._place = place
        self._learned_in = learned_in or place
        self.looks: list[Look] = []

    def endpoint(self, number: int) -> lookups.Subject | None:
        """Look into `endpoints`."""
        subject: lookups.Subject | None = self._value(plan.Table.ENDPOINTS, number) if number else None
        return subject

    def endpoint_of_address(self, address: net.Address) -> int:
        """Look into `ep_by_ip`."""
        return self._value(plan.Table.EP_BY_IP, address) or 0

    def endpoint_of_netns(self, cookie: int) -> int:
        """Look into `ep_by_netns`."""
        return self._value(plan.Table.EP_BY_NETNS, cookie) or 0

    def endpoint_of_interface(self, ifindex: int) -> int:
        """Look into `ep_by_ifindex`."""
        return self._value(plan.Table.EP_BY_IFINDEX, ifindex) or 0

    def is_held(self, address: net.Address) -> bool:
        """Look into `held`."""
        return bool(self._value(plan.Table.HELD, address))

    def identity_of(self, address: net.Address) -> int:
        """Look into `ipcache_host`, then `ipcache_cidr`."""
        host = self._value(plan.Table.IPCACHE_HOST, address)
        return host or self._value(plan.Table.IPCACHE_CIDR, address) or identity.WORLD

    def row(self, number: int, who: int, direction: net.Direction, protocol: int, port: int) -> desired_.Row | None:
        """Look into `policy`."""
        key = plan.PolicyKey(number, who, direction, protocol, port, PORT_BITS)
        row: desired_.Row | None = self._value(plan.Table.POLICY, key)
        return row

    def service_at(self, frontend: desired_.Frontend) -> int:
        """Look into `frontend`."""
        return self._value(plan.Table.FRONTEND, frontend) or 0

    def service_class(self, number: int, service: int) -> plan.ClassValue | None:
        """Look into `service_class`."""
        value: plan.ClassValue | None = self._value(plan.Table.SERVICE_CLASS, (number, service))
        return value

    def learned(self, endpoint: int, address: net.Address) -> Sequence[int]:
        """Ask for what DNS has said."""
        return self._learned_in.learned(endpoint, address)

    def admits(self, asks: int, name_class: int) -> bool:
        """Look into `policy`."""
        return self._value(plan.Table.POLICY, plan.filter_key(asks, name_class)) is not None

    def _value(self, table: plan.Table, key: Key) -> Any:
        found = self._place.look(table, key)
        self.looks.append(Look(table, key, found))
        return found.value if found is not None else None


class InTables(Place):
    """Looks into tables, longest prefix first."""

    def __init__(
        self,
        tables: plan.Tables,
        learned: lookups.Learned = lookups.NOTHING_LEARNED,
        names: classes.Classes = NO_NAMES,
        unread: frozenset[int] = frozenset(),
    ) -> None:
        """Look into `tables` at their generation; at the veths `unread` nobody reads what is asked for."""
        self._tables = tables
        self._learned = learned
        self._names = names
        self._unread = unread

    def look(self, table: plan.Table, key: Key) -> Found | None:
        """Return the entry that answers."""
        content = self._tables.content(table)
        for entry in entries(table, key):
            if entry in content:
                return live(table, entry, content[entry], self._tables.generation)
        return None

    def learned(self, endpoint: int, address: net.Address) -> Sequence[int]:
        """Return what has been learned."""
        return self._learned.get((endpoint, address), ())

    def classes_of(self, name: str) -> Sequence[int]:
        """Return what the patterns say."""
        return self._names.of(name)

    def reads(self, ifindex: int) -> bool:
        """Return what was said."""
        return ifindex not in self._unread


def entries(table: plan.Table, key: Key) -> Iterator[Key]:
    """Yield every key of `table` that would answer for `key`, the one that goes first first."""
    if table is plan.Table.POLICY:
        if key.direction is plan.Asking.ASK:
            yield key
            return
        for bits in range(PORT_BITS, -1, -1):
            kept = PORT_BITS - bits
            yield key._replace(port=key.port >> kept << kept, port_bits=bits)
        yield key._replace(protocol=desired_.ANY_PROTOCOL, port=0, port_bits=0)
    elif table in PREFIXED:
        for length in range(key.max_prefixlen, -1, -1):
            yield ipaddress.ip_network((key, length), strict=False)
    else:
        yield key


def live(table: plan.Table, entry: Key, value: Any, generation: int) -> Found | None:
    """Return what an entry says in `generation`; None: nothing, for the other slot alone is filled."""
    if table in UNSLOTTED:
        return Found(entry, value)
    pair = value.slots if table is plan.Table.ENDPOINTS else value
    said = pair[generation & 1]
    return Found(entry, said) if said else None


def of_state(state: desired_.DesiredState, *addresses: net.Address, unread: frozenset[int] = frozenset()) -> InTables:
    """Return the place that holds what `state` says of flows between `addresses`, and no other row of it.

    `unread` are the veths, by their numbers, at which nobody reads what is asked for.
    """
    known = frozenset(addresses)
    endpoints = {number: item for number, item in state.endpoints.items() if not known.isdisjoint(item.addresses)}
    sets = {number for item in endpoints.values() for number in sets_of(item)}
    wanted = dataclasses.replace(
        state,
        endpoints=endpoints,
        sets={number: state.sets[number] for number in sets & state.sets.keys()},
        hosts={address: state.hosts[address] for address in known & state.hosts.keys()},
        cidrs=dict(_covering(state.cidrs.items(), known)),
        held_ranges=frozenset(found for found, _ in _covering(((held, 0) for held in state.held_ranges), known)),
        frontends={key: value for key, value in state.frontends.items() if key.address in known},
        classes={key: value for key, value in state.classes.items() if key[0] in sets},
        service_asks={key: value for key, value in state.service_asks.items() if key[0] in sets},
    )
    blind = frozenset(number for number, item in endpoints.items() if item.veth_ifindex in unread)
    return InTables(plan.at_rest(wanted, unread=blind), names=state.names, unread=unread)


def sets_of(endpoint: desired_.Endpoint) -> frozenset[int]:
    """Return every policy set that an endpoint refers to, those in audit too, and NOT_ISOLATED among them."""
    slot = at_rest(endpoint)
    return frozenset(getattr(slot, field.name) for field in dataclasses.fields(slot) if field.name.endswith(SETS))


def at_rest(endpoint: desired_.Endpoint) -> plan.EndpointSlot:
    """Return what the map says of an endpoint."""
    slot = plan.at_rest(desired_.DesiredState(endpoints={endpoint.id: endpoint})).endpoints[endpoint.id].slots[0]
    assert slot is not None  # noqa: S101 - at rest both slots are filled
    return slot


def _covering(table: Any, addresses: frozenset[net.Address]) -> Iterator[tuple[net.Network, Any]]:
    for network, value in table:
        if any(address.version == network.version and address in network for address in addresses):
            yield network, value


def differing(expected: list[Look], found: list[Look]) -> Iterator[tuple[Look, Look]]:
    """Yield each question that was asked in both judgements and answered differently, in order."""
    asked = {(look.table, look.key): look for look in found}
    for look in expected:
        other = asked.get((look.table, look.key))
        if other is not None and other.found != look.found:
            yield look, other
