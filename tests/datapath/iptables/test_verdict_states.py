"""Whose state a logged packet is judged by: that of its generation, what is in audit with it (rule A51)."""

from __future__ import annotations

import dataclasses

import pytest

from agent import desired
from agent.datapath import judge
from agent.datapath.iptables import findings, verdicts
from agent.datapath.iptables import logged as logged_
from agent.datapath.iptables import moments as moments_
from agent.datapath.iptables.prefix import Note
from agent.model import verdict
from tests.datapath.iptables import logged, test_verdicts
from tests.states import pictures

XA, XB, YA = test_verdicts.XA, test_verdicts.XB, test_verdicts.YA
EGRESS, INGRESS = test_verdicts.EGRESS, test_verdicts.INGRESS
Reason = verdict.Reason
TCP, NOW = test_verdicts.TCP, test_verdicts.NOW


def test_each_generation_is_judged_by_its_own_state() -> None:
    old, new = pictures.named("isolated"), pictures.named("allowed by label")
    moments = verdicts.Moments()
    moments.staged(1, old)
    moments.tell(1, 40)
    attribute = verdicts.Attribution(moments)
    packet = logged.packet(logged.flow(XA, YA, TCP, 80), Note.DENIED)
    (before,) = attribute.events(packet, NOW)
    moments.staged(2, new)
    (after,) = attribute.events(packet, NOW)
    assert (before.policy_set, before.generation) == (after.policy_set, after.generation)
    allowed = logged.packet(logged.flow(XA, YA, TCP, 80), Note.ALLOWED, generation=2)
    assert attribute.events(allowed, NOW)[0].generation == 41  # staged: comes after all that were reported
    moments.tell(2, 77)
    assert attribute.events(allowed, NOW)[0].generation == 77
    assert attribute.disagreed == 0


def test_the_check_at_the_veths_is_of_no_generation() -> None:
    state = test_verdicts.with_wires(pictures.named("isolated"))
    veth = state.endpoints[test_verdicts.number(state, XA)].veth_ifindex
    sight = logged.packet(logged.flow(XB, YA, TCP, 80), Note.FORGED, ifindex=veth, family=logged_.NFPROTO_NETDEV)
    moments = verdicts.Moments()
    attribute = verdicts.Attribution(moments)
    (event,) = attribute.events(sight, NOW)
    assert (event.endpoint, event.generation) == (0, 0)
    moments.staged(70, state)
    moments.enforced(70)
    moments.staged(71, pictures.named("empty"))
    (event,) = attribute.events(sight, NOW)
    assert (event.endpoint, event.generation) == (test_verdicts.number(state, XA), 70)
    assert event.source_identity == state.hosts[XB]
    assert attribute.disagreed == 0


@pytest.mark.parametrize("generation", [0, 500, 65535])
def test_of_an_unknown_generation_the_verdict_is_told_and_no_policy(generation: int) -> None:
    state = pictures.named("isolated")
    attribute = test_verdicts.attribution(state, generation=250)
    packet = logged.packet(logged.flow(XA, YA, TCP, 80), Note.DENIED, generation=generation)
    (event,) = attribute.events(packet, NOW)
    assert (event.verdict, event.reason) == (verdict.Verdict.DROPPED.value, Reason.POLICY_DENIED.value)
    assert (event.endpoint, event.policy_set, event.rule, event.generation) == (
        test_verdicts.number(state, XA),
        0,
        0,
        0,
    )
    assert (event.source_identity, attribute.disagreed) == (0, 0)


def test_before_any_state_is_known_a_denial_is_told_with_addresses_only() -> None:
    attribute = verdicts.Attribution(verdicts.Moments())
    (event,) = attribute.events(logged.packet(logged.flow(XA, YA, TCP, 80), Note.DENIED), NOW)
    assert (event.source, event.endpoint, event.reason) == (XA, 0, Reason.POLICY_DENIED.value)
    assert attribute.events(logged.packet(logged.flow(XA, YA, TCP, 80), Note.ALLOWED), NOW) == []


