"""What is said of one flow by the state that was compiled and by what the kernel holds, and where the two differ.

Values in words: an engine with maps and one with rules have nothing in common but what people read of them. The rule:
each layer answers twice, each answer with its look-ups in order, and a difference names the table and the row. What is
found to differ is what this flow's judgement came to see; a row that no look-up met is not looked for.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from agent import desired as desired_
from agent.datapath import judge as judge_
from agent.datapath import plan, walk, words
from agent.model import net, verdict

CONNECT = "connect"
"""What the socket layer's hook is called here; the packet layer's are `judge.Hook`'s values."""
QUERY = "query"
"""The hook at a pod's veth where what it asks for is put to filters of names (rule E17)."""
UNREAD = "queries_unread"
"""The reason where nobody reads what a pod asks for: what a filter restricts is denied by the other hooks then."""
NAMES_MAP = "fqdn_names"
NOTHING = "no entry"
SOCKET_PROTOCOLS = frozenset({net.Protocol.TCP.value, net.Protocol.UDP.value, net.Protocol.UDPLITE.value})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One flow, and where it is judged on this node."""

    flow: judge_.Flow
    hook: judge_.Hook | None
    """Where its packets come by; None: at no hook of ours, they pass by position or are elsewhere."""
    netns_cookie: int = 0
    """Of the endpoint that dials; 0: no process of this node's pods does."""
    dialled: desired_.Frontend | None = None
    """What the process asks for, where that is a Service and not `flow.server`."""
    asks: str = ""
    """The name that a DNS query asks for which the flow carries; empty: it need not be DNS."""
    veth_ifindex: int = 0
    """The host side of the veth that the query comes by; 0: by none of this node's pods'."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """One look-up in words: what was asked of which table, which entry answered, and what it says."""

    table: str
    key: str
    entry: str
    """Empty: none answered."""
    value: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one side says of the flow at one hook."""

    allowed: bool
    reason: str
    """Name of `verdict.Reason`, of queries of `judge.Admission`, lower case, or UNREAD; of rules followed one by one:
    `allowed`, `denied` or `unread`."""
    why: str
    """In words: the rule, the isolating policies, or what else decided."""
    lookups: tuple[Looked, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A row of the kernel's that is not as it was compiled."""

    table: str
    """The map's pinned name, the set's name, or `TABLE CHAIN`."""
    row: str
    expected: str
    found: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer's two answers."""

    layer: verdict.Layer
    hook: str
    compiled: Answer
    loaded: Answer
    differences: tuple[Difference, ...] = ()


class Kind(enum.Enum):
    """What a table of the kernel's is; the value is how people call it."""

    MAP = "map"
    SET = "set"
    CHAIN = "chain"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableUse:
    """One map, set or chain of ours."""

    kind: Kind
    name: str
    type: str
    """The map's or set's type; of a chain its table."""
    family: int = 0
    """4 or 6; 0: of both, or of neither."""
    entries: int
    capacity: int = 0
    """0: not bounded by itself."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One program of ours and where it is attached."""

    name: str
    type: str
    id: int
    tag: str
    """Digest of the instructions as the kernel has them."""
    instructions: int
    """What the verifier walked; 0: not told."""
    attached: str
    """Hook, and cgroup, interface or priority; empty: at none."""
    pin: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """All that an engine has in the kernel."""

    programs: tuple[Program, ...] = ()
    tables: tuple[TableUse, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which rows of a table are wanted: those of both, where both are given; both empty: all of them."""

    endpoint: desired_.Endpoint | None = None
    policy_set: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One row of a table, in words."""

    key: str
    value: str


class Loaded(Protocol):
    """What the kernel holds at this moment, read anew and not remembered; for one thread, any one."""

    @property
    def generation(self) -> int | None:
        """The generation in force, as `base.Applied` numbers it; None: not told."""
        return None

    def trace(self, question: Question, state: desired_.DesiredState) -> tuple[Layer, ...]:
        """Judge by it, beside `state`, at each layer the engine has. Raises DatapathError."""

    def inventory(self) -> Inventory:
        """List programs and tables. Raises DatapathError."""

    def rows(self, table: str, wanted: Wanted, state: desired_.DesiredState) -> Iterator[Row]:
        """Yield the rows of one table; `state` gives the words. Raises InvalidInput: there is none; DatapathError."""

    def close(self) -> None:
        """Let go of descriptors."""


def by_look_ups(
    place: walk.Place,
    question: Question,
    state: desired_.DesiredState,
    layers: frozenset[verdict.Layer],
    unread: frozenset[int] = frozenset(),
) -> Iterator[Layer]:
    """Judge by the look-ups of `place` and of `state`, at each of `layers` that the flow meets.

    `unread` are the veths, by their numbers, at which nobody reads what is asked for, as far as whoever wrote the
    state knew.
    """
    flow, dialled = question.flow, question.dialled
    asked_of = [dialled.address] if dialled else []
    compiled = walk.of_state(state, flow.client, flow.server, *asked_of, unread=unread)
    says = words.Words(state)
    cookie = question.netns_cookie
    if verdict.Layer.SOCKET in layers and cookie and flow.protocol in SOCKET_PROTOCOLS:
        asked = dialled or desired_.Frontend(flow.server, flow.port, flow.protocol)
        yield _compared(
            verdict.Layer.SOCKET,
            CONNECT,
            lambda judge: judge.connect(cookie, asked.address, asked.protocol, asked.port),
            (compiled, place),
            says,
        )
    if question.asks and question.veth_ifindex:
        yield _query(question, (compiled, place), says)
    hook = question.hook
    if verdict.Layer.PACKET in layers and hook is not None:
        yield _compared(
            verdict.Layer.PACKET, hook.value, lambda judge: judge.packet(flow, hook), (compiled, place), says
        )


def _compared(
    layer: verdict.Layer,
    hook: str,
    ask: Callable[[judge_.Judge], judge_.Judgement],
    places: tuple[walk.Place, walk.Place],
    says: words.Words,
) -> Layer:
    recordings = [walk.Recording(place, learned_in=places[1]) for place in places]
    judged = [ask(judge_.Judge(recording)) for recording in recordings]
    compiled, loaded = recordings
    answers = [
        Answer(
            allowed=one.allowed,
            reason=UNREAD if one.unread else one.reason.name.lower(),
            why=says.judgement(one),
            lookups=tuple(_looked(recording.looks, says)),
        )
        for one, recording in zip(judged, recordings, strict=True)
    ]
    differences = tuple(_differences(compiled, loaded, says))
    return Layer(layer=layer, hook=hook, compiled=answers[0], loaded=answers[1], differences=differences)


def _differences(compiled: walk.Recording, loaded: walk.Recording, says: words.Words) -> Iterator[Difference]:
    for look, other in walk.differing(compiled.looks, loaded.looks):
        yield Difference(
            table=says.map(look.table, look.key),
            row=says.key(look.table, look.key),
            expected=_said(look, says),
            found=_said(other, says),
        )


def _query(question: Question, places: tuple[walk.Place, walk.Place], says: words.Words) -> Layer:
    """Put the query to filters by both; where nobody reads it, nobody refuses it either."""
    flow, veth = question.flow, question.veth_ifindex
    if question.dialled is not None:
        flow = flow._replace(server=question.dialled.address, port=question.dialled.port)
    recordings = [walk.Recording(place) for place in places]
    classes = [tuple(place.classes_of(question.asks)) for place in places]
    reading = [place.reads(veth) for place in places]
    answers = []
    for recording, found, reads in zip(recordings, classes, reading, strict=True):
        asked = judge_.Judge(recording).query(flow, found, interface=veth) if reads else None
        named = Looked(table=NAMES_MAP, key=question.asks, entry="", value=says.classes(found) or NOTHING)
        looked = (named, *_looked(recording.looks, says))
        answers.append(_admission(asked, looked, says))
    differences = list(_differences(recordings[0], recordings[1], says))
    if sorted(classes[0]) != sorted(classes[1]):
        expected, found_ = (says.classes(one) or NOTHING for one in classes)
        differences.append(Difference(table=NAMES_MAP, row=question.asks, expected=expected, found=found_))
    if reading[0] and not reading[1] and says.restricts(veth):
        differences.append(
            Difference(table="interface", row=str(veth), expected="queries are read", found="nobody reads queries")
        )
    return Layer(
        layer=verdict.Layer.PACKET,
        hook=QUERY,
        compiled=answers[0],
        loaded=answers[1],
        differences=tuple(differences),
    )


def _admission(asked: judge_.Asked | None, looked: tuple[Looked, ...], says: words.Words) -> Answer:
    if asked is None:
        why = "nobody reads what the pod asks for; what is restricted to some names is denied as a whole"
        return Answer(allowed=True, reason=UNREAD, why=why)
    allowed = asked.admission is not judge_.Admission.REFUSED
    reason = asked.admission.name.lower()
    return Answer(allowed=allowed, reason=reason, why=says.asked(asked), lookups=looked)


def _looked(looks: Sequence[walk.Look], says: words.Words) -> Iterator[Looked]:
    for look in looks:
        entry = says.key(look.table, look.found.entry) if look.found else ""
        yield Looked(
            table=says.map(look.table, look.key),
            key=says.key(look.table, look.key),
            entry=entry,
            value=says.value(look.table, look.found.value) if look.found else NOTHING,
        )


def _said(look: walk.Look, says: words.Words) -> str:
    if look.found is None:
        return NOTHING
    said = says.value(look.table, look.found.value)
    return said if look.found.entry == look.key else f"{said}, by {says.key(look.table, look.found.entry)}"


def is_wanted(table: plan.Table, key: walk.Key, value: object, wanted: Wanted) -> bool:
    """Tell whether a row of `table`, as `plan.Tables` has it, concerns what is wanted."""
    return (wanted.endpoint is None or _is_of_endpoint(table, key, value, wanted.endpoint)) and (
        not wanted.policy_set or _is_of_set(table, key, value, wanted.policy_set)
    )


def _is_of_set(table: plan.Table, key: walk.Key, value: object, policy_set: int) -> bool:
    match table:
        case plan.Table.POLICY:
            return bool(key.set == policy_set and key.direction is not plan.Asking.ASK)
        case plan.Table.SERVICE_CLASS:
            return bool(key[0] == policy_set)
        case plan.Table.ENDPOINTS:
            return policy_set in _numbers(value)
        case _:
            return False


def _is_of_endpoint(table: plan.Table, key: walk.Key, value: object, endpoint: desired_.Endpoint) -> bool:
    match table:
        case plan.Table.POLICY | plan.Table.SERVICE_CLASS:
            filters = table is plan.Table.POLICY and key.direction is plan.Asking.ASK
            return not filters and key[0] in walk.sets_of(endpoint)
        case plan.Table.ENDPOINTS:
            return bool(key == endpoint.id)
        case plan.Table.EP_BY_NETNS | plan.Table.EP_BY_IFINDEX | plan.Table.EP_BY_IP:
            return isinstance(value, tuple) and endpoint.id in value
        case plan.Table.IPCACHE_HOST:
            return key in endpoint.addresses
        case plan.Table.IPCACHE_CIDR | plan.Table.HELD:
            return any(address.version == key.version and address in key for address in endpoint.addresses)
        case _:
            return False


def _numbers(value: object) -> frozenset[object]:
    slots = value.slots if isinstance(value, plan.EndpointValue) else ()
    return frozenset(
        getattr(slot, field.name) for slot in slots if slot is not None for field in dataclasses.fields(slot)
    )
