"""Which sandboxes are enforced on, which are held, and who owns an address."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from agent import snapshot
from agent.model import endpoint, labels, net, resources
from agent.policy import subjects
from tests.states import pictures

A4 = ipaddress.ip_address("10.0.1.2")
POD = pictures.PODS[0]
SANDBOX = endpoint.Sandbox(
    namespace="x", pod="a", uid=POD.uid, netns_cookie=7, veth_ifindex=8, ingress_ifindex=8, addresses=(A4,)
)
AUTO, STRICT, PERMISSIVE = endpoint.HoldMode.AUTO, endpoint.HoldMode.STRICT, endpoint.HoldMode.PERMISSIVE


def resolve(
    *items: resources.Resource,
    sandboxes: tuple[endpoint.Sandbox, ...] = (SANDBOX,),
    hold: endpoint.HoldMode = PERMISSIVE,
) -> subjects.Ownership:
    view = endpoint.NodeView(name=pictures.NODE, sandboxes=sandboxes, hold_mode=hold)
    return subjects.resolve(snapshot.build(items, ()), view)


def test_a_sandbox_meets_its_pod_by_namespace_name_and_uid() -> None:
    (subject,) = resolve(POD).subjects
    assert subject.pod is POD
    assert subject.addresses == (A4,)


def test_a_sandbox_of_an_earlier_pod_of_that_name_is_not_this_pods() -> None:
    """Rule A28: a StatefulSet's pod comes back with the same name."""
    (subject,) = resolve(dataclasses.replace(POD, uid="later")).subjects
    assert subject.pod is None


@pytest.mark.parametrize("change", [{"uid": ""}, {"uid": "", "node": None}])
def test_without_a_uid_name_and_node_must_do(change: dict[str, object]) -> None:
    pod = dataclasses.replace(POD, **change)  # type: ignore[arg-type]
    (subject,) = resolve(pod).subjects
    assert subject.pod == pod


def test_without_a_uid_a_pod_of_another_node_is_another_pod() -> None:
    (subject,) = resolve(dataclasses.replace(POD, uid="", node="node-2")).subjects
    assert subject.pod is None


def test_host_network_pods_are_no_endpoints_and_own_nothing() -> None:
    """Rule A26."""
    found = resolve(dataclasses.replace(POD, host_network=True))
    assert found.subjects == ()
    assert found.owners == {}


@pytest.mark.parametrize("phase", [resources.PodPhase.SUCCEEDED, resources.PodPhase.FAILED])
def test_a_finished_pod_owns_nothing_but_its_sandbox_stays_isolated(phase: resources.PodPhase) -> None:
    """Rules A27, A49: a pod may be called Failed while its processes go on."""
    pod = dataclasses.replace(POD, phase=phase)
    found = resolve(pod)
    (subject,) = found.subjects
    assert (subject.pod, subject.held, subject.addresses) == (pod, False, (A4,))
    assert found.owners == {}


@pytest.mark.parametrize("here", [True, False])
def test_the_address_of_a_finished_pod_is_whose_it_is_now(*, here: bool) -> None:
    """Rule A27."""
    heir = dataclasses.replace(POD, name="z", uid="z", node=pictures.NODE if here else "node-2")
    of_heir = dataclasses.replace(SANDBOX, pod="z", uid="z", netns_cookie=9)
    ended = dataclasses.replace(POD, phase=resources.PodPhase.FAILED)
    found = resolve(ended, heir, sandboxes=(SANDBOX, of_heir) if here else (SANDBOX,))
    assert {subject.sandbox.pod: subject.addresses for subject in found.subjects} == (
        {"a": (), "z": (A4,)} if here else {"a": ()}
    )
    assert found.owners == {A4: heir}
    assert found.problems == ()


@pytest.mark.parametrize(
    ("mode", "guarded", "held"),
    [(AUTO, True, True), (AUTO, False, False), (STRICT, False, True), (PERMISSIVE, True, False)],
)
def test_a_sandbox_without_its_pod_is_held_by_mode(mode: endpoint.HoldMode, *, guarded: bool, held: bool) -> None:
    """Rule A45."""
    items = (pictures.policy("deny"),) if guarded else ()
    (subject,) = resolve(*items, hold=mode).subjects
    assert subject.held is held
    assert subject.addresses == (A4,)


def test_a_pod_that_is_known_is_never_held() -> None:
    (subject,) = resolve(POD, pictures.policy("deny"), hold=STRICT).subjects
    assert not subject.held


def test_a_pod_whose_namespace_is_unknown_counts_as_unknown() -> None:
    bare = snapshot.Snapshot(pods={("x", "a"): POD})
    view = endpoint.NodeView(name=pictures.NODE, sandboxes=(SANDBOX,), hold_mode=STRICT)
    (subject,) = subjects.resolve(bare, view).subjects
    assert (subject.pod, subject.held) == (None, True)


