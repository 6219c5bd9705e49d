"""What a judgement has to look up, and the two places where it can be looked up.

The BPF programs look into maps (`bpf/include/lookup.h`); `InTables` does the same in `plan.Tables`. An engine without
such maps has the DesiredState, and writing that out as tables would cost a whole node's rows at every change:
`InState` looks into the state itself, and indexes what it must when first asked. Both answer alike
(`tests/datapath/test_lookups.py`). They must not judge. A miss is a named outcome of each: 0, None or WORLD.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol, TypeAlias

from agent import desired as desired_
from agent.datapath import plan, slots
from agent.model import identity, net

_PORT_BITS = range(16, -1, -1)
Learned: TypeAlias = Mapping[tuple[int, net.Address], Sequence[int]]
"""Endpoint and address -> classes of the names that it was learned for."""
NOTHING_LEARNED: Learned = MappingProxyType({})


Ask: TypeAlias = Callable[[int, net.Address], Sequence[int]]
"""Of one endpoint and address."""


def nothing_learned(_endpoint: int, _address: net.Address) -> Sequence[int]:
    """Answer for who learns nothing."""
    return ()


Reads: TypeAlias = Callable[[int], bool]
"""Whether somebody reads what is asked for by whoever is behind a veth, by the number of its host side."""


def every_veth(_ifindex: int) -> bool:
    """Answer for who reads all queries, or knows of nothing that would restrict them."""
    return True


class Subject(Protocol):
    """A local endpoint as one generation sees it."""

    @property
    def ingress_set(self) -> int:
        """0: not isolated."""

    @property
    def egress_set(self) -> int:
        """0: not isolated."""

    @property
    def held(self) -> bool:
        """Nothing passes yet (rule A45)."""

    @property
    def ingress_audit(self) -> int:
        """0: no policy that selects it is in audit (rule A51)."""

    @property
    def egress_audit(self) -> int:
        """0: likewise."""

    @property
    def egress_asks(self) -> bool:
        """What the egress set's filters restrict is read at the endpoint's veth; else it is denied (rule E17)."""

    @property
    def egress_audit_asks(self) -> bool:
        """Likewise of the set in audit."""


class Lookups(Protocol):
    """One function a map; all of one generation."""

    def endpoint(self, number: int) -> Subject | None:
        """Return the endpoint with this number; None for 0 too."""

    def endpoint_of_address(self, address: net.Address) -> int:
        """Return whose address it is; 0: no endpoint's."""

    def endpoint_of_netns(self, cookie: int) -> int:
        """Return the endpoint in this network namespace; 0: none."""

    def endpoint_of_interface(self, ifindex: int) -> int:
        """Return the endpoint at the pod side of a host veth; 0: none's."""

    def is_held(self, address: net.Address) -> bool:
        """Tell whether the address lies in a range in which unknown pods are held."""

    def identity_of(self, address: net.Address) -> int:
        """Return a pod's identity, else that of the longest prefix that some policy mentions, else WORLD."""

    def row(self, number: int, who: int, direction: net.Direction, protocol: int, port: int) -> desired_.Row | None:
        """Return the longest match in policy set `number` among the rows of identity `who`."""

    def service_at(self, frontend: desired_.Frontend) -> int:
        """Return the service that listens there; 0: none."""

    def service_class(self, number: int, service: int) -> plan.ClassValue | None:
        """Return what egress set `number` allows of a service; None: mixed."""

    def learned(self, endpoint: int, address: net.Address) -> Sequence[int]:
        """Return the classes of the names for which DNS gave an endpoint this address, those that have not expired."""

    def admits(self, asks: int, name_class: int) -> bool:
        """Tell whether names of a class may be asked for where the filter is `asks`."""


