"""From a raw event to names: of the generation it was judged under, and never invented."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from agent import snapshot
from agent.model import labels, net, resources, verdict
from agent.observer import enrich, history
from tests.support import agents

OFFSET = 1_000_000
UNSPECIFIED = ipaddress.ip_address("::")
HOST = ipaddress.ip_address("203.0.113.9")


@pytest.fixture
def past() -> history.History:
    known = history.History()
    known.enforced(1, agents.enforced(), agents.cluster(resources.Host(name="customer", addresses=(HOST,))))
    return known


def enriched(event: agents.Event, past: history.History) -> verdict.VerdictEvent:
    return enrich.enrich(event, node="n1", past=past.past, monotonic_to_unix_ns=OFFSET)


def test_a_default_deny_names_both_pods_and_the_policies_that_isolate(past: history.History) -> None:
    event = enriched(agents.Event(), past)
    assert (event.source.namespace, event.source.pod) == ("x", "a")
    assert event.destination.labels == labels.Labels({"app": "b"})
    assert event.isolating == (agents.DENY.ref,)
    assert event.rule is None
    assert event.reason is verdict.Reason.POLICY_DENIED
    assert event.time_ns == 500 + OFFSET


def test_a_rule_that_decided_is_named_and_nothing_isolates_then(past: history.History) -> None:
    event = enriched(agents.Event(rule=9, verdict=1, reason=1), past)
    assert event.rule == agents.RULE
    assert event.isolating == ()


def test_an_unbound_socket_has_its_pods_address_of_the_destinations_family(past: history.History) -> None:
    event = enriched(agents.Event(endpoint=1, direction=2, source=UNSPECIFIED, source_identity=0, layer=1), past)
    assert event.source.address == agents.CLIENT
    assert event.source.identity == 300
    assert event.source.pod == "a"


def test_a_forged_source_is_shown_as_the_pod_that_sent_it(past: history.History) -> None:
    spoofed = agents.Event(endpoint=2, direction=2, source=agents.CLIENT, reason=6)
    event = enriched(spoofed, past)
    assert event.source.address == agents.CLIENT
    assert event.source.pod == "b"


def test_addresses_of_hosts_have_an_owner_and_unknown_ones_none(past: history.History) -> None:
    known = enriched(agents.Event(source=HOST), past)
    assert known.source.owner == resources.ObjectRef("Host", "", "customer")
    unknown = enriched(agents.Event(source=ipaddress.ip_address("192.0.2.1")), past)
    assert (unknown.source.owner, unknown.source.pod) == (None, "")


def test_a_process_is_named_where_the_socket_layer_knows_it(past: history.History) -> None:
    event = enriched(agents.Event(layer=1, direction=2, pid=7, command="cu\x1brl"), past)
    assert event.process == verdict.Process(pid=7, command="cu\x1brl")
    assert enriched(agents.Event(), past).process is None


def test_numbers_of_other_programs_are_refused_and_not_guessed(past: history.History) -> None:
    with pytest.raises(ValueError, match="77"):
        enriched(agents.Event(reason=77), past)


def test_before_the_first_state_a_verdict_has_addresses_and_no_names() -> None:
    event = enriched(agents.Event(), history.History())
    assert event.source.address == agents.CLIENT
    assert (event.source.pod, event.isolating) == ("", ())


def test_events_are_named_by_the_state_of_their_generation(past: history.History) -> None:
    renamed = agents.pod("other", agents.CLIENT)
    state = dataclasses.replace(agents.enforced(), endpoints={}, rules={}, sets={})
    past.staged(state, snapshot.build((renamed,)))
    assert enriched(agents.Event(generation=1), past).source.pod == "a"
    assert enriched(agents.Event(generation=2), past).source.pod == "other"
    past.enforced(2, state, snapshot.build((renamed,)))
    assert enriched(agents.Event(generation=2), past).source.pod == "other"
    # Its rule and set are of another generation: their numbers are digests, so they are still the right ones.
    assert enriched(agents.Event(generation=2, rule=9, reason=1), past).rule == agents.RULE
    assert enriched(agents.Event(generation=2), past).isolating == (agents.DENY.ref,)


def test_only_the_last_generations_are_remembered_and_older_events_get_the_oldest() -> None:
    past = history.History()
    for number in range(1, history.KEPT + 4):
        past.enforced(number, agents.enforced(), snapshot.build((agents.pod(f"p{number}", agents.CLIENT),)))
    state = dataclasses.replace(agents.enforced(), endpoints={})
    assert past.past.at(1).snapshot.pods.keys() == {("x", "p4")}
    past.enforced(2**32 - 1, state, snapshot.Snapshot())
    assert past.past.at(3).snapshot == snapshot.Snapshot()  # after the counter wrapped, 3 is newer


def test_the_other_end_of_a_pods_own_direction_is_named_by_address(past: history.History) -> None:
    event = enriched(agents.Event(endpoint=1, direction=2), past)
    assert (event.source.pod, event.destination.pod) == ("a", "b")
    assert event.direction is net.Direction.EGRESS
