"""Values and messages by the names of their fields: nothing is left out on either side, whatever is added later.

All of it goes by reflection: over the messages of agent.proto, and over the types of the dataclasses' fields.
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import itertools
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from google.protobuf import descriptor, message_factory

from agent import errors
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.datapath import tracing
from agent.model import labels, net, verdict
from agent.rpc import details, mirror, names, spellings, traces, views

PAIRS: Mapping[str, type] = {
    "Status": views.Status,
    "SetAuditResponse": views.AuditChange,
    "AuditEntry": views.AuditEntry,
    "Endpoint": details.Endpoint,
    "Identity": details.Identity,
    "Policy": details.Policy,
    "EndpointDetail": details.EndpointDetail,
    "IdentityDetail": details.IdentityDetail,
    "PolicyDetail": details.PolicyDetail,
    "AddressDetail": details.AddressDetail,
    "Service": details.Service,
    "Setting": details.Setting,
    "MetricSample": details.MetricSample,
    "Verdict": verdict.VerdictEvent,
    "Lost": verdict.Lost,
    "TraceFlowResponse": traces.Traced,
    "ListMapsResponse": traces.Tables,
    "KernelRow": tracing.Row,
    "LearnedAddress": names.LearnedAddress,
    "ListNamesResponse": names.KnownNames,
    "ExplainNameResponse": names.Explained,
}
"""Message -> its dataclass; messages in these are met with them."""
BY_HAND: Mapping[str, str] = {
    "ListEndpointsResponse": "a list of messages",
    "ListIdentitiesResponse": "likewise",
    "ListPoliciesResponse": "likewise",
    "ListServicesResponse": "likewise",
    "GetConfigResponse": "likewise",
    "GetMetricsResponse": "likewise",
    "ListAuditResponse": "a list of messages, and one text",
    "DumpMapResponse": "a batch of messages, and whether more follow",
    "ListLearnedResponse": "a batch of messages",
    "WatchVerdictsResponse": "a choice of messages: convert.item",
    "SetLogLevelResponse": "one text",
    "GetSnapshotResponse": "bytes: snapshots",
    "Refusal": "an error: refusals",
}
"""Answers without a dataclass, and why; requests have none either."""
MESSAGES: Mapping[str, descriptor.Descriptor] = pb.DESCRIPTOR.message_types_by_name
ROUNDS = 4
"""Values of each, with other members of enums."""


class Filling:
    """Fills dataclasses by the types of their fields, no two leaves alike where their type allows it."""

    def __init__(self, round_: int) -> None:
        """Take the members of enums in order, the first ones `round_` places on."""
        self.round = round_
        self.numbers = itertools.count(2 + 1000 * round_)

    def of(self, kind: type) -> Any:
        return kind(**{name: self.one(hint) for name, hint in typing.get_type_hints(kind).items()})

    def one(self, hint: Any) -> Any:  # noqa: PLR0911 - one a type
        arguments = [one for one in typing.get_args(hint) if one is not type(None)]
        number = next(self.numbers)
        if hint in (net.Address, net.Network):
            made = ipaddress.ip_address(number if number % 2 else 0xFD << 120 | number)
            return made if hint == net.Address else net.host_network(made)
        if type(None) in typing.get_args(hint):
            return self.one(arguments[0])
        if typing.get_origin(hint) is tuple:
            return tuple(self.one(arguments[0]) for _ in range(2))
        if typing.get_origin(hint) is Mapping:
            return {self.one(arguments[0]): self.one(arguments[1]) for _ in range(2)}
        if hint is labels.Labels:
            return labels.Labels({f"key-{number}": f"value-{number}"})
        if issubclass(hint, enum.Enum):
            return list(hint)[(number + self.round) % len(hint)]
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return self.of(hint)
        return {bool: True, str: f"text-{number}", int: number, float: number + 0.5}[hint]


def consistent(value: Any) -> Any:
    """Return a value in which what is said once on the wire is the same everywhere: a rule's direction, a side's."""
    match value:
        case traces.Traced():
            return dataclasses.replace(value, flows=tuple(map(consistent, value.flows)))
        case traces.FlowTrace():
            return dataclasses.replace(
                value,
                egress=consistent(dataclasses.replace(value.egress, direction=net.Direction.EGRESS)),
                ingress=consistent(dataclasses.replace(value.ingress, direction=net.Direction.INGRESS)),
                verdicts=tuple(map(consistent, value.verdicts)),
            )
        case traces.Side() | verdict.VerdictEvent() if value.rule is not None:
            return dataclasses.replace(value, rule=dataclasses.replace(value.rule, direction=value.direction))
        case _:
            return value


def filled(name: str, round_: int = 0) -> Any:
    return consistent(Filling(round_).of(PAIRS[name]))


def unset(said: Any, path: str = "") -> Iterator[str]:
    """Yield every field of a message, and of those in it, that has no value."""
    given = {field.name for field, _ in said.ListFields()}
    for field in said.DESCRIPTOR.fields:
        where = f"{path}.{field.name}"
        if field.name not in given:
            yield where
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            inner = getattr(said, field.name)
            for one in inner if field.is_repeated else (inner,):
                yield from unset(one, where)


def sent(value: object, name: str) -> Any:
    kind: Any = message_factory.GetMessageClass(MESSAGES[name])
    return kind.FromString(mirror.message(value, kind).SerializeToString())


@pytest.mark.parametrize("name", PAIRS)
def test_every_field_of_a_dataclass_is_sent_and_comes_back(name: str) -> None:
    for round_ in range(ROUNDS):
        value = filled(name, round_)
        assert mirror.value(sent(value, name), PAIRS[name]) == value


@pytest.mark.parametrize("name", PAIRS)
def test_every_field_of_a_message_has_a_value_then_and_is_read(name: str) -> None:
    said = sent(filled(name, round_=1), name)
    follows = {each for one in spellings.SPELLINGS.values() for each in one.follows}
    assert [where for where in unset(said) if where.rpartition(".")[2] not in follows] == []
    assert mirror.message(mirror.value(said, PAIRS[name]), type(said)) == said


@pytest.mark.parametrize("name", PAIRS)
def test_what_has_only_what_it_must_have_comes_back_as_it_was(name: str) -> None:
    value = bare(PAIRS[name])
    assert mirror.value(sent(value, name), PAIRS[name]) == value


def bare(kind: type) -> Any:
    """Return the least value: no optional part, nothing in a tuple, each default."""
    hints, made = typing.get_type_hints(kind), {}
    for field in dataclasses.fields(kind):
        hint = hints[field.name]
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            plain = {bool: False, str: "", int: 0, float: 0.0}
            inner = isinstance(hint, type) and dataclasses.is_dataclass(hint)
            empty = () if typing.get_origin(hint) is tuple else None
            nothing = empty if empty is not None or type(None) in typing.get_args(hint) else Filling(0).one(hint)
            made[field.name] = bare(hint) if inner else plain.get(hint, nothing)
    return consistent(kind(**made))


def test_every_message_has_a_dataclass_or_a_reason() -> None:
    reached: set[str] = set()

    def visit(described: descriptor.Descriptor) -> None:
        reached.add(described.name)
        for field in described.fields:
            if field.message_type is not None and field.message_type.name not in reached:
                visit(field.message_type)

    for name in PAIRS:
        visit(MESSAGES[name])
    left = {name for name in MESSAGES if not name.endswith("Request")} - reached
    assert left == set(BY_HAND)
    for name in left:
        inner = {field.message_type.name for field in MESSAGES[name].fields if field.message_type is not None}
        assert inner <= set(PAIRS), name


def test_every_dataclass_of_the_api_is_mirrored() -> None:
    reached: set[type] = set()

    def visit(hint: Any) -> None:
        if isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint not in reached:
            reached.add(hint)
            for inner in typing.get_type_hints(hint).values():
                visit(inner)
        for argument in typing.get_args(hint):
            visit(argument)

    for kind in PAIRS.values():
        visit(kind)
    for module in (views, details, traces):
        own = {one for one in vars(module).values() if isinstance(one, type) and one.__module__ == module.__name__}
        assert own <= reached
    assert set(spellings.SPELLINGS) <= reached, "a spelling of nothing"


def test_fields_of_one_name_hold_the_same_on_both_sides() -> None:
    """Two that are swapped on the way there and on the way back would come back as they were."""
    value = filled("TraceFlowResponse")
    said = sent(value, "TraceFlowResponse")
    flow, flow_said = value.flows[0], said.flows[0]
    assert (flow_said.source, flow_said.source_address) == (flow.source, str(flow.source_address))
    assert flow_said.egress.policy.name == flow.egress.rule.policy.name
    assert flow_said.ingress.rule_index == flow.ingress.rule.index
    event, event_said = flow.verdicts[0], flow_said.verdicts[0]
    assert (event_said.process_id, event_said.process_command) == (event.process.pid, event.process.command)
    assert (event_said.time_unix_ns, event_said.repeats) == (event.time_ns, event.repeats)


@dataclasses.dataclass(frozen=True)
class More:
    """A Lost with a field that no message has."""

    count: int
    where: str
    since: int


@dataclasses.dataclass(frozen=True)
class Less:
    """A Lost without one that its message has."""

    count: int


@pytest.mark.parametrize(("value", "field"), [(More(1, "ring", 2), "since"), (Less(1), "where")])
def test_a_field_that_one_side_lacks_is_a_mistake_and_not_left_out(value: object, field: str) -> None:
    with pytest.raises(TypeError, match=field):
        mirror.message(value, pb.Lost)
    with pytest.raises(TypeError, match=field):
        mirror.value(pb.Lost(), type(value))


@pytest.mark.parametrize(
    ("said", "kind", "field", "value"),
    [
        (pb.AddressDetail(address="10.0.0.256"), details.AddressDetail, "address", "10.0.0.256"),
        (pb.Identity(blocks=["10.0.0.1/8"]), details.Identity, "blocks", "10.0.0.1/8"),
        (pb.ListMapsResponse(tables=[pb.KernelTable(kind="heap")]), traces.Tables, "kind", "heap"),
        (pb.Verdict(verdict="ERROR", reason="MALFORMED", direction="up"), verdict.VerdictEvent, "direction", "up"),
    ],
)
def test_what_another_version_says_is_refused_and_not_guessed(said: Any, kind: type, field: str, value: str) -> None:
    with pytest.raises(errors.InvalidInput, match="different versions") as raised:
        mirror.value(said, kind)
    assert (raised.value.field, raised.value.value) == (field, value)


def test_what_an_older_agent_does_not_say_is_the_default() -> None:
    said = sent(filled("Verdict"), "Verdict")
    said.match = ""
    assert mirror.value(said, verdict.VerdictEvent).match is verdict.Match.NONE