class InTables:
    """Looks into tables as the programs do; reads the generation once."""

    def __init__(self, tables: plan.Tables, learned: Learned = NOTHING_LEARNED) -> None:
        """Index the prefixes of `tables`, which must not change afterwards."""
        self.tables = tables
        self._learned = learned
        self._slot = tables.generation & 1
        self._cidrs = slots.Covering(tables.ipcache_cidr)
        self._held = slots.Covering(tables.held)

    def endpoint(self, number: int) -> Subject | None:
        """Look into `endpoints`."""
        value = self.tables.endpoints.get(number)
        return value.slots[self._slot] if value else None

    def endpoint_of_address(self, address: net.Address) -> int:
        """Look into `ep_by_ip`."""
        return self._live(self.tables.ep_by_ip.get(address))

    def endpoint_of_netns(self, cookie: int) -> int:
        """Look into `ep_by_netns`."""
        return self._live(self.tables.ep_by_netns.get(cookie))

    def endpoint_of_interface(self, ifindex: int) -> int:
        """Look into `ep_by_ifindex`."""
        return self._live(self.tables.ep_by_ifindex.get(ifindex))

    def is_held(self, address: net.Address) -> bool:
        """Look into `held`."""
        return bool(self._live(self._held.of_address(address)))

    def identity_of(self, address: net.Address) -> int:
        """Look into `ipcache_host`, then `ipcache_cidr`."""
        host = self._live(self.tables.ipcache_host.get(address))
        return host or self._live(self._cidrs.of_address(address)) or identity.WORLD

    def row(self, number: int, who: int, direction: net.Direction, protocol: int, port: int) -> desired_.Row | None:
        """Look into `policy`, longest prefix first."""
        rows = self.tables.policy
        for bits in _PORT_BITS:
            row = rows.get(plan.PolicyKey(number, who, direction, protocol, _upper(port, bits), bits))
            if row is not None:
                return row
        return rows.get(plan.PolicyKey(number, who, direction, desired_.ANY_PROTOCOL, 0, 0))

    def service_at(self, frontend: desired_.Frontend) -> int:
        """Look into `frontend`."""
        return self._live(self.tables.frontend.get(frontend))

    def service_class(self, number: int, service: int) -> plan.ClassValue | None:
        """Look into `service_class`."""
        return self.tables.service_class.get((number, service))

    def learned(self, endpoint: int, address: net.Address) -> Sequence[int]:
        """Look into what has been learned."""
        return self._learned.get((endpoint, address), ())

    def admits(self, asks: int, name_class: int) -> bool:
        """Look into `policy`."""
        return plan.filter_key(asks, name_class) in self.tables.policy

    def _live(self, pair: plan.Slots | None) -> int:
        return pair[self._slot] if pair else 0


