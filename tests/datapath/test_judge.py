"""What the judge says beyond what the memory datapath is asked for (tests/datapath/test_memory.py)."""

from __future__ import annotations

import ipaddress

from agent.datapath import judge, lookups
from agent.model import net, verdict
from tests.states import pictures

XA, XB, YA, _ = (pod.addresses[0] for pod in pictures.PODS)
WORLD = ipaddress.ip_address("198.51.100.1")
EGRESS, INGRESS = net.Direction.EGRESS, net.Direction.INGRESS


def judge_of(name: str) -> judge.Judge:
    return judge.Judge(lookups.InState(pictures.named(name)))


def endpoint_at(name: str, address: net.Address) -> int:
    return lookups.InState(pictures.named(name)).endpoint_of_address(address)


def test_each_side_is_judged_for_its_own_endpoint() -> None:
    flow = judge.Flow(XA, YA, 6, 80)
    ends = [judge_of("allowed by label").end(flow, direction) for direction in (EGRESS, INGRESS)]
    assert [end.endpoint for end in ends] == [endpoint_at("allowed by label", address) for address in (XA, YA)]
    assert [end.reason for end in ends] == [verdict.Reason.RULE_ALLOWED, verdict.Reason.NOT_ISOLATED]


def test_a_side_that_is_no_endpoint_has_no_number_and_no_say() -> None:
    end = judge_of("isolated").end(judge.Flow(WORLD, XA, 6, 80), EGRESS)
    assert (end.allowed, end.endpoint, end.reason) == (True, 0, verdict.Reason.NOT_ISOLATED)


def test_an_address_that_is_held_has_no_endpoint_either() -> None:
    unknown = ipaddress.ip_address("10.0.1.99")
    end = judge_of("held").end(judge.Flow(unknown, WORLD, 6, 80), EGRESS)
    assert (end.allowed, end.endpoint, end.reason) == (False, 0, verdict.Reason.ENDPOINT_HELD)


def test_what_cannot_be_followed_is_denied_where_there_is_isolation_and_only_there() -> None:
    """decide.h, steps 2 and 3."""
    flow = judge.Flow(XA, YA, 0, 0, malformed=True)
    assert judge_of("isolated").end(flow, EGRESS).reason is verdict.Reason.MALFORMED
    assert judge_of("isolated").end(flow, EGRESS).set != 0
    assert judge_of("isolated").end(flow, INGRESS).allowed
    assert judge_of("no policy").packet(flow, judge.Hook.FORWARD).allowed


def test_the_one_who_denies_is_named_with_the_judgement() -> None:
    found = judge_of("isolated").packet(judge.Flow(YA, XB, 6, 80), judge.Hook.FORWARD)
    assert (found.allowed, found.direction, found.endpoint) == (False, INGRESS, endpoint_at("isolated", XB))
