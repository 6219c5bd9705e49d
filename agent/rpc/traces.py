"""One flow's trace and the kernel's tables, as the API says them; `mirror` makes messages of them and reads them."""

from __future__ import annotations

import dataclasses

from agent.datapath import tracing
from agent.model import net, resources, verdict
from agent.policy import evaluator


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
class QueryTrace:
    """What the policies say of a DNS query (rule E17)."""

    name: str
    allowed: bool
    """It may be asked for; whether policy lets the flow through is another matter."""
    because: str
    would_refuse: bool = False
    """It passes, and would be refused were the policies in audit enforced (rule A51)."""


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
    query: QueryTrace | None = None
    """None where none was asked about."""


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
