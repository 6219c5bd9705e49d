"""From what the maps hold to what they shall hold, in steps that may each be the last.

The problem: a state spans ten maps and no kernel call writes two of them at once, yet no packet may meet
half of a change. The rule (`bpf/include/types.h`): every value that changes with the inputs has two
slots and one word says which slot counts. So: write rows nobody refers to yet ("rows"), write the slot
that does not count ("stage"), turn the word ("flip"), wait for programs that read the old one, and make
both slots equal ("mend"). A crash after any step, or inside one, leaves the old or the new state in
force, and planning again from the maps as they are leads to the same end.

Rows need no slots because a policy set's number is a digest of what it says and an identity's of what it
is: the rows of one pair never change, they are only there or not. (Should two contents share a digest and
one of them go, the other's number can change hands; its rows are then right only after "mend".)

Pure: this module must not know file descriptors, byte order, or the split of maps by IP family.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Hashable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from agent import desired as desired_
from agent import errors
from agent.datapath import slots
from agent.model import endpoint, identity, net

MEND = "mend"
"""The step that comes last: nobody needs what it removes."""
GENERATIONS = 1 << 32
"""The generation is a u32 and wraps; its lowest bit, the slot, wraps with it."""

Slots: TypeAlias = slots.Slots
Content: TypeAlias = Mapping[Any, Any]


class Table(enum.Enum):
    """The maps; the value is the pinned name, followed by 4 or 6 where a map holds one family."""

    POLICY = "policy"
    SERVICE_CLASS = "service_class"
    ENDPOINTS = "endpoints"
    EP_BY_NETNS = "ep_by_netns"
    EP_BY_IFINDEX = "ep_by_ifindex"
    EP_BY_IP = "ep_by_ip"
    IPCACHE_HOST = "ipcache_host"
    IPCACHE_CIDR = "ipcache_cidr"
    HELD = "held"
    FRONTEND = "frontend"


CAPACITY: Mapping[Table, int] = MappingProxyType(
    {
        Table.POLICY: 1 << 20,
        Table.SERVICE_CLASS: 1 << 20,
        Table.ENDPOINTS: 1 << 12,
        Table.EP_BY_NETNS: 1 << 12,
        Table.EP_BY_IFINDEX: 1 << 12,
        Table.EP_BY_IP: 1 << 13,
        Table.IPCACHE_HOST: 1 << 19,
        Table.IPCACHE_CIDR: 1 << 17,
        Table.HELD: 1 << 10,
        Table.FRONTEND: 1 << 17,
    }
)
"""Most entries of each map, and of each of the two maps where a table is split by family.

A change needs room for the old and the new entries at once.
"""


class Asking(enum.Enum):
    """What stands in the direction's place in the rows of a filter; the value is what the map carries."""

    ASK = 3


class PolicyKey(NamedTuple):
    """A row of one policy set; the rest reads as `desired.RowKey`. A tuple, for there are many.

    Also a row of a filter: `set` is then its number, `identity` a name class that may be asked for, the rest 0.
    """

    set: int
    identity: int
    direction: net.Direction | Asking
    protocol: int
    port: int
    port_bits: int


@dataclasses.dataclass(frozen=True, slots=True)
class ClassValue:
    """What a policy set allows of a service, and by which rule (`DesiredState.classes`; 0: none)."""

    service_class: desired_.ServiceClass
    rule: int
    asks: int = desired_.ASKS_ANYTHING
    """The filter of what is sent to the service (`DesiredState.service_asks`)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSlot:
    """An endpoint as one generation sees it."""

    ingress_set: int
    egress_set: int
    held: bool
    ingress_audit: int = desired_.NOT_ISOLATED
    egress_audit: int = desired_.NOT_ISOLATED
    egress_names: bool = False
    """Whether the egress set has rows of name classes: only then does anybody look for names."""
    egress_audit_names: bool = False
    egress_asks: bool = False
    """Whether the egress set has filters, and what is asked here is read: without that, rows that have one deny."""
    egress_audit_asks: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EndpointValue:
    """An endpoint; a slot that is None: no such endpoint in that generation."""

    slots: tuple[EndpointSlot | None, EndpointSlot | None]
    ingress_ifindex: int
    """Has no slots: a fact of the node's wiring, the same for both generations."""


