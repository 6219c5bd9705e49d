"""One node's desired state from a snapshot: what is in it, what is shared, and what must not be there."""

from __future__ import annotations

import dataclasses
import ipaddress
import random

import pytest

from agent import desired, snapshot
from agent.model import endpoint, identity, labels, net, resources
from agent.policy import compiler
from tests.states import pictures
from tests.support import random_cluster

NODES, PODS = pictures.NODES, pictures.PODS
XA, XB, YA, YB = PODS


def endpoint_of(state: desired.DesiredState, pod: resources.Pod) -> desired.Endpoint:
    return next(each for each in state.endpoints.values() if each.uid == pod.uid)


def test_pods_of_other_nodes_have_identities_but_no_endpoint() -> None:
    state = pictures.state(*NODES, *PODS, pictures.policy("deny", namespace="y"))
    assert {each.uid for each in state.endpoints.values()} == {XA.uid, XB.uid, YA.uid}
    assert set(state.hosts) == {address for pod in PODS for address in pod.addresses}


def test_only_sets_of_local_pods_are_compiled() -> None:
    state = pictures.state(*NODES, XA, YB, pictures.policy("deny", namespace="y"))
    assert state.sets == {}
    assert endpoint_of(state, XA).egress_set == desired.NOT_ISOLATED


def test_replicas_share_their_sets() -> None:
    state = pictures.state(*NODES, *PODS, pictures.policy("p", pictures.rule(pictures.app("a"))))
    one, two = endpoint_of(state, XA), endpoint_of(state, XB)
    assert (one.ingress_set, one.egress_set) == (two.ingress_set, two.egress_set)
    assert len(state.sets) == 2


def test_a_direction_without_policy_is_not_isolated() -> None:
    """Rule A14."""
    ingress = dataclasses.replace(pictures.policy("p"), directions=frozenset({net.Direction.INGRESS}))
    isolated = endpoint_of(pictures.state(*NODES, *PODS, ingress), XA)
    assert isolated.ingress_set != desired.NOT_ISOLATED
    assert isolated.egress_set == desired.NOT_ISOLATED


def test_rules_of_a_direction_that_policy_types_leaves_out_have_no_effect() -> None:
    """Rule A7: not even their labels tell pods apart."""
    rule = pictures.rule(pictures.app("a"))
    ingress = dataclasses.replace(pictures.policy("p", rule), directions=frozenset({net.Direction.INGRESS}), ingress=())
    state = pictures.state(*NODES, *PODS, ingress)
    assert all(each.facts.labels == labels.NO_LABELS for each in state.identities.values())


def test_every_selecting_policy_is_named_as_isolating_in_order() -> None:
    state = pictures.state(*NODES, *PODS, pictures.policy("q"), pictures.policy("p", pictures.rule(pictures.app("a"))))
    found = state.sets[endpoint_of(state, XA).ingress_set].isolating
    assert [ref.name for ref in found] == ["p", "q"]


def test_a_refused_kind_isolates_and_allows_nothing() -> None:
    """Rule A50."""
    refused = dataclasses.replace(pictures.policy("p"), kind="CiliumNetworkPolicy")
    state = pictures.state(*NODES, *PODS, refused)
    policy_set = state.sets[endpoint_of(state, XA).egress_set]
    assert policy_set.rows == {}
    assert policy_set.isolating == (resources.ObjectRef("CiliumNetworkPolicy", "x", "p"),)


def test_a_pod_that_comes_changes_rows_but_not_the_sets_number() -> None:
    policy = pictures.policy("p", pictures.rule(pictures.app("a")))
    before = pictures.state(*NODES, XB, policy)
    after = pictures.state(*NODES, XB, YA, policy)
    number = endpoint_of(before, XB).egress_set
    assert number == endpoint_of(after, XB).egress_set
    assert before.sets[number].digest == after.sets[number].digest
    assert len(after.sets[number].rows) == len(before.sets[number].rows) + 1