def test_the_node_is_believed_about_addresses() -> None:
    moved = ipaddress.ip_address("10.0.1.9")
    found = resolve(POD, sandboxes=(dataclasses.replace(SANDBOX, addresses=(moved,)),))
    assert found.subjects[0].addresses == (moved,)
    assert found.owners[moved] is POD


def test_an_address_that_another_sandbox_reuses_is_not_the_old_pods() -> None:
    """Rule A49: the new pod is not known yet, so its address must not pass for the old one's."""
    new = dataclasses.replace(SANDBOX, pod="new", uid="new", netns_cookie=9)
    found = resolve(POD, sandboxes=(new,))
    assert A4 not in found.owners


def test_mapped_addresses_are_normalised() -> None:
    """Rule A24."""
    mapped = dataclasses.replace(SANDBOX, addresses=(ipaddress.ip_address("::ffff:10.0.1.2"),))
    assert resolve(POD, sandboxes=(mapped,)).subjects[0].addresses == (A4,)


@pytest.mark.parametrize(
    ("worse", "better"),
    [
        ({"phase": resources.PodPhase.PENDING}, {}),
        ({"deleting": True}, {}),
        ({"phase": resources.PodPhase.PENDING}, {"deleting": True}),
        ({"name": "z"}, {}),
    ],
)
def test_of_two_pods_with_one_address_the_better_claim_wins_and_the_quarrel_shows(
    worse: dict[str, object], better: dict[str, object]
) -> None:
    """Rule A27."""
    remote = pictures.PODS[3]
    loser = dataclasses.replace(remote, **{"name": "y", "uid": "1", **worse})  # type: ignore[arg-type]
    winner = dataclasses.replace(remote, **{"name": "x", "uid": "2", **better})  # type: ignore[arg-type]
    (address,) = remote.addresses
    for items in ((loser, winner), (winner, loser)):
        found = resolve(*items, sandboxes=())
        assert found.owners == {address: winner}
        (problem,) = found.problems
        assert problem.ref == resources.ObjectRef("Pod", loser.namespace, loser.name)
        assert str(address) in problem.reason


def test_of_two_local_sandboxes_with_one_address_only_one_keeps_it() -> None:
    old = dataclasses.replace(POD, name="old", uid="old", deleting=True)
    of_old = dataclasses.replace(SANDBOX, pod="old", uid="old", netns_cookie=6)
    found = resolve(POD, old, sandboxes=(of_old, SANDBOX))
    assert {subject.sandbox.pod: subject.addresses for subject in found.subjects} == {"a": (A4,), "old": ()}


@pytest.mark.parametrize(
    ("mode", "guarded", "held"),
    [(AUTO, True, True), (AUTO, False, False), (STRICT, False, True), (PERMISSIVE, True, False)],
)
def test_the_nodes_own_pod_ranges_are_held_by_mode(mode: endpoint.HoldMode, *, guarded: bool, held: bool) -> None:
    items: list[resources.Resource] = [*pictures.NODES, *([pictures.policy("deny")] if guarded else [])]
    view = endpoint.NodeView(name=pictures.NODE, hold_mode=mode)
    expected: set[net.Network] = {ipaddress.ip_network("10.0.1.0/24")} if held else set()
    assert subjects.hold(snapshot.build(items, ()), view).ranges == expected


def test_a_range_in_which_another_node_has_pods_is_not_held() -> None:
    """Such a range says nothing about this node (an IPAM that does not use podCIDR): holding it would cut them off."""
    (address,) = POD.addresses
    items: tuple[resources.Resource, ...] = (*pictures.NODES, pictures.policy("deny"))
    view = endpoint.NodeView(name=pictures.NODE, hold_mode=STRICT)
    elsewhere = dataclasses.replace(POD, node="node-2")
    ended = dataclasses.replace(elsewhere, phase=resources.PodPhase.FAILED)
    for pod, held in ((elsewhere, False), (ended, True), (POD, True), (dataclasses.replace(POD, node=None), True)):
        assert bool(subjects.hold(snapshot.build((*items, pod), ()), view).ranges) is held
    (problem,) = subjects.hold(snapshot.build((*items, elsewhere), ()), view).problems
    assert problem.ref == resources.ObjectRef("Node", "", pictures.NODE)
    assert str(address) in problem.reason


@pytest.mark.parametrize(
    ("mode", "nodes", "told"),
    [
        (AUTO, pictures.NODES[1:], True),
        (AUTO, (dataclasses.replace(pictures.NODES[0], pod_ranges=()),), True),
        (AUTO, (), False),
        (STRICT, (), True),
        (PERMISSIVE, pictures.NODES[1:], False),
    ],
)
def test_a_node_without_a_known_range_says_that_unknown_pods_pass(
    mode: endpoint.HoldMode, nodes: tuple[resources.Node, ...], *, told: bool
) -> None:
    """Rule A45."""
    view = endpoint.NodeView(name=pictures.NODE, hold_mode=mode)
    found = subjects.hold(snapshot.build((*nodes, pictures.policy("deny")), ()), view)
    assert found.ranges == frozenset()
    assert bool(found.problems) is told