def _empty() -> MappingProxyType[Any, Any]:
    return MappingProxyType({})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Everything the maps of a node hold; at rest both slots of every value are equal."""

    generation: int = 0
    drop_silently: bool = False
    policy: Mapping[PolicyKey, desired_.Row] = dataclasses.field(default_factory=_empty)
    service_class: Mapping[tuple[int, int], ClassValue] = dataclasses.field(default_factory=_empty)
    """(egress policy set, service) -> class."""
    endpoints: Mapping[int, EndpointValue] = dataclasses.field(default_factory=_empty)
    ep_by_netns: Mapping[int, Slots] = dataclasses.field(default_factory=_empty)
    """Network namespace cookie -> endpoint number."""
    ep_by_ifindex: Mapping[int, Slots] = dataclasses.field(default_factory=_empty)
    """Host veth -> endpoint number."""
    ep_by_ip: Mapping[net.Address, Slots] = dataclasses.field(default_factory=_empty)
    ipcache_host: Mapping[net.Address, Slots] = dataclasses.field(default_factory=_empty)
    ipcache_cidr: Mapping[net.Network, Slots] = dataclasses.field(default_factory=_empty)
    """Prefix -> identity; one that a generation lacks carries there what the next shorter one has."""
    held: Mapping[net.Network, Slots] = dataclasses.field(default_factory=_empty)
    """Prefix -> 1."""
    frontend: Mapping[desired_.Frontend, Slots] = dataclasses.field(default_factory=_empty)

    def content(self, table: Table) -> Content:
        """Return one table's entries; typed access goes by the attribute of its name."""
        content: Content = getattr(self, table.value)
        return content


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Writes that may be made in any order; upserts first, then deletes, then the words of `config`."""

    name: str
    upserts: Mapping[Table, Content] = dataclasses.field(default_factory=_empty)
    deletes: Mapping[Table, frozenset[Any]] = dataclasses.field(default_factory=_empty)
    flip_to: int | None = None
    """The generation to store, if this step turns it."""
    drop_silently: bool | None = None
    """The deny mode to store, if this step changes it."""
    grace: bool = False
    """After this step, wait until every program that read the old generation has ended (RCU)."""

    @property
    def written(self) -> int:
        """Count the entries written and deleted."""
        return sum(map(len, self.upserts.values())) + sum(map(len, self.deletes.values()))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps from the realized tables to `result`; none where nothing differs."""

    steps: tuple[Step, ...]
    result: Tables
    generation: int
    flipped: bool
    written: int


def plan(realized: Tables, desired: desired_.DesiredState, *, unread: frozenset[int] = frozenset()) -> Plan:
    """Plan the way from `realized`, which may be a crash's leavings, to `desired`.

    Nobody reads what the endpoints `unread` ask for, so what a filter restricts is denied there.
    Raises MapFull, before anything is written, where old and new entries together exceed `CAPACITY`.
    """
    wanted = at_rest(desired, unread=unread)
    staged, flips = _staged(realized, wanted)
    generation = (realized.generation + 1) % GENERATIONS if flips else realized.generation
    final = dataclasses.replace(
        wanted, generation=generation, drop_silently=desired.deny_mode is endpoint.DenyMode.DROP
    )
    _check_room(realized, final)
    steps: list[Step] = []
    if final.drop_silently != realized.drop_silently:
        steps.append(Step(name="mode", drop_silently=final.drop_silently))
    steps.append(_upserting("rows", realized, wanted, _ROWS))
    if flips:
        steps.append(_upserting("stage", realized, staged, _GENERATIONAL))
        steps.append(Step(name="flip", flip_to=generation, grace=True))
    steps.append(_mending(staged if flips else realized, final))
    steps = [step for step in steps if step.written or step.flip_to is not None or step.drop_silently is not None]
    return Plan(
        steps=tuple(steps),
        result=final,
        generation=generation,
        flipped=flips,
        written=sum(step.written for step in steps),
    )


