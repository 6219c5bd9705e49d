"""Who reaches whom, over a whole cluster; and placeholders for what manifests leave to the cluster."""

from __future__ import annotations

import dataclasses
import ipaddress

from agent import snapshot
from agent.model import net, resources, verdict
from agent.policy import reachability
from tests.support import cases, flows

HTTP = (80, net.Protocol.TCP)


def pod(name: str, *addresses: str, node: str | None = "node-1", host_network: bool = False) -> resources.Pod:
    namespace, _, short = name.partition("/")
    return resources.Pod(
        namespace=namespace,
        name=short,
        uid=name,
        node=node,
        addresses=tuple(ipaddress.ip_address(text) for text in addresses),
        host_network=host_network,
        ports=(resources.ContainerPort(*HTTP),),
    )


def placed(*items: resources.Resource) -> reachability.Placed:
    return reachability.place(snapshot.build(items))


def test_pods_without_an_address_get_one_by_their_node_that_no_other_has() -> None:
    found = placed(
        pod("x/a"),
        pod("x/b", "10.244.1.10"),
        pod("x/c", node="node-2"),
        pod("x/d", node=None),
        pod("x/e", node="node-2"),
    )
    addresses = {name: str(one.addresses[0]) for (_, name), one in found.snapshot.pods.items()}
    assert addresses == {
        "a": "10.244.1.11",
        "b": "10.244.1.10",
        "c": "10.244.2.10",
        "d": "10.244.0.10",
        "e": "10.244.2.11",
    }
    assert (found.pods, found.nodes) == (4, 2)


def test_host_network_pods_have_their_nodes_address_and_the_node_gets_one_if_it_has_none() -> None:
    """Rule A26."""
    stated = resources.Node(name="node-2", addresses=(ipaddress.ip_address("192.0.2.2"),))
    found = placed(stated, pod("x/a", host_network=True), pod("x/b", node="node-2", host_network=True)).snapshot
    assert found.pods["x", "a"].addresses == found.nodes["node-1"].addresses
    assert str(found.pods["x", "a"].addresses[0]) == "172.18.0.10"
    assert found.pods["x", "b"].addresses == stated.addresses


def test_finished_pods_get_no_address_and_are_no_end() -> None:
    """Rule A27."""
    done = dataclasses.replace(pod("x/done"), phase=resources.PodPhase.FAILED)
    found = placed(done, dataclasses.replace(done, name="late", addresses=(ipaddress.ip_address("10.0.0.1"),)))
    assert found.snapshot.pods["x", "done"].addresses == ()
    assert reachability.ends(found.snapshot) == {}


def test_every_ordered_pair_is_judged_on_declared_ports_but_no_pod_with_itself_and_no_two_machines_outside() -> None:
    """Rule A40."""
    port = (resources.ContainerPort(*HTTP),)
    hosts = [
        resources.Host(name=name, addresses=(ipaddress.ip_address(f"203.0.113.{name}"),), ports=port) for name in "12"
    ]
    silent = dataclasses.replace(pod("x/silent", "10.0.0.9"), ports=())
    found = placed(pod("x/a", "10.0.0.1"), silent, *hosts).snapshot
    pairs = [(one.source, one.destination) for one in reachability.reach(found, [HTTP])]
    assert pairs == [
        ("x/a", "host/1"),
        ("x/a", "host/2"),
        ("x/silent", "x/a"),
        ("x/silent", "host/1"),
        ("x/silent", "host/2"),
        ("host/1", "x/a"),
        ("host/2", "x/a"),
    ]
    assert reachability.declared(found) == [HTTP]


def test_a_pair_is_judged_once_in_every_family_both_have() -> None:
    """Rule A25."""
    found = placed(pod("x/a", "10.0.0.1", "fd00::1"), pod("x/b", "10.0.0.2", "fd00::2"), pod("x/c", "fd00::3")).snapshot
    families = [(one.source, one.destination, one.family.value) for one in reachability.reach(found, [HTTP])]
    assert families.count(("x/a", "x/b", 4)) == families.count(("x/a", "x/b", 6)) == 1
    assert ("x/a", "x/c", 6) in families
    assert ("x/a", "x/c", 4) not in families


def test_the_matrix_says_what_a_truth_table_says() -> None:
    """Rule A16: the same evaluator, asked for all pairs at once."""
    (step,) = cases.load(cases.DIRECTORY / "networkpolicy" / "28-client-side-egress-deny.yaml").steps
    found = reachability.reach(flows.snapshot_of(step), [HTTP])
    assert {(one.source, one.destination): one.decision.allowed for one in found} == step.checks[0].expected


def test_the_side_that_is_named_is_the_one_that_denies_else_one_with_a_rule() -> None:
    """Rule A15."""
    (step,) = cases.load(cases.DIRECTORY / "networkpolicy" / "28-client-side-egress-deny.yaml").steps
    found = {(one.source, one.destination): one for one in reachability.reach(flows.snapshot_of(step), [HTTP])}
    denied_by_source, by_rule, free = found["x/a", "y/b"], found["x/a", "y/a"], found["z/a", "x/a"]
    assert denied_by_source.decisive.direction is net.Direction.EGRESS
    assert denied_by_source.reason is verdict.Reason.POLICY_DENIED
    assert by_rule.decisive.rule is not None
    assert by_rule.reason is verdict.Reason.RULE_ALLOWED
    assert free.reason is verdict.Reason.NOT_ISOLATED
