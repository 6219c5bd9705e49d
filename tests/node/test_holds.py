"""The life of a hold: from a name that appears to a pod that is known, and all that can come between."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import endpoint
from agent.node import holds

NAME = "cni-01234567-89ab-cdef-0123-456789abcdef"
OTHER = "01234567-89ab-cdef-0123-456789abcdee"
IDENTITY = endpoint.Sandbox(
    namespace="x", pod="a", uid="u", netns_cookie=7, veth_ifindex=0, ingress_ifindex=0, attached=False
)
POD = dataclasses.replace(
    IDENTITY, veth_ifindex=3, ingress_ifindex=3, addresses=(ipaddress.ip_address("10.0.0.2"),), attached=True
)
HELD = endpoint.Sandbox(
    namespace="", pod=NAME, uid="", netns_cookie=7, veth_ifindex=0, ingress_ifindex=0, attached=False
)
EMPTY = holds.Look()
BOUND = holds.Look(present={NAME: 7})


def seconds(moment: float) -> int:
    return int(moment * 1e9)


def lived(*looks: tuple[float, holds.Look]) -> holds.Followed:
    """Follow looks at their moments, in seconds; what follows from the last."""
    followed = holds.Followed(ledger=holds.Ledger())
    for moment, look in looks:
        followed = holds.follow(followed.ledger, look, now_ns=seconds(moment))
    return followed


def explained(sandbox: endpoint.Sandbox, cookie: int | None = 7) -> holds.Look:
    return holds.Look(present={NAME: cookie}, explained={NAME: sandbox})


def test_a_namespace_that_appears_is_held_by_its_cookie_alone() -> None:
    """Rule A45."""
    followed = lived((0, EMPTY), (1, BOUND))
    assert followed.sandboxes == (HELD,)
    assert followed.due_ns == seconds(1 + holds.HOLD_LIMIT_S)


@pytest.mark.parametrize("known", [IDENTITY, POD])
def test_whatever_explains_it_ends_the_hold(known: endpoint.Sandbox) -> None:
    followed = lived((0, EMPTY), (1, BOUND), (2, explained(known)))
    assert (followed.sandboxes, followed.problems, followed.due_ns) == ((), (), None)


def test_what_was_there_before_the_agent_is_never_held() -> None:
    assert lived((0, BOUND)).sandboxes == ()
    assert lived((0, BOUND), (1, BOUND)) == holds.Followed(ledger=lived((0, BOUND)).ledger)


def test_a_hold_ends_after_its_limit_and_a_problem_says_so_while_the_namespace_is_there() -> None:
    first = (1.0, BOUND)
    limit = 1 + holds.HOLD_LIMIT_S
    assert lived((0, EMPTY), first, (limit - 0.1, BOUND)).sandboxes == (HELD,)
    for moment in (limit, limit + 1000):
        followed = lived((0, EMPTY), first, (moment, BOUND))
        assert (followed.sandboxes, followed.due_ns) == ((), None)
        (problem,) = followed.problems
        assert (problem.ref.name, "not held any longer" in problem.reason) == (NAME, True)
    assert lived((0, EMPTY), first, (limit, BOUND), (limit + 1, EMPTY)).problems == ()


def test_a_pod_that_is_explained_after_the_limit_is_a_pod_like_every_other() -> None:
    followed = lived((0, EMPTY), (1, BOUND), (500, BOUND), (501, explained(POD)))
    assert (followed.sandboxes, followed.problems) == ((), ())


def test_a_file_that_is_no_namespace_yet_is_asked_again_for_a_while() -> None:
    bare = holds.Look(present={NAME: None})
    assert lived((0, EMPTY), (1, bare)).unbound
    assert not lived((0, EMPTY), (1, bare), (1 + holds.BIND_LIMIT_S, bare)).unbound
    assert not lived((0, bare), (0.1, bare)).unbound, "a leftover"
    assert lived((0, EMPTY), (1, bare), (1.01, BOUND)).sandboxes == (HELD,)


def test_what_has_no_cookie_cannot_be_held() -> None:
    followed = lived((0, EMPTY), (1, holds.Look(present={NAME: 0})))
    assert (followed.sandboxes, followed.problems, followed.unbound) == ((), (), False)


def test_cni_del_takes_addresses_and_interface_at_once_and_the_policy_only_with_the_namespace() -> None:
    """Rule A49: the result goes first, the namespace up to 150 ms later."""
    followed = lived((0, EMPTY), (1, explained(POD)), (2, BOUND))
    assert followed.sandboxes == (IDENTITY,)
    assert lived((0, EMPTY), (1, explained(POD)), (2, BOUND), (3, EMPTY)).sandboxes == ()


def test_that_holds_for_pods_the_agent_found_at_its_start() -> None:
    assert lived((0, explained(POD)), (1, BOUND)).sandboxes == (IDENTITY,)


def test_a_pod_that_lost_its_result_keeps_its_policy_and_is_told_of() -> None:
    late = 1 + holds.HOLD_LIMIT_S
    followed = lived((0, explained(POD)), (1, explained(POD)), (late, BOUND))
    assert followed.sandboxes == (IDENTITY,)
    (problem,) = followed.problems
    assert (str(problem.ref), "delete the pod" in problem.reason) == ("Pod x/a", True)


def test_another_namespace_of_the_same_name_is_another_namespace() -> None:
    followed = lived((0, EMPTY), (1, explained(POD)), (2, holds.Look(present={NAME: 8})))
    assert followed.sandboxes == (dataclasses.replace(HELD, netns_cookie=8),)
    assert lived((0, EMPTY), (1, explained(POD)), (2, holds.Look(present={NAME: None}))).sandboxes == ()


def test_each_namespace_has_its_own_time() -> None:
    both = holds.Look(present={NAME: 7, OTHER: 9})
    followed = lived((0, EMPTY), (1, BOUND), (50, both), (1 + holds.HOLD_LIMIT_S, both))
    assert [one.pod for one in followed.sandboxes] == [OTHER]
    assert [problem.ref.name for problem in followed.problems] == [NAME]
    assert followed.due_ns == seconds(50 + holds.HOLD_LIMIT_S)


LOOKS = st.sampled_from(
    [EMPTY, BOUND, holds.Look(present={NAME: None}), holds.Look(present={NAME: 8}), explained(IDENTITY), explained(POD)]
)


@given(st.lists(st.tuples(st.floats(0, 200), LOOKS), min_size=1, max_size=12))
def test_whatever_happens_nothing_unexplained_has_an_address_and_nothing_unknown_is_held_for_ever(
    steps: list[tuple[float, holds.Look]],
) -> None:
    moment, ledger = 0.0, holds.Ledger()
    for pause, look in steps:
        moment += pause
        followed = holds.follow(ledger, look, now_ns=seconds(moment))
        assert followed == holds.follow(followed.ledger, look, now_ns=seconds(moment)), "a second look changes nothing"
        ledger = followed.ledger
        assert all(one.addresses == () and not one.attached for one in followed.sandboxes)
        assert {one.netns_cookie for one in followed.sandboxes} <= set(look.present.values())
        later = holds.follow(ledger, look, now_ns=seconds(moment + holds.HOLD_LIMIT_S))
        assert all(one.identified for one in later.sandboxes)
        assert later.due_ns is None