def test_the_rows_of_one_set_and_identity_never_change() -> None:
    """What lets rows do without generations (`datapath/plan.py`)."""
    seen: dict[tuple[int, int], dict[desired.RowKey, desired.Row]] = {}
    for seed in range(60):
        cluster = random_cluster.cluster(seed)
        items: list[resources.Resource] = [
            *cluster.snapshot.nodes.values(),
            *cluster.snapshot.namespaces.values(),
            *cluster.snapshot.policies.values(),
        ]
        pods = list(cluster.snapshot.pods.values())
        for _ in range(3):
            some = random.Random(seed).sample(pods, len(pods) * 2 // 3)
            built = snapshot.build([*items, *some], ())
            for view in random_cluster.views(built).values():
                state = compiler.compile_node(built, view).state
                for policy_set in state.sets.values():
                    for number in {identity.ANY, *state.identities}:
                        rows = {key: row for key, row in policy_set.rows.items() if key.identity == number}
                        assert seen.setdefault((policy_set.id, number), rows) == rows
    assert len(seen) > 500


def test_policies_arrive_in_any_order() -> None:
    cluster = random_cluster.cluster(11).snapshot
    items = [
        *cluster.nodes.values(),
        *cluster.namespaces.values(),
        *cluster.pods.values(),
        *cluster.policies.values(),
        *cluster.services.values(),
        *cluster.endpoint_slices.values(),
    ]
    view = random_cluster.views(cluster)["node-0"]
    expected = compiler.compile_node(cluster, view)
    for seed in range(5):
        shuffled = list(items)
        random.Random(seed).shuffle(shuffled)
        unordered = snapshot.Snapshot(
            pods={(pod.namespace, pod.name): pod for pod in shuffled if isinstance(pod, resources.Pod)},
            namespaces=cluster.namespaces,
            nodes=cluster.nodes,
            services=cluster.services,
            endpoint_slices=cluster.endpoint_slices,
            policies={each.ref: each for each in shuffled if isinstance(each, resources.NetworkPolicy)},
        )
        assert compiler.compile_node(unordered, view) == expected


def test_a_host_network_pod_gives_its_nodes_address_no_identity() -> None:
    """Rule A26: a node's address must not get into a pod set."""
    on_host = dataclasses.replace(YB, host_network=True, addresses=NODES[1].addresses)
    state = pictures.state(*NODES, XA, on_host, pictures.policy("p", pictures.rule(pictures.app("b"))))
    assert NODES[1].addresses[0] not in state.hosts
    assert state.sets[endpoint_of(state, XA).egress_set].rows == {}


def test_a_held_sandbox_is_an_endpoint_with_nothing_but_the_hold() -> None:
    """Rule A45."""
    sandbox = endpoint.Sandbox(
        namespace="x",
        pod="new",
        uid="u",
        netns_cookie=5,
        veth_ifindex=6,
        ingress_ifindex=6,
        addresses=(ipaddress.ip_address("10.0.1.77"),),
    )
    view = endpoint.NodeView(name=pictures.NODE, sandboxes=(sandbox,))
    built = snapshot.build([*NODES, pictures.policy("deny")], ())
    state = compiler.compile_node(built, view).state
    (held,) = state.endpoints.values()
    assert held.held
    assert state.hosts == {}
    known = dataclasses.replace(XA, name="new", uid="u")
    later = compiler.compile_node(snapshot.build([*NODES, pictures.policy("deny"), known], ()), view).state
    assert list(later.endpoints) == [held.id], "the number stays when the API learns of the pod"
    assert not later.endpoints[held.id].held


def test_a_service_is_classed_for_each_egress_set() -> None:
    allowed, denied = pictures.named("service"), pictures.named("service denied")
    (service,) = allowed.services
    assert allowed.services[service] == (resources.ObjectRef("Service", "x", "web"),)
    assert set(allowed.frontends) == {
        desired.Frontend(ipaddress.ip_address("10.96.0.1"), 80, 6),
        desired.Frontend(ipaddress.ip_address("192.0.2.1"), 30080, 6),
    }
    (value,) = allowed.classes.values()
    assert value[0] is desired.ServiceClass.ALL
    assert str(allowed.rules[value[1]]) == "NetworkPolicy x/p egress[0]"
    assert list(denied.classes.values()) == [(desired.ServiceClass.NONE, 0)]


@pytest.mark.parametrize("mode", list(endpoint.DenyMode))
def test_the_deny_mode_is_the_nodes(mode: endpoint.DenyMode) -> None:
    view = endpoint.NodeView(name=pictures.NODE, deny_mode=mode)
    assert compiler.compile_node(snapshot.Snapshot(), view).state.deny_mode is mode