class InState:
    """Looks into a state; for one thread, as indexes are made when they are first needed."""

    def __init__(self, state: desired_.DesiredState, learned: Ask = nothing_learned, reads: Reads = every_veth) -> None:
        """Keep `state`; nothing is indexed yet.

        What has been learned, and where queries are read, is no part of it: `learned` and `reads` are asked.
        """
        self.state = state
        self._learned = learned
        self._reads = reads
        self._shapes: dict[int, Mapping[int, tuple[int, ...]]] = {}

    def endpoint(self, number: int) -> Subject | None:
        """Return the endpoint as the map would have it."""
        item = self.state.endpoints.get(number)
        if item is None:
            return None
        asking = self._asking if self._asking and self._reads(item.veth_ifindex) else frozenset()
        return plan.endpoint_slot(item, frozenset(), asking)

    def endpoint_of_address(self, address: net.Address) -> int:
        """Return whose address it is."""
        return self._by_address.get(address, 0)

    def endpoint_of_interface(self, ifindex: int) -> int:
        """Return the endpoint at the pod side of a host veth; 0: none's."""
        return self._by_interface.get(ifindex, 0)

    def endpoint_of_netns(self, cookie: int) -> int:
        """Return the endpoint in this network namespace."""
        return self._by_netns.get(cookie, 0)

    def is_held(self, address: net.Address) -> bool:
        """Tell whether a held range has the address."""
        return self._held.of_address(address) is not None

    def identity_of(self, address: net.Address) -> int:
        """Return the identity of an address."""
        return self.state.hosts.get(address) or self._cidrs.of_address(address) or identity.WORLD

    def row(self, number: int, who: int, direction: net.Direction, protocol: int, port: int) -> desired_.Row | None:
        """Return the longest match; only lengths that the set has are tried."""
        key = self.matched(number, who, direction, protocol, port)
        return self.state.sets[number].rows[key] if key is not None else None

    def matched(
        self, number: int, who: int, direction: net.Direction, protocol: int, port: int
    ) -> desired_.RowKey | None:
        """Return the key of the row that `row` returns."""
        policy_set = self.state.sets.get(number)
        if policy_set is None or policy_set.direction is not direction:
            return None
        if number not in self._shapes:
            self._shapes[number] = _shapes(policy_set)
        rows, shapes = policy_set.rows, self._shapes[number]
        for bits in shapes.get(protocol, ()):
            key = desired_.RowKey(who, protocol, _upper(port, bits), bits)
            if key in rows:
                return key
        key = desired_.RowKey(who, desired_.ANY_PROTOCOL, 0, 0)
        return key if key in rows else None

    def service_at(self, frontend: desired_.Frontend) -> int:
        """Return the service that listens there."""
        return self.state.frontends.get(frontend, 0)

    def service_class(self, number: int, service: int) -> plan.ClassValue | None:
        """Return what the set allows of the service."""
        found, asks = self.state.classes.get((number, service)), self.state.service_asks.get((number, service), 0)
        if found is None and not asks:
            return None
        return plan.ClassValue(*(found or (desired_.ServiceClass.MIXED, 0)), asks)

    def learned(self, endpoint: int, address: net.Address) -> Sequence[int]:
        """Ask for what has been learned."""
        return self._learned(endpoint, address)

    def admits(self, asks: int, name_class: int) -> bool:
        """Tell whether the filter has the class."""
        return name_class in self.state.filters.get(asks, ())

    @functools.cached_property
    def _asking(self) -> frozenset[int]:
        return plan.asking_sets(self.state)

    @functools.cached_property
    def _by_address(self) -> Mapping[net.Address, int]:
        return {address: item.id for item in self._endpoints for address in item.addresses}

    @functools.cached_property
    def _by_interface(self) -> Mapping[int, int]:
        return {item.veth_ifindex: item.id for item in self._endpoints if item.veth_ifindex}

    @functools.cached_property
    def _by_netns(self) -> Mapping[int, int]:
        return {item.netns_cookie: item.id for item in self._endpoints if item.netns_cookie}

    @functools.cached_property
    def _cidrs(self) -> slots.Covering[identity.NumericIdentity]:
        return slots.Covering(self.state.cidrs)

    @functools.cached_property
    def _held(self) -> slots.Covering[bool]:
        return slots.Covering(dict.fromkeys(self.state.held_ranges, True))

    @property
    def _endpoints(self) -> list[desired_.Endpoint]:
        """In the order of `plan.at_rest`: it decides where two claim one address."""
        return sorted(self.state.endpoints.values(), key=lambda item: item.id)


def _upper(port: int, bits: int) -> int:
    return port >> (16 - bits) << (16 - bits)


def _shapes(policy_set: desired_.PolicySet) -> Mapping[int, tuple[int, ...]]:
    """Return the port prefix lengths of each protocol's rows, longest first."""
    lengths: dict[int, set[int]] = {}
    for protocol, bits in {(key.protocol, key.port_bits) for key in policy_set.rows}:
        lengths.setdefault(protocol, set()).add(bits)
    return {protocol: tuple(sorted(found, reverse=True)) for protocol, found in lengths.items()}
