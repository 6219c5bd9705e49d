"""Snapshots: one content gives one Snapshot, along whatever path."""

from __future__ import annotations

import pytest

from agent import snapshot
from agent.model import labels, net, resources

POD = resources.Pod(namespace="x", name="a", uid="1")
POLICY = resources.NetworkPolicy(namespace="y", name="p", directions=frozenset({net.Direction.INGRESS}))
PROBLEM = resources.Problem(POLICY.ref, "spec", "is odd")
EVERY_KIND: tuple[resources.Resource, ...] = (
    POD,
    resources.Namespace(name="x", labels=labels.Labels({"team": "a"})),
    resources.Node(name="n"),
    resources.Service(namespace="x", name="s"),
    resources.EndpointSlice(namespace="x", name="s-1", service="s"),
    POLICY,
    resources.Host(name="h"),
)


def test_every_kind_finds_its_mapping() -> None:
    built = snapshot.build(EVERY_KIND, [PROBLEM])
    assert list(built.pods) == [("x", "a")]
    assert list(built.nodes) == ["n"]
    assert list(built.services) == [("x", "s")]
    assert list(built.endpoint_slices) == [("x", "s-1")]
    assert list(built.policies) == [POLICY.ref]
    assert list(built.hosts) == ["h"]
    assert built.problems == (PROBLEM,)


def test_a_namespace_that_is_only_mentioned_has_the_name_label_a13() -> None:
    built = snapshot.build(EVERY_KIND)
    assert dict(built.namespaces["x"].labels) == {"team": "a"}
    assert dict(built.namespaces["y"].labels) == {"kubernetes.io/metadata.name": "y"}


def test_of_two_objects_with_one_name_the_later_wins_and_a_problem_says_so() -> None:
    other = resources.Pod(namespace="x", name="a", uid="2")
    built = snapshot.build([POD, other])
    assert built.pods["x", "a"] is other
    assert [problem.ref for problem in built.problems] == [resources.ObjectRef("Pod", "x", "a")]


def test_the_same_object_twice_is_no_problem() -> None:
    assert snapshot.build([POD, POD]).problems == ()


def test_policies_of_different_kinds_may_share_a_name() -> None:
    other = resources.NetworkPolicy(namespace="y", name="p", kind="CiliumNetworkPolicy")
    built = snapshot.build([POLICY, other])
    assert len(built.policies) == 2
    assert built.problems == ()


@pytest.mark.parametrize("shift", range(len(EVERY_KIND)))
def test_the_order_of_the_input_does_not_matter(shift: int) -> None:
    items = [*EVERY_KIND, *(resources.Pod(namespace="x", name=name, uid=name) for name in "cb")]
    rotated = [*items[shift:], *items[:shift]]
    built, other = snapshot.build(items), snapshot.build(rotated)
    assert built == other
    assert list(built.pods) == list(other.pods)


def test_editing_gives_what_building_gives_and_shares_what_did_not_change() -> None:
    built = snapshot.build(EVERY_KIND, [PROBLEM])
    pod = resources.Pod(namespace="w", name="z", uid="2")
    edits = snapshot.Edits(pods={("x", "a"): None, ("w", "z"): pod}, nodes={"m": resources.Node(name="m")})
    found = snapshot.edited(built, edits, declared={"x": built.namespaces["x"]}, problems=(PROBLEM,))
    expected = snapshot.build([*EVERY_KIND[1:], pod, resources.Node(name="m")], [PROBLEM])
    assert found == expected
    assert list(found.nodes) == ["m", "n"]
    assert list(found.namespaces) == ["w", "x", "y"]
    assert found.policies is built.policies


def test_a_namespace_nobody_mentions_any_more_goes_unless_it_is_declared() -> None:
    built = snapshot.build([POD, POLICY])
    found = snapshot.edited(built, snapshot.Edits(pods={("x", "a"): None}), declared={}, problems=())
    assert list(found.namespaces) == ["y"]