def at_rest(desired: desired_.DesiredState, *, unread: frozenset[int] = frozenset()) -> Tables:
    """Write `desired` as tables at rest; the generation is left at 0."""
    endpoints = sorted(desired.endpoints.values(), key=lambda item: item.id)
    by_name = frozenset(policy_set.id for policy_set in desired.sets.values() if _allows_by_name(policy_set))
    asking = asking_sets(desired)
    return Tables(
        policy={
            **{
                PolicyKey(policy_set.id, key.identity, policy_set.direction, key.protocol, key.port, key.port_bits): row
                for policy_set in desired.sets.values()
                for key, row in policy_set.rows.items()
            },
            **_filter_rows(desired.filters),
        },
        service_class=_class_values(desired),
        endpoints={
            item.id: _endpoint_value(item, by_name, asking if item.id not in unread else frozenset())
            for item in endpoints
        },
        ep_by_netns={item.netns_cookie: (item.id, item.id) for item in endpoints if item.netns_cookie},
        ep_by_ifindex={item.veth_ifindex: (item.id, item.id) for item in endpoints if item.veth_ifindex},
        ep_by_ip={address: (item.id, item.id) for item in endpoints for address in item.addresses},
        ipcache_host={address: (number, number) for address, number in desired.hosts.items()},
        ipcache_cidr={network: (number, number) for network, number in desired.cidrs.items()},
        held=dict.fromkeys(desired.held_ranges, (1, 1)),
        frontend={frontend: (number, number) for frontend, number in desired.frontends.items()},
    )


def after(tables: Tables, step: Step) -> Tables:
    """Return what the tables hold once `step` has been made; deleting what is gone is no error."""
    changes: dict[str, Any] = {}
    for table in step.upserts.keys() | step.deletes.keys():
        content = {**tables.content(table), **step.upserts.get(table, {})}
        for key in step.deletes.get(table, ()):
            content.pop(key, None)
        changes[table.value] = content
    if step.flip_to is not None:
        changes["generation"] = step.flip_to
    if step.drop_silently is not None:
        changes["drop_silently"] = step.drop_silently
    return dataclasses.replace(tables, **changes)


_ROWS = (Table.POLICY, Table.SERVICE_CLASS)
_GENERATIONAL = (
    Table.ENDPOINTS,
    Table.EP_BY_NETNS,
    Table.EP_BY_IFINDEX,
    Table.EP_BY_IP,
    Table.IPCACHE_HOST,
    Table.IPCACHE_CIDR,
    Table.HELD,
    Table.FRONTEND,
)
_PREFIXES = (Table.IPCACHE_CIDR, Table.HELD)
_BY_FAMILY = (Table.EP_BY_IP, Table.IPCACHE_HOST, Table.IPCACHE_CIDR, Table.HELD, Table.FRONTEND)


def _allows_by_name(policy_set: desired_.PolicySet) -> bool:
    egress = policy_set.direction is net.Direction.EGRESS
    return egress and any(key.identity >= identity.FIRST_NAME_CLASS for key in policy_set.rows)


def filter_key(asks: int, name_class: int) -> PolicyKey:
    """Return the key of the row that lets pods ask for names of a class where the filter is `asks`."""
    return PolicyKey(asks, name_class, Asking.ASK, desired_.ANY_PROTOCOL, 0, 0)


def asking_sets(desired: desired_.DesiredState) -> frozenset[int]:
    """Return the sets that have filters."""
    if not desired.filters:
        return frozenset()
    by_rows = {number for number, item in desired.sets.items() if any(row.asks for row in item.rows.values())}
    return frozenset(by_rows) | {number for number, _ in desired.service_asks}


def _filter_rows(filters: Mapping[int, frozenset[int]]) -> Mapping[PolicyKey, desired_.Row]:
    admitted = desired_.Row(desired_.Action.ALLOW, 0)
    return {filter_key(number, class_): admitted for number, classes in filters.items() for class_ in classes}