def test_generations_beyond_the_last_eight_are_forgotten_but_not_the_one_in_force() -> None:
    moments = verdicts.Moments()
    first = 65533
    moments.staged(first, pictures.named("isolated"))
    moments.enforced(first)
    for generation in range(first + 1, first + 20):  # every one of them fails
        moments.staged(generation, pictures.named("no policy"))
    known = moments.known
    assert len(known.states) == moments_.KEPT
    assert known.at(first) is not None
    assert known.at(first + 19) is known.at((first + 19) % 65536) is not None
    assert known.at(first + 11) is None
    assert known.near(first + 30) is known.at(first + 19)
    moments.enforced(first + 19)
    for generation in range(first + 20, first + 28):
        moments.staged(generation, pictures.named("no policy"))
    assert moments.known.at(first) is None


def test_an_engine_that_stands_alone_reports_its_own_number() -> None:
    moments = verdicts.Moments()
    moments.staged(3, pictures.named("isolated"))
    assert moments.known.number(3) == 3
    moments.enforced(3)
    assert (moments.known.number(3), moments.known.number(4)) == (3, 4)
    moments.staged(70_000, pictures.named("isolated"))
    assert moments.known.number(70_000 % 65536) == 70_000  # what a prefix carries of it


def in_audit(name: str) -> desired.DesiredState:
    """Return a picture with everything that isolates put into audit."""
    state = pictures.named(name)
    endpoints = {
        number: dataclasses.replace(
            one, ingress_set=0, egress_set=0, ingress_audit=one.ingress_set, egress_audit=one.egress_set
        )
        for number, one in state.endpoints.items()
    }
    return dataclasses.replace(state, endpoints=endpoints)


def test_what_passed_and_a_policy_in_audit_would_deny_is_told_as_audit_with_its_set() -> None:
    """Rule A51: no rule of iptables says so; the state of the packet's generation does."""
    state = in_audit("isolated")
    passed = logged.packet(logged.flow(XA, XB, TCP, 80), Note.ALLOWED)
    egress, ingress = test_verdicts.attribution(state).events(passed, NOW)
    enforced = pictures.named("isolated").endpoints
    assert [(test_verdicts.said(one).verdict, one.reason) for one in (egress, ingress)] == [
        (verdict.Verdict.AUDIT, Reason.POLICY_DENIED.value)
    ] * 2
    assert egress.policy_set == enforced[egress.endpoint].egress_set
    assert ingress.policy_set == enforced[ingress.endpoint].ingress_set


def test_a_would_be_denial_of_a_forgotten_generation_is_told_as_audit_without_a_set() -> None:
    """Rule A51: as its denials are, with what became of it and nobody's name; by the generation nearest to it."""
    attribute = test_verdicts.attribution(in_audit("isolated"), generation=250)
    told = attribute.events(logged.packet(logged.flow(XA, XB, TCP, 80), Note.ALLOWED, generation=3), NOW)
    assert [test_verdicts.said(event).direction for event in told] == [EGRESS, INGRESS]
    for event in told:
        assert (test_verdicts.said(event).verdict, test_verdicts.said(event).reason) == (
            verdict.Verdict.AUDIT,
            Reason.POLICY_DENIED,
        )
        assert (event.policy_set, event.rule, event.generation) == (0, 0, verdicts.UNKNOWN_GENERATION)
        assert (event.source_identity, event.destination_identity) == (0, 0)


def test_of_a_packet_that_is_cut_off_nothing_is_told_as_audit() -> None:
    """Rule A51: nobody knows which port it went to, so nobody knows what would deny it."""
    audited = judge.Judgement(
        verdict=verdict.Verdict.AUDIT, reason=Reason.POLICY_DENIED, direction=EGRESS, endpoint=7, rule=3, set=4
    )
    kept = findings.unexplained(audited, cut=False)
    assert (kept.verdict, kept.endpoint, kept.rule, kept.set) == (verdict.Verdict.AUDIT, 7, 0, 0)
    told = findings.unexplained(audited, cut=True)
    assert (told.verdict, told.reason, told.endpoint) == (verdict.Verdict.FORWARDED, Reason.RULE_ALLOWED, 7)


def test_what_the_kernel_denied_stays_denied_whatever_is_in_audit() -> None:
    denied = logged.packet(logged.flow(XA, XB, TCP, 80), Note.DENIED)
    (event,) = test_verdicts.attribution(in_audit("isolated")).events(denied, NOW)
    assert test_verdicts.said(event).verdict is verdict.Verdict.DROPPED