UNKNOWN = endpoint.Sandbox(
    namespace="", pod="cni-1", uid="", netns_cookie=7, veth_ifindex=0, ingress_ifindex=0, attached=False
)


@pytest.mark.parametrize(
    ("mode", "items", "held"),
    [
        (STRICT, (), True),
        (AUTO, (), False),
        (AUTO, (pictures.policy("deny"),), True),
        (PERMISSIVE, (pictures.policy("deny"),), False),
    ],
)
def test_a_namespace_of_which_nobody_says_whose_it_is_is_held_or_no_endpoint(
    mode: endpoint.HoldMode, items: tuple[resources.Resource, ...], *, held: bool
) -> None:
    """Rule A45: it may be that of a pod that a policy selects, if there is any policy."""
    found = resolve(*items, sandboxes=(UNKNOWN,), hold=mode).subjects
    assert [(subject.sandbox, subject.held) for subject in found] == ([(UNKNOWN, True)] if held else [])


def test_a_sandbox_that_cni_has_not_attached_does_not_go_by_the_api_s_address() -> None:
    """That one is an earlier sandbox's, or somebody else's by now (rule A49)."""
    early = dataclasses.replace(SANDBOX, addresses=(), attached=False)
    (subject,) = resolve(POD, sandboxes=(early,)).subjects
    assert (subject.pod, subject.held, subject.addresses) == (POD, False, ())


SELECTED = pictures.policy("deny")
EXPECTED = dataclasses.replace(POD, addresses=())


@pytest.mark.parametrize(
    ("pod", "sandboxes", "held"),
    [
        pytest.param(EXPECTED, (), True, id="known-and-selected-but-not-seen-here"),
        pytest.param(EXPECTED, (dataclasses.replace(SANDBOX, addresses=(), attached=False),), True, id="no-address"),
        pytest.param(EXPECTED, (dataclasses.replace(SANDBOX, uid="earlier"),), True, id="an-earlier-pod-of-its-name"),
        pytest.param(EXPECTED, (SANDBOX,), False, id="programmed"),
        pytest.param(POD, (dataclasses.replace(SANDBOX, addresses=()),), False, id="attached-where-the-api-says"),
        pytest.param(dataclasses.replace(EXPECTED, namespace="y"), (), False, id="no-policy-selects-it"),
        pytest.param(dataclasses.replace(EXPECTED, node="node-2"), (), False, id="of-another-node"),
        pytest.param(dataclasses.replace(EXPECTED, node=None), (), False, id="of-no-node-yet"),
        pytest.param(dataclasses.replace(EXPECTED, host_network=True), (), False, id="host-network"),
        pytest.param(dataclasses.replace(EXPECTED, phase=resources.PodPhase.FAILED), (), False, id="finished"),
    ],
)
def test_permissive_holds_what_is_unknown_while_a_pod_that_a_policy_selects_is_to_come(
    pod: resources.Pod, sandboxes: tuple[endpoint.Sandbox, ...], *, held: bool
) -> None:
    """Rule A45: that pod is to be isolated before its first container runs, whatever the mode."""
    cluster = snapshot.build((*pictures.NODES, pod, SELECTED), ())
    view = endpoint.NodeView(name=pictures.NODE, sandboxes=(*sandboxes, UNKNOWN), hold_mode=PERMISSIVE)
    assert bool(subjects.hold(cluster, view).ranges) is held
    unknown = [subject.held for subject in subjects.resolve(cluster, view).subjects if not subject.sandbox.identified]
    assert unknown == ([True] if held else [])


def test_permissive_says_that_there_is_no_range_to_hold_while_such_a_pod_is_to_come() -> None:
    view = endpoint.NodeView(name=pictures.NODE, hold_mode=PERMISSIVE)
    found = subjects.hold(snapshot.build((*pictures.NODES[1:], EXPECTED, SELECTED), ()), view)
    assert found.ranges == frozenset()
    assert [problem.path for problem in found.problems] == ["spec.podCIDRs"]


def test_a_pod_that_a_policy_of_the_cluster_may_select_is_waited_for_before_its_namespace_is_known() -> None:
    wide = dataclasses.replace(SELECTED, subject_namespaces=labels.EVERYTHING, subject=labels.EVERYTHING)
    view = endpoint.NodeView(name=pictures.NODE, hold_mode=PERMISSIVE)
    bare = snapshot.build((*pictures.NODES, EXPECTED, wide), ())
    assert subjects.hold(dataclasses.replace(bare, namespaces={}), view).ranges