def _class_values(desired: desired_.DesiredState) -> Mapping[tuple[int, int], ClassValue]:
    """Write the classes of services, those that are mixed where they have a filter; equal ones are one value."""
    values = {value: ClassValue(*value) for value in set(desired.classes.values())}
    content = {key: values[value] for key, value in desired.classes.items()}
    mixed = ClassValue(desired_.ServiceClass.MIXED, 0)
    for key, asks in desired.service_asks.items():
        content[key] = dataclasses.replace(content.get(key, mixed), asks=asks)
    return content


def _endpoint_value(item: desired_.Endpoint, by_name: frozenset[int], asking: frozenset[int]) -> EndpointValue:
    slot = endpoint_slot(item, by_name, asking)
    return EndpointValue(slots=(slot, slot), ingress_ifindex=item.ingress_ifindex)


def endpoint_slot(item: desired_.Endpoint, by_name: frozenset[int], asking: frozenset[int]) -> EndpointSlot:
    """Write what the map says of an endpoint: `by_name` are the sets with names, `asking` those with filters."""
    return EndpointSlot(
        ingress_set=item.ingress_set,
        egress_set=item.egress_set,
        held=item.held,
        ingress_audit=item.ingress_audit,
        egress_audit=item.egress_audit,
        egress_names=item.egress_set in by_name,
        egress_audit_names=item.egress_audit in by_name,
        egress_asks=item.egress_set in asking,
        egress_audit_asks=item.egress_audit in asking,
    )


def _staged(realized: Tables, wanted: Tables) -> tuple[Tables, bool]:
    """Return the tables with the idle slot as wanted, and whether that slot says anything new."""
    idle = (realized.generation + 1) & 1
    changes: dict[str, Content] = {}
    flips = False
    for table in _GENERATIONAL:
        have, want = realized.content(table), wanted.content(table)
        if table is Table.ENDPOINTS:
            pairs = {key: value.slots for key, value in have.items()}
            wished = {key: value.slots for key, value in want.items()}
            merged = slots.merge(pairs, wished, idle=idle, empty=None)
            changes[table.value] = {
                key: EndpointValue(slots=pair, ingress_ifindex=want.get(key, have.get(key)).ingress_ifindex)
                for key, pair in merged.items()
            }
        else:
            combine = slots.merge_prefixes if table in _PREFIXES else slots.merge
            changes[table.value] = merged = combine(have, want, idle=idle, empty=0)
        flips = flips or any(pair[0] != pair[1] for pair in merged.values())
    return dataclasses.replace(realized, **changes), flips  # type: ignore[arg-type]  # one content an attribute


def _upserting(name: str, have: Tables, want: Tables, tables: tuple[Table, ...]) -> Step:
    """Write what `want` has beyond `have`."""
    upserts = {table: _missing(have.content(table), want.content(table)) for table in tables}
    return Step(name=name, upserts={table: content for table, content in upserts.items() if content})


def _missing(have: Content, want: Content) -> Content:
    absent = object()
    if not have:
        return want
    return {key: value for key, value in want.items() if have.get(key, absent) != value}


def _mending(have: Tables, final: Tables) -> Step:
    """Make both slots equal; delete what nothing refers to. Rows that are wanted were written before."""
    upserts = {table: _missing(have.content(table), final.content(table)) for table in _GENERATIONAL}
    deletes = {table: frozenset(have.content(table).keys() - final.content(table).keys()) for table in Table}
    return Step(
        name=MEND,
        upserts={table: content for table, content in upserts.items() if content},
        deletes={table: keys for table, keys in deletes.items() if keys},
    )


def _check_room(realized: Tables, final: Tables) -> None:
    for table in Table:
        old, new = realized.content(table), final.content(table)
        if len(old) + len(new) <= CAPACITY[table]:
            continue
        keys = old.keys() | new.keys()
        rows = len(keys)
        if rows > CAPACITY[table] and table in _BY_FAMILY:
            rows = max(sum(1 for key in keys if _version(key) == family.value) for family in net.Family)
        if rows > CAPACITY[table]:
            raise errors.MapFull(table=table.value, rows=rows, capacity=CAPACITY[table])


def _version(key: Hashable) -> int:
    address = key.address if isinstance(key, desired_.Frontend) else key
    version: int = address.version  # type: ignore[attr-defined]  # an address or a network
    return version
