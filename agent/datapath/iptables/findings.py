"""What the rules must have found about a logged packet, worked out again from the state they came from.

The kernel says what it did (`prefix.Note`); why, for whom and by which rule is recomputed as `bpf/packet.bpf.c` would
report it. That a policy in audit would deny what passed is known from here alone: no rule of iptables is there for it,
and no packet pays for it (rule A51). The kernel's word stands: where the recomputation comes to another verdict, the
packet is told with what the kernel did and without policy or rule, and counted. Pure; must not know where packets come
from.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from agent import desired as desired_
from agent.datapath import judge, lookups
from agent.datapath.iptables import prefix
from agent.model import net
from agent.model import verdict as verdict_

EGRESS = net.Direction.EGRESS


class Sight(NamedTuple):
    """A packet and where it was seen."""

    flow: judge.Flow
    """In the connection's original direction, as far as the note tells."""
    hook: judge.Hook
    in_ifindex: int
    at_veth: bool
    """Logged by the source check on the veth itself."""
    reply: judge.Flow | None = None
    """The flow it is if it goes the other way; None: it cannot."""
    is_icmp: bool = False


class Found(NamedTuple):
    """What to tell of one packet."""

    judgements: tuple[judge.Judgement, ...]
    agreed: bool
    """The recomputation comes to what the kernel did."""


def find(note: prefix.Note, sight: Sight, state: lookups.InState) -> Found:
    """Work out what `note` means for the packet under `state`."""
    match note:
        case prefix.Note.ALLOWED:
            return _allowed(_ends(sight, state))
        case prefix.Note.DENIED | prefix.Note.REPLY_DENIED:
            return _denied(sight, state)
        case prefix.Note.FORGED:
            return _forged(sight, state)
        case prefix.Note.ERROR_FORGED:
            endpoint = state.endpoint_of_address(sight.flow.client)
            return Found((_dropped(verdict_.Reason.RELATED_FORGED, EGRESS, endpoint),), agreed=True)
        case prefix.Note.UNJUDGED:
            return _unjudged(sight, state)


def unexplained(judgement: judge.Judgement, *, cut: bool) -> judge.Judgement:
    """Keep what became of the packet and whose side it is; by which policy is not known.

    A would-be denial stays one: it is told and counted as denials are. Of a packet that is `cut` off nobody knows the
    port, nor therefore what a policy in audit would say of it.
    """
    if judgement.verdict is verdict_.Verdict.AUDIT and not cut:
        return dataclasses.replace(judgement, reason=verdict_.Reason.POLICY_DENIED, rule=0, set=desired_.NOT_ISOLATED)
    if judgement.allowed:
        isolated = judgement.set != desired_.NOT_ISOLATED
        reason = verdict_.Reason.RULE_ALLOWED if isolated else verdict_.Reason.NOT_ISOLATED
        passed = dataclasses.replace(judgement, verdict=verdict_.Verdict.FORWARDED, reason=reason)
        return dataclasses.replace(passed, rule=0, set=desired_.NOT_ISOLATED)
    by_position = {verdict_.Reason.SOURCE_SPOOFED, verdict_.Reason.RELATED_FORGED, verdict_.Reason.UNJUDGED}
    reason = judgement.reason if judgement.reason in by_position else verdict_.Reason.POLICY_DENIED
    return dataclasses.replace(judgement, reason=reason, rule=0, set=desired_.NOT_ISOLATED)


def _ends(sight: Sight, state: lookups.InState) -> tuple[judge.Judgement, ...]:
    """Judge the sides that have a say at this hook, egress first."""
    return judge.Judge(state).ends(sight.flow, sight.hook)


def _allowed(ends: tuple[judge.Judgement, ...]) -> Found:
    """Tell once for each side that is an endpoint's."""
    told = tuple(end if end.allowed else _turned_over(end) for end in ends if end.endpoint)
    return Found(told, agreed=all(end.allowed for end in ends))


def _turned_over(end: judge.Judgement) -> judge.Judgement:
    forwarded = dataclasses.replace(end, verdict=verdict_.Verdict.FORWARDED)
    return dataclasses.replace(unexplained(forwarded, cut=False), reason=verdict_.Reason.RULE_ALLOWED)


def _denied(sight: Sight, state: lookups.InState) -> Found:
    """Tell of the first side that denies."""
    egress = judge.Judge(state).end(sight.flow, EGRESS)
    if not egress.allowed:
        return Found((egress,), agreed=True)
    ends = _ends(sight, state)
    if not ends[-1].allowed:
        return Found((ends[-1],), agreed=True)
    side = _side(ends)
    return Found((_dropped(verdict_.Reason.POLICY_DENIED, side.direction, side.endpoint),), agreed=False)


def _side(ends: tuple[judge.Judgement, ...]) -> judge.Judgement:
    """Return the side a drop most likely was about: one that can deny, else an endpoint's, else the first."""
    isolated = (end for end in ends if not end.allowed or (end.set and end.verdict is not verdict_.Verdict.AUDIT))
    return next(isolated, None) or next((end for end in ends if end.endpoint), ends[0])


def _forged(sight: Sight, state: lookups.InState) -> Found:
    """Blame as `source_forged_by` of source.h does: whose veth it came by, else whose address was claimed."""
    sender = state.endpoint_of_interface(sight.in_ifindex)
    owner = state.endpoint_of_address(sight.flow.client)
    claimed = state.state.endpoints.get(owner)
    if sight.at_veth:  # that check looks at more than the source, and may know a pod before the state does
        agreed = True
    elif sender:
        agreed = sight.is_icmp or owner != sender  # a genuine source may play the router
    else:
        agreed = claimed is not None and claimed.ingress_ifindex not in {0, sight.in_ifindex}
    return Found((_dropped(verdict_.Reason.SOURCE_SPOOFED, EGRESS, sender or owner),), agreed=agreed)


def _unjudged(sight: Sight, state: lookups.InState) -> Found:
    """Say that policy denies it only where that is certain: as the packet goes, and as a reply, if it may be one."""
    ends = _ends(sight, state)
    denied = next((end for end in ends if not end.allowed), None)
    if denied is not None and (sight.reply is None or _reply_is_denied(sight, sight.reply, state)):
        return Found((denied,), agreed=True)
    side = _side(ends)
    return Found((_dropped(verdict_.Reason.UNJUDGED, side.direction, side.endpoint),), agreed=True)


def _reply_is_denied(sight: Sight, reply: judge.Flow, state: lookups.InState) -> bool:
    """Judge as a reply; to the node itself all replies pass, and an ICMP error is about something else."""
    if sight.hook is judge.Hook.LOCAL_IN or sight.is_icmp:
        return False
    return not judge.Judge(state).packet(reply, judge.Hook.FORWARD).allowed


def _dropped(reason: verdict_.Reason, direction: net.Direction, endpoint: int) -> judge.Judgement:
    return judge.Judgement(verdict=verdict_.Verdict.DROPPED, reason=reason, direction=direction, endpoint=endpoint)
