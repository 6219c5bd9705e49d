"""What is asked of the runtime, and what follows where it and the CNI cache know different things."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib

from hypothesis import given
from hypothesis import strategies as st

from agent.node import cni_cache, joining
from agent.node.cri import crosscheck, messages
from tests.node.cri import answers

A = messages.Listed(id="c-a", namespace="x", pod="a", uid="u-1")
CACHED = cni_cache.Attachment(
    namespace="x",
    pod="a",
    uid="u-1",
    container="c-a",
    interface="eth0",
    netns=pathlib.Path(answers.INSIDE),
    host_interfaces=("veth1a2b",),
    addresses=(ipaddress.ip_address("10.0.0.2"), ipaddress.ip_address("fd00::2")),
)
LOOPBACK = dataclasses.replace(CACHED, interface="lo", host_interfaces=(), addresses=())
STATUS = messages.decode_status(answers.status("c-a"))
NOTHING = crosscheck.Known()
Cached = tuple[cni_cache.Attachment, ...]


def lists(known: crosscheck.Known, count: int, *answer: messages.Listed, cached: Cached = ()) -> crosscheck.Known:
    for _ in range(count):
        known = crosscheck.heard_list(known, answer, cached)
    return known


def test_nothing_is_asked_of_what_the_cache_explains() -> None:
    known = lists(NOTHING, 3, A, cached=(CACHED,))
    assert crosscheck.question(known, (CACHED,)) is None
    assert crosscheck.view(known, (CACHED,)) == joining.RuntimeView()


def test_what_only_the_runtime_knows_is_asked_once_and_stands_in_for_the_cache() -> None:
    for cached in ((), (LOOPBACK,)):
        known = lists(NOTHING, 1, A, cached=cached)
        assert crosscheck.question(known, cached) == "c-a"
        known = crosscheck.heard_status(known, "c-a", STATUS)
        assert crosscheck.question(lists(known, 1, A, cached=cached), cached) is None
        assert crosscheck.view(known, cached) == joining.RuntimeView(attachments=(CACHED,))
    assert crosscheck.view(known, (CACHED,)) == joining.RuntimeView(), "the cache is believed as soon as it says more"
    assert crosscheck.view(lists(known, 1), ()) == joining.RuntimeView(), "no sandbox any more"


def test_a_pod_on_the_nodes_network_is_asked_once_and_is_nobody() -> None:
    known = lists(NOTHING, 1, A)
    known = crosscheck.heard_status(known, "c-a", dataclasses.replace(STATUS, host_network=True, netns=None))
    assert crosscheck.view(known, ()) == joining.RuntimeView()
    assert crosscheck.question(lists(known, 1, A), ()) is None


def test_a_pod_of_which_nobody_says_where_it_is_is_a_problem() -> None:
    known = crosscheck.heard_status(lists(NOTHING, 1, A), "c-a", dataclasses.replace(STATUS, netns=None))
    (problem,) = crosscheck.view(known, ()).problems
    assert (str(problem.ref), "not enforced on" in problem.reason) == ("Pod x/a", True)


def test_a_status_that_cannot_be_had_is_a_problem_and_asked_again_after_the_next_list() -> None:
    known = crosscheck.heard_nothing(lists(NOTHING, 1, A), "c-a", "too hostile")
    assert crosscheck.question(known, ()) is None
    (problem,) = crosscheck.view(known, ()).problems
    assert "too hostile" in problem.reason
    known = lists(known, 1, A)
    assert crosscheck.question(known, ()) == "c-a"
    assert crosscheck.view(crosscheck.heard_status(known, "c-a", STATUS), ()).problems == ()


def test_who_was_asked_longest_ago_is_asked_first() -> None:
    other = dataclasses.replace(A, id="c-0")
    known = crosscheck.heard_nothing(lists(NOTHING, 1, A, other), "c-0", "busy")
    assert crosscheck.question(known, ()) == "c-a"
    known = lists(crosscheck.heard_nothing(known, "c-a", "busy"), 1, A, other)
    assert crosscheck.question(known, ()) == "c-0"


def test_a_sandbox_that_is_not_listed_yet_is_the_rule_at_a_pods_start() -> None:
    """The list has it two seconds after the cache, and eight in a burst."""
    known = lists(NOTHING, crosscheck.MISSED_NEVER_LISTED - 1, cached=(CACHED,))
    assert crosscheck.question(known, (CACHED,)) is None
    assert crosscheck.question(lists(known, 1, cached=(CACHED,)), (CACHED,)) == "c-a"


def test_a_sandbox_that_was_listed_and_is_gone_gives_up_its_addresses() -> None:
    known = lists(lists(NOTHING, 1, A, cached=(CACHED,)), crosscheck.MISSED_AFTER_LISTED, cached=(CACHED,))
    assert crosscheck.view(known, (CACHED,)) == joining.RuntimeView(), "a list alone proves nothing"
    assert crosscheck.question(known, (CACHED,)) == "c-a"
    known = crosscheck.heard_status(known, "c-a", None)
    view = crosscheck.view(known, (CACHED,))
    (problem,) = view.problems
    assert (str(problem.ref), "remove the file" in problem.reason) == ("Pod x/a", True)
    (left,) = joining.by_namespace((CACHED,), view).values()
    assert (left.is_loopback, left.addresses, left.host_interfaces) == (True, (), ())
    assert crosscheck.question(lists(known, 50, cached=(CACHED,)), (CACHED,)) is None
    assert lists(known, 1).gone == frozenset(), "the file is gone too"
    assert lists(known, 1, A, cached=(CACHED,)).gone == frozenset(), "it is there after all"


def test_a_sandbox_that_is_only_not_ready_keeps_all_it_has_and_is_asked_again_later() -> None:
    """Its pause container may have died alone."""
    known = lists(lists(NOTHING, 1, A, cached=(CACHED,)), crosscheck.MISSED_AFTER_LISTED, cached=(CACHED,))
    known = crosscheck.heard_status(known, "c-a", STATUS)
    assert crosscheck.view(known, (CACHED,)) == joining.RuntimeView()
    known = lists(known, crosscheck.MISSED_AFTER_LISTED - 1, cached=(CACHED,))
    assert crosscheck.question(known, (CACHED,)) is None
    assert crosscheck.question(lists(known, 1, cached=(CACHED,)), (CACHED,)) == "c-a"


def test_of_two_that_name_different_pods_the_cache_counts_and_a_problem_says_so() -> None:
    other = dataclasses.replace(A, uid="u-2")
    view = crosscheck.view(lists(NOTHING, 1, other, cached=(CACHED,)), (CACHED,))
    (problem,) = view.problems
    assert (view.attachments, "judged as the cache says" in problem.reason) == ((), True)
    without = dataclasses.replace(CACHED, uid="")
    assert crosscheck.view(lists(NOTHING, 1, other, cached=(without,)), (without,)).problems == ()


def test_the_cache_is_joined_by_the_namespaces_name_however_its_directory_is_spelled() -> None:
    elsewhere = dataclasses.replace(LOOPBACK, netns=pathlib.Path("/run/netns") / LOOPBACK.netns.name)
    (chosen,) = joining.by_namespace((elsewhere,), joining.RuntimeView(attachments=(CACHED,))).values()
    assert chosen == dataclasses.replace(CACHED, netns=elsewhere.netns)


IDS = ("c-a", "c-b")
STEPS = st.one_of(
    st.lists(st.sampled_from(IDS), unique=True).map(lambda ids: ("list", tuple(ids))),
    st.sampled_from([("status", STATUS), ("status", None), ("nothing", "why")]),
)


@given(st.lists(STEPS, max_size=40), st.sampled_from([(), (LOOPBACK,), (CACHED,)]))
def test_whatever_the_runtime_says_it_takes_nothing_from_a_pod_that_it_lists(
    steps: list[tuple[str, object]], cached: Cached
) -> None:
    known = NOTHING
    for kind, what in steps:
        asked = crosscheck.question(known, cached)
        if kind == "list" and isinstance(what, tuple):
            known = crosscheck.heard_list(known, [dataclasses.replace(A, id=key) for key in what], cached)
        elif asked is not None and (what is None or isinstance(what, messages.Status)):
            known = crosscheck.heard_status(known, asked, what)
        elif asked is not None:
            known = crosscheck.heard_nothing(known, asked, str(what))
        view = crosscheck.view(known, cached)
        assert not view.gone & known.listed.keys()
        joined = joining.by_namespace(cached, view)
        if cached == (CACHED,) and not view.gone:
            assert joined == {CACHED.netns: CACHED}
        assert known.statuses.keys() | known.failed.keys() <= known.listed.keys()
