"""One flow's trace and the kernel's tables, as values and as messages; `convert` has the rest of the API.

`x_message` makes the message, `x` reads it; nothing is lost on the way there and back.
"""

from __future__ import annotations

import dataclasses
import ipaddress

from agent import errors
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.datapath import tracing
from agent.model import net, resources, verdict
from agent.policy import evaluator
from agent.rpc import convert


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """What the policies say at one end."""

    direction: net.Direction
    allowed: bool
    subject: resources.ObjectRef | None
    rule: verdict.RuleRef | None
    isolating: tuple[resources.ObjectRef, ...]
    because: str
    judged_here: bool
    """This node enforces this end."""
    would_deny: str = ""
    """Why policies in audit would deny what passes here; empty: none would (rule A51)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FlowTrace:
    """One flow: by the policies, by the compiled state, by the kernel."""

    source: str
    destination: str
    source_address: net.Address
    destination_address: net.Address
    protocol: int
    port: int
    dialled: str = ""
    """Address and port of a Service."""
    service: resources.ObjectRef | None = None
    egress: Side
    ingress: Side
    path: str
    """`forward`, `local_in`; empty: the packets come by at no hook of this node."""
    path_why: str
    layers: tuple[tracing.Layer, ...]
    disagreements: tuple[str, ...]
    """None where policies, compiled state and kernel say the same."""
    allowed: bool
    """By the policies at both ends, and by the kernel at this node."""
    verdicts: tuple[verdict.VerdictEvent, ...] = ()
    """The last ones of this flow that the agent has seen."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Traced:
    """The answer of one node's agent."""

    node: str
    mode: str
    generation: int
    flows: tuple[FlowTrace, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What an engine has in the kernel."""

    mode: str
    inventory: tracing.Inventory


_PLAIN = (
    *("source", "destination", "protocol", "port", "dialled", "path", "path_why", "allowed"),
)  # fmt: skip
"""Fields of FlowTrace that are the same on both sides."""


def side(found: evaluator.Side, *, judged_here: bool) -> Side:
    """Return what the evaluator says, as it is told."""
    would = found.would if found.allowed else None
    return Side(
        direction=found.direction,
        allowed=found.allowed,
        subject=found.subject,
        rule=found.rule,
        isolating=found.isolating,
        because=found.because,
        judged_here=judged_here,
        would_deny=would.because if would is not None and not would.allowed else "",
    )


def traced_message(traced: Traced) -> pb.TraceFlowResponse:
    """Return the message for `traced`."""
    return pb.TraceFlowResponse(
        node=traced.node,
        mode=traced.mode,
        generation=traced.generation,
        flows=[_flow_message(flow) for flow in traced.flows],
    )


def traced(message: pb.TraceFlowResponse) -> Traced:
    """Read a TraceFlowResponse."""
    return Traced(
        node=message.node,
        mode=message.mode,
        generation=message.generation,
        flows=tuple(_flow(flow) for flow in message.flows),
    )


def _flow_message(flow: FlowTrace) -> pb.FlowTrace:
    return pb.FlowTrace(
        **{name: getattr(flow, name) for name in _PLAIN},
        source_address=str(flow.source_address),
        destination_address=str(flow.destination_address),
        service=convert.ref_message(flow.service) if flow.service is not None else None,
        egress=_side_message(flow.egress),
        ingress=_side_message(flow.ingress),
        layers=[_layer_message(one) for one in flow.layers],
        disagreements=flow.disagreements,
        verdicts=[convert.verdict_message(one) for one in flow.verdicts],
    )


def _flow(message: pb.FlowTrace) -> FlowTrace:
    return FlowTrace(
        **{name: getattr(message, name) for name in _PLAIN},
        source_address=_address(message.source_address),
        destination_address=_address(message.destination_address),
        service=convert.ref(message.service) if message.HasField("service") else None,
        egress=_side(message.egress, net.Direction.EGRESS),
        ingress=_side(message.ingress, net.Direction.INGRESS),
        layers=tuple(_layer(one) for one in message.layers),
        disagreements=tuple(message.disagreements),
        verdicts=tuple(convert.event(one) for one in message.verdicts),
    )


def _address(text: str) -> net.Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError as error:
        raise errors.InvalidInput(field="address", value=text, remedy=convert.VERSIONS_DIFFER) from error


def _side_message(found: Side) -> pb.SideTrace:
    return pb.SideTrace(
        allowed=found.allowed,
        subject=convert.ref_message(found.subject) if found.subject is not None else None,
        policy=convert.ref_message(found.rule.policy) if found.rule is not None else None,
        rule_index=found.rule.index if found.rule is not None else 0,
        isolating_policies=[convert.ref_message(one) for one in found.isolating],
        because=found.because,
        judged_here=found.judged_here,
        would_deny=found.would_deny,
    )


def _side(message: pb.SideTrace, direction: net.Direction) -> Side:
    rule = None
    if message.HasField("policy"):
        rule = verdict.RuleRef(convert.ref(message.policy), direction, message.rule_index)
    return Side(
        direction=direction,
        allowed=message.allowed,
        subject=convert.ref(message.subject) if message.HasField("subject") else None,
        rule=rule,
        isolating=tuple(convert.ref(one) for one in message.isolating_policies),
        because=message.because,
        judged_here=message.judged_here,
        would_deny=message.would_deny,
    )


def _layer_message(layer: tracing.Layer) -> pb.LayerTrace:
    return pb.LayerTrace(
        layer=layer.layer.name.lower(),
        hook=layer.hook,
        compiled=_answer_message(layer.compiled),
        loaded=_answer_message(layer.loaded),
        differences=[pb.Difference(**dataclasses.asdict(one)) for one in layer.differences],
    )


def _layer(message: pb.LayerTrace) -> tracing.Layer:
    try:
        which = verdict.Layer[message.layer.upper()]
    except KeyError as error:
        raise errors.InvalidInput(field="layer", value=message.layer, remedy=convert.VERSIONS_DIFFER) from error
    return tracing.Layer(
        layer=which,
        hook=message.hook,
        compiled=_answer(message.compiled),
        loaded=_answer(message.loaded),
        differences=tuple(
            tracing.Difference(table=one.table, row=one.row, expected=one.expected, found=one.found)
            for one in message.differences
        ),
    )


def _answer_message(answer: tracing.Answer) -> pb.LayerAnswer:
    return pb.LayerAnswer(
        allowed=answer.allowed,
        reason=answer.reason,
        why=answer.why,
        lookups=[pb.LookUp(**dataclasses.asdict(one)) for one in answer.lookups],
    )


def _answer(message: pb.LayerAnswer) -> tracing.Answer:
    return tracing.Answer(
        allowed=message.allowed,
        reason=message.reason,
        why=message.why,
        lookups=tuple(
            tracing.Looked(table=one.table, key=one.key, entry=one.entry, value=one.value) for one in message.lookups
        ),
    )


def tables_message(found: Tables) -> pb.ListMapsResponse:
    """Return the message for `found`."""
    return pb.ListMapsResponse(
        mode=found.mode,
        programs=[pb.Program(**dataclasses.asdict(one)) for one in found.inventory.programs],
        tables=[
            pb.KernelTable(**{**dataclasses.asdict(one), "kind": one.kind.value}) for one in found.inventory.tables
        ],
    )


def tables(message: pb.ListMapsResponse) -> Tables:
    """Read a ListMapsResponse."""
    programs = tuple(
        tracing.Program(
            name=one.name, type=one.type, id=one.id, tag=one.tag, instructions=one.instructions,
            attached=one.attached, pin=one.pin,
        )
        for one in message.programs
    )  # fmt: skip
    used = tuple(
        tracing.TableUse(
            kind=tracing.Kind(one.kind), name=one.name, type=one.type, family=one.family, entries=one.entries,
            capacity=one.capacity,
        )
        for one in message.tables
    )  # fmt: skip
    return Tables(mode=message.mode, inventory=tracing.Inventory(programs=programs, tables=used))
