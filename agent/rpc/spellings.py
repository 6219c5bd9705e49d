"""What agent.proto calls or builds otherwise than the dataclass that a message carries.

The rule: a field is called the same on both sides, and `mirror` needs no word about it. What differs stands here, one
entry a dataclass; `mirror` refuses to work where a field of either side is neither called the same nor named here.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping
from typing import Any

from agent.model import net, resources, verdict
from agent.rpc import details, traces


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A dataclass without a message of its own: its fields are fields of the message it would be in."""

    names: Mapping[str, str]
    """Each of its fields -> the message's."""
    beside: tuple[str, ...] = ()
    """Fields that it has in common with the dataclass it is in; the message has them once."""
    marker: str = ""
    """The message's field that is set where there is one at all; "": there always is."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """How one dataclass departs from its message."""

    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Field -> the message's, where they are called otherwise."""
    spread: Mapping[str, Spread] = dataclasses.field(default_factory=dict)
    placed: Mapping[str, Mapping[str, object]] = dataclasses.field(default_factory=dict)
    """Field -> what its value has that no message says, because the place says it."""
    follows: Mapping[str, Callable[[Any], object]] = dataclasses.field(default_factory=dict)
    """Field of the message alone -> what it says of the value; it is not read."""


def _protocol_name(event: verdict.VerdictEvent) -> str:
    return PROTOCOLS.get(event.protocol, "")


PROTOCOLS: Mapping[int, str] = {member.value: member.name for member in net.Protocol}
RULE = Spread(names={"policy": "policy", "index": "rule_index"}, beside=("direction",), marker="policy")
PLAIN = Spelling()
SPELLINGS: Mapping[type, Spelling] = {
    resources.Problem: Spelling(names={"ref": "object"}),
    details.Policy: Spelling(names={"ref": "object"}),
    verdict.VerdictEvent: Spelling(
        names={"time_ns": "time_unix_ns", "isolating": "isolating_policies"},
        spread={
            "rule": RULE,
            "process": Spread(names={"pid": "process_id", "command": "process_command"}, marker="process_id"),
        },
        follows={"protocol_name": _protocol_name},
    ),
    traces.Side: Spelling(names={"isolating": "isolating_policies"}, spread={"rule": RULE}),
    traces.FlowTrace: Spelling(
        placed={"egress": {"direction": net.Direction.EGRESS}, "ingress": {"direction": net.Direction.INGRESS}}
    ),
    traces.Tables: Spelling(spread={"inventory": Spread(names={"programs": "programs", "tables": "tables"})}),
}
CAPITALS: frozenset[type[enum.Enum]] = frozenset({verdict.Verdict, verdict.Reason, verdict.Match})
"""Enums that are written as Hubble writes them; the others in lower case."""


def of(member: enum.Enum) -> str:
    """Write a member of an enum."""
    return member.name if type(member) in CAPITALS else member.name.lower()
