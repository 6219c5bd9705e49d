"""From a raw event to names: of the generation it was judged under, and never invented."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from agent import desired, snapshot
from agent.model import labels, net, resources, verdict
from agent.observer import enrich, history, joining
from tests.support import agents

OFFSET = 1_000_000
UNSPECIFIED = ipaddress.ip_address("::")
HOST = ipaddress.ip_address("203.0.113.9")


@pytest.fixture
def past() -> history.History:
    known = history.History()
    known.enforced(1, agents.enforced(), agents.cluster(resources.Host(name="customer", addresses=(HOST,))))
    return known


def context(past: history.History, names: enrich.Names = enrich.nameless) -> enrich.Context:
    return enrich.Context(node="n1", past=past.past, monotonic_to_unix_ns=OFFSET, names=names)


def enriched(event: agents.Event, past: history.History) -> verdict.VerdictEvent:
    return enrich.enrich(event, context(past))


def test_a_default_deny_names_both_pods_and_the_policies_that_isolate(past: history.History) -> None:
    event = enriched(agents.Event(), past)
    assert (event.source.namespace, event.source.pod) == ("x", "a")
    assert event.destination.labels == labels.Labels({"app": "b"})
    assert event.isolating == (agents.DENY.ref,)
    assert event.rule is None
    assert event.reason is verdict.Reason.POLICY_DENIED
    assert event.time_ns == 500 + OFFSET


def test_a_would_be_denial_names_the_policies_that_would_isolate(past: history.History) -> None:
    """Rule A51."""
    event = enriched(agents.Event(verdict=4), past)
    assert (event.verdict, event.isolating) == (verdict.Verdict.AUDIT, (agents.DENY.ref,))


def test_a_would_be_denial_without_a_set_names_the_ends_and_no_policy(past: history.History) -> None:
    """Rule A51: so the iptables engine tells of a generation it has forgotten."""
    event = enriched(agents.Event(verdict=4, policy_set=0, generation=0), past)
    assert (event.verdict, event.isolating, event.rule) == (verdict.Verdict.AUDIT, (), None)
    assert (event.reason, event.destination.pod) == (verdict.Reason.POLICY_DENIED, "b")


def test_a_rule_that_decided_is_named_and_nothing_isolates_then(past: history.History) -> None:
    event = enriched(agents.Event(rule=9, verdict=1, reason=1), past)
    assert event.rule == agents.RULE
    assert event.isolating == ()


def test_a_service_whose_backends_one_rule_denies_is_denied_by_that_rule(past: history.History) -> None:
    """Rule D2."""
    event = enriched(agents.Event(rule=9, reason=verdict.Reason.SERVICE_DENIED.value), past)
    assert (event.rule, event.isolating) == (agents.RULE, ())


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


def test_the_other_end_has_the_names_that_the_endpoint_knew_its_address_by_when_it_was_judged(
    past: history.History,
) -> None:
    """Requirement F16: an endpoint's names are nobody else's, and what is answered later is no name of this verdict."""

    def known(endpoint: int, address: net.Address, monotonic_ns: int) -> tuple[str, ...]:
        return (f"{endpoint}-at-{monotonic_ns}.example.com",) if address == HOST else ()

    out = agents.Event(endpoint=1, direction=2, destination=HOST, time_ns=77)
    event = enrich.enrich(out, context(past, known))
    assert event.destination.names == ("1-at-77.example.com",)
    assert event.source.names == ()
    event = enrich.enrich(agents.Event(source=HOST, time_ns=78), context(past, known))
    assert (event.source.names, event.destination.names) == (("2-at-78.example.com",), ())


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


SERVICE = resources.Service(
    namespace="x",
    name="web",
    cluster_addresses=(ipaddress.ip_address("10.96.0.10"),),
    ports=(resources.ServicePort(port=80, protocol=net.Protocol.TCP, target=8080, node_port=30080),),
    selector=labels.Labels({"app": "b"}),
)
NODE_ADDRESS = ipaddress.ip_address("192.168.0.1")


@pytest.fixture
def serving() -> history.History:
    """Return a past in which Service x/web leads to x/b, by its address and by a node port."""
    known = history.History()
    frontends = {
        desired.Frontend(SERVICE.cluster_addresses[0], 80, 6): 7,
        desired.Frontend(NODE_ADDRESS, 30080, 6): 7,
    }
    state = dataclasses.replace(
        agents.enforced(), frontends=frontends, services={7: (resources.ObjectRef("Service", "x", "web"),)}
    )
    known.enforced(1, state, agents.cluster(SERVICE))
    return known


@pytest.mark.parametrize(("address", "port"), [(SERVICE.cluster_addresses[0], 80), (NODE_ADDRESS, 30080)])
def test_a_joined_verdict_has_the_packets_decision_the_calls_process_and_what_was_dialled(
    serving: history.History, address: net.Address, port: int
) -> None:
    call = agents.Event(endpoint=1, direction=2, layer=1, verdict=1, reason=1, pid=9, command="curl", repeats=50)
    call = dataclasses.replace(call, destination=address, destination_port=port, destination_identity=2)
    packet = agents.Event(endpoint=1, direction=2, destination_port=8080, repeats=3)
    told: joining.Joined[enrich.RawEvent] = joining.Joined(packet, call, 2)
    event = enrich.enrich(told, context(serving))
    assert (event.verdict, event.layer, event.joined) == (verdict.Verdict.DROPPED, verdict.Layer.PACKET, True)
    assert event.process == verdict.Process(pid=9, command="curl")
    assert (event.destination.pod, event.destination.port) == ("b", 8080)
    assert event.dialled is not None
    assert (event.dialled.address, event.dialled.port) == (address, port)
    assert event.dialled.owner == resources.ObjectRef("Service", "x", "web")
    assert event.repeats == 5


def test_backends_of_a_service_are_those_behind_the_port_dialled(serving: history.History) -> None:
    services = serving.past.at(1).services
    found = services.at(6, net.mapped(SERVICE.cluster_addresses[0]), b"\0\x50")
    assert found is not None
    assert found.backends == {(net.mapped(agents.SERVER), b"\x1f\x90")}
    assert services.at(6, net.mapped(NODE_ADDRESS), b"\x75\x80") == found
    assert services.at(17, net.mapped(SERVICE.cluster_addresses[0]), b"\0\x50") is None
    assert services.at(6, net.mapped(agents.SERVER), b"\0\x50") is None


def test_what_was_not_led_elsewhere_has_nothing_dialled(serving: history.History) -> None:
    call = agents.Event(endpoint=1, direction=2, layer=1, verdict=1, reason=1, pid=9)
    told: joining.Joined[enrich.RawEvent] = joining.Joined(dataclasses.replace(call, layer=2, pid=0), call)
    assert enrich.enrich(told, context(serving)).dialled is None


@pytest.mark.parametrize(
    ("key", "match"),
    [
        (desired.RowKey(300, 0, 0, 0), verdict.Match.L3_ONLY),
        (desired.RowKey(300, 6, 0, 0), verdict.Match.L3_PROTO),
        (desired.RowKey(300, 6, 80, 16), verdict.Match.L3_L4),
        (desired.RowKey(300, 6, 64, 10), verdict.Match.L3_L4),
        (desired.RowKey(0, 0, 0, 0), verdict.Match.ALL),
        (desired.RowKey(0, 6, 0, 0), verdict.Match.PROTO_ONLY),
        (desired.RowKey(0, 6, 80, 16), verdict.Match.L4_ONLY),
        (desired.RowKey(301, 6, 80, 16), verdict.Match.NONE),
        (desired.RowKey(300, 17, 80, 16), verdict.Match.NONE),
    ],
)
def test_the_match_is_the_shape_of_the_row_that_decided(key: desired.RowKey, match: verdict.Match) -> None:
    known = history.History()
    state = agents.enforced()
    rows = {key: desired.Row(action=desired.Action.ALLOW, rule=9)}
    sets = {5: dataclasses.replace(state.sets[5], rows=rows)}
    known.enforced(1, dataclasses.replace(state, sets=sets), agents.cluster())
    assert enriched(agents.Event(rule=9, verdict=1, reason=1), known).match is match
    assert enriched(agents.Event(rule=8, verdict=1, reason=1), known).match is verdict.Match.NONE, "another decided"
    assert enriched(agents.Event(), known).match is verdict.Match.NONE, "a default deny has no row"
    assert enriched(agents.Event(policy_set=0, verdict=1, reason=2), known).match is verdict.Match.ALL
