"""What is told of queries that a filter does not admit, and of those that it would not, were it enforced."""

from __future__ import annotations

import pytest

from agent import desired
from agent.datapath import base, plan
from agent.datapath.bpf import fqdn_layout, maps
from agent.model import net
from tests.bpf import packets
from tests.bpf.dns import filtering, rig, wire
from tests.bpf.dns.filtering import PASSED, REDIRECTED

pytestmark = pytest.mark.root

QUERY = wire.query(filtering.OTHER)


def test_in_audit_everything_passes_and_what_would_not_is_told(pod: rig.Learner) -> None:
    """Rule A51."""
    filtering.restrict(pod, filtering.slot(asks=False, egress=0, audit=True))
    pod.node.upsert(
        plan.Table.POLICY,
        {filtering.row_key(filtering.AUDIT, filtering.RESTRICTED): filtering.allowing(rule=72)},
    )
    before = pod.fqdn.counters()
    for frame in (
        filtering.asking(rig.NAME, filtering.DNS_POD4),
        filtering.asking(filtering.OTHER, filtering.DNS_POD4),
        filtering.frame(b"anything", filtering.DNS_POD6),
    ):
        assert filtering.sent(pod, frame) == filtering.Done(PASSED, frame)
    records = pod.reader.read()
    assert [(one.outcome, one.policy_set, one.rule, one.message) for one in records] == [
        (base.Outcome.WOULD_REFUSE, filtering.AUDIT, 72, QUERY),
        (base.Outcome.WOULD_REFUSE, filtering.AUDIT, 72, b""),
    ]
    after = pod.fqdn.counters()
    assert [after[name] - before[name] for name in ("refused", "would_refuse")] == [0, 2]


def test_what_is_enforced_comes_before_what_is_in_audit(pod: rig.Learner) -> None:
    filtering.restrict(pod, filtering.slot(audit=True))
    asks_nothing = filtering.allowing(asks=desired.ASKS_NOTHING)
    pod.node.upsert(plan.Table.POLICY, {filtering.row_key(filtering.AUDIT, filtering.RESTRICTED): asks_nothing})
    assert filtering.sent(pod, filtering.asking(rig.NAME, filtering.DNS_POD4)).action == PASSED
    assert filtering.sent(pod, filtering.asking(filtering.OTHER, filtering.DNS_POD4)).action == REDIRECTED
    outcomes = [record.outcome for record in pod.reader.read()]
    assert outcomes == [base.Outcome.WOULD_REFUSE, base.Outcome.REFUSED]


@pytest.mark.parametrize("resolver", [rig.RESOLVER4, filtering.DNS_POD6], ids=str)
def test_a_refusal_says_who_asked_whom_for_what_and_by_which_rule_it_is(
    pod: rig.Learner, resolver: net.Address
) -> None:
    before = pod.fqdn.counters()["refused"]
    filtering.sent(pod, filtering.asking(filtering.OTHER, resolver))
    (record,) = pod.reader.read()
    assert record == fqdn_layout.Answer(
        time_ns=record.time_ns,
        endpoint=rig.ENDPOINT,
        outcome=base.Outcome.REFUSED,
        protocol=packets.UDP,
        resolver=resolver,
        message=QUERY,
        policy_set=filtering.EGRESS,
        rule=filtering.RULE,
        client_port=rig.CLIENT_PORT,
        resolver_port=wire.PORT,
        repeats=0,
    )
    assert pod.fqdn.counters()["refused"] == before + 1


def test_a_pod_that_asks_on_and_on_does_not_fill_the_ring(pod: rig.Learner) -> None:
    """As many are told as verdicts of one kind, and then how many were not; each is refused all the same."""
    asked, interval_ns = 40, 2_000_000_000
    pod.node.store_verdict_interval(interval_ns)
    before, counted = maps.counters(pod.node.descriptor("counters")), pod.fqdn.counters()["refused"]
    frame = filtering.asking(filtering.OTHER)
    assert {filtering.sent(pod, frame).action for _ in range(asked)} == {REDIRECTED}
    burst = len(pod.reader.read())
    assert 0 < burst < asked // 2
    assert pod.fqdn.counters()["refused"] == counted + asked
    after = maps.counters(pod.node.descriptor("counters"))
    assert after["events_suppressed"] - before["events_suppressed"] == asked - burst
    pod.node.store_verdict_interval(1)
    filtering.sent(pod, frame)
    assert [record.repeats for record in pod.reader.read()] == [asked - burst]


def test_answers_say_nothing_of_filters(pod: rig.Learner) -> None:
    filtering.sent(pod, filtering.asking(filtering.OTHER))
    pod.reply(wire.answer(rig.NAME, wire.address(filtering.DNS_POD4)))
    filtering.sent(pod, filtering.asking(rig.NAME))
    pod.reply(wire.answer(rig.NAME, wire.address(filtering.DNS_POD4)))
    _, answer = pod.reader.read()
    assert answer.outcome is base.Outcome.LEARNED
    assert (answer.policy_set, answer.rule, answer.client_port, answer.resolver_port, answer.repeats) == (0,) * 5
