"""The state machine: what is asked next after each way a request can end, and how long after."""

from __future__ import annotations

import threading
import time

import pytest

from agent.sources.kubernetes import api, backoff, connection, deltas, reflector, wire
from tests.sources.kubernetes import scripted

LIST = scripted.page(scripted.pod("a", 3), version=7)
STEADY = backoff.STEADY_S + 1


def test_a_list_is_told_whole_then_watched_from_its_version() -> None:
    run = scripted.Run(pages=[LIST])
    assert run.asked == ["list"]
    assert run.connection.asked[-1] == "watch 7"
    (listed,) = run.told
    assert isinstance(listed, deltas.Listed)
    assert (listed.version, list(listed.entries)) == ("7", [("x", "a")])
    assert listed.entries["x", "a"].version == "3"


def test_pages_are_one_list_and_the_first_ones_version_counts() -> None:
    pages = [
        scripted.page(scripted.pod("a", 1), version=7, continue_="more"),
        scripted.page(scripted.pod("b", 2), version=7, continue_="still"),
        scripted.page(version=7),
    ]
    run = scripted.Run(pages=pages)
    assert run.asked == ["list", "list more", "list still"]
    (listed,) = run.told
    assert isinstance(listed, deltas.Listed)
    assert sorted(listed.entries) == [("x", "a"), ("x", "b")]
    assert run.reflector.counters["pages"] == 3


def test_an_expired_continue_token_starts_the_list_again_and_tells_nothing_of_the_half() -> None:
    first = scripted.page(scripted.pod("a", 1), version=7, continue_="more")
    again = scripted.page(scripted.pod("b", 8), version=9)
    run = scripted.Run(pages=[first, connection.Gone("410 Expired"), again])
    assert run.asked == ["list", "list more", "list"]
    lists = [one for one in run.told if isinstance(one, deltas.Listed)]
    assert [list(one.entries) for one in lists] == [[("x", "b")]]


def test_changes_are_told_in_order() -> None:
    said = [
        scripted.event("ADDED", scripted.pod("b", 8)),
        scripted.event("MODIFIED", scripted.pod("a", 9)),
        scripted.event("DELETED", scripted.pod("b", 10)),
    ]
    run = scripted.Run(pages=[LIST], watches=[[*said, STEADY]])
    assert run.changes == [("b", "8"), ("a", "9"), ("b", "-")]


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ([], "7"),
        ([scripted.event("ADDED", scripted.pod("b", 8))], "8"),
        ([scripted.event("DELETED", scripted.pod("a", 9))], "9"),
        ([scripted.bookmark(12)], "12"),
    ],
)
def test_a_watch_that_ended_is_resumed_at_once_after_the_last_thing_told(said: list[bytes], version: str) -> None:
    run = scripted.Run(pages=[LIST], watches=[[*said, STEADY]])
    assert run.connection.asked == ["list", "watch 7", f"watch {version}"]
    assert run.waits == []
    assert run.lost == []


@pytest.mark.parametrize("gone", [connection.Gone("410"), [STEADY, scripted.error(410)], [scripted.error(410)]])
def test_a_version_the_server_forgot_is_listed_anew(gone: scripted.Watch) -> None:
    run = scripted.Run(pages=[LIST, LIST], watches=[gone])
    assert run.asked == ["list", "watch 7", "list"]
    assert run.waits == [backoff.FIRST_S]
    assert run.reflector.counters["gone"] == 1


def test_a_version_from_the_future_is_listed_anew() -> None:
    run = scripted.Run(pages=[LIST, LIST], watches=[[scripted.error(504, "Too large resource version: 9, current: 2")]])
    assert run.asked == ["list", "watch 7", "list"]


@pytest.mark.parametrize(
    "broken", [connection.Failed("refused"), [STEADY, connection.Failed("reset")], [STEADY, scripted.error(500)]]
)
def test_any_other_failure_keeps_the_version(broken: scripted.Watch) -> None:
    run = scripted.Run(pages=[LIST], watches=[broken])
    assert run.connection.asked == ["list", "watch 7", "watch 7"]
    assert len(run.lost) == 1
    assert run.waits == [backoff.FIRST_S]


def test_failures_in_a_row_wait_longer_and_a_steady_watch_ends_the_row() -> None:
    refused = connection.Failed("refused")
    run = scripted.Run(pages=[LIST], watches=[refused, refused, refused, [STEADY, refused], refused, [STEADY], refused])
    first = backoff.FIRST_S
    assert run.waits == pytest.approx([first, first * 2, first * 4, first, first * 2, first])


def test_lists_that_fail_wait_longer_too() -> None:
    run = scripted.Run(pages=[connection.Failed("refused")] * 4)
    assert run.waits == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert [type(one) for one in run.told] == [deltas.Lost] * 4


def test_watches_that_end_well_but_at_once_wait_longer_too() -> None:
    run = scripted.Run(pages=[LIST], watches=[[], [], [scripted.bookmark(8)], []])
    assert run.waits == pytest.approx([0.2, 0.4, 0.8, 1.6])
    assert run.lost == []


def test_the_servers_retry_after_is_kept() -> None:
    run = scripted.Run(pages=[LIST], watches=[connection.Failed("429", asked_s=9.0)])
    assert run.waits == [pytest.approx(9.0 * 1.25)]
    assert run.firm


def test_a_silent_watch_is_opened_anew_at_once() -> None:
    run = scripted.Run(pages=[LIST], watches=[[100.0, connection.Idle("nothing came")]])
    assert run.connection.asked == ["list", "watch 7", "watch 7"]
    assert run.waits == []
    assert run.reflector.counters["idle"] == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        b"<html>",
        b"{}",
        b"null",
        scripted.event("CHANGED", scripted.pod("b", 8)),
        scripted.event("ADDED", {"metadata": {"name": "b"}}),
        scripted.event("BOOKMARK", {"metadata": {}}),
        b"[" * 100_000,
    ],
)
def test_an_answer_that_is_not_the_apis_ends_the_watch_and_is_listed_anew(nonsense: bytes) -> None:
    good = scripted.event("ADDED", scripted.pod("b", 8))
    run = scripted.Run(pages=[LIST, LIST], watches=[[good, nonsense, good]])
    assert run.asked == ["list", "watch 7", "list"]
    assert run.changes == [("b", "8")]
    assert len(run.lost) == 1


@pytest.mark.parametrize(
    "nonsense", [b"", b"<html>", b'{"metadata":{}}', b'{"metadata":{"resourceVersion":""},"items":[]}']
)
def test_a_list_that_is_not_the_apis_tells_nothing(nonsense: bytes) -> None:
    run = scripted.Run(pages=[nonsense, LIST])
    assert run.asked == ["list", "list"]
    assert len([one for one in run.told if isinstance(one, deltas.Listed)]) == 1


def test_null_items_are_no_items() -> None:
    run = scripted.Run(pages=[b'{"metadata":{"resourceVersion":"1"},"items":null}'])
    (listed,) = run.told
    assert isinstance(listed, deltas.Listed)
    assert not listed.entries


def test_a_fault_of_our_own_does_not_end_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a mistake")

    monkeypatch.setattr(wire, "status", fail)
    run = scripted.Run(pages=[LIST, LIST], watches=[[scripted.error(500)]])
    assert run.asked == ["list", "watch 7", "list"]
    assert run.lost[0] == "KeyError: 'a mistake'"


CUSTOM = api.Resource.CILIUM_NETWORK_POLICIES
MISSING = connection.NotServed("404 : 404 page not found")


def absences(run: scripted.Run) -> list[type]:
    """Return what was told of there being objects or none, in order."""
    return [type(one) for one in run.told if isinstance(one, deltas.Listed | deltas.Absent)]


def test_a_custom_resource_that_is_not_served_has_no_objects_and_is_asked_for_again_within_a_minute() -> None:
    run = scripted.Run(pages=[MISSING, MISSING, LIST], resource=CUSTOM)
    assert run.asked == ["list", "list", "list"]
    assert absences(run) == [deltas.Absent, deltas.Absent, deltas.Listed]
    assert run.waits == [backoff.ABSENT_S, backoff.ABSENT_S]
    assert run.lost == []
    assert run.reflector.counters["absent"] == 2
    assert "failures" not in run.reflector.counters


def test_waiting_for_a_custom_resource_is_not_cut_short_by_others_that_connect() -> None:
    assert scripted.Run(pages=[MISSING], resource=CUSTOM).firm


def test_a_resource_of_the_api_itself_is_never_taken_for_absent() -> None:
    run = scripted.Run(pages=[MISSING] * 3)
    assert absences(run) == []
    assert run.waits == pytest.approx([0.2, 0.4, 0.8])
    assert len(run.lost) == 3


def test_objects_of_a_definition_that_is_deleted_are_gone_only_when_it_has_been_missing_for_long() -> None:
    """What they deny must not be open for the moment in which a definition is replaced."""
    run = scripted.Run(pages=[LIST, *[MISSING] * 8, LIST], watches=[[STEADY], MISSING], resource=CUSTOM)
    assert absences(run) == [deltas.Listed, deltas.Absent, deltas.Listed]
    assert sum(run.waits[:-1]) > reflector.GONE_S > sum(run.waits[:-2])
    assert run.waits[-1] == backoff.ABSENT_S


@pytest.mark.parametrize("between", [[LIST], [connection.Failed("refused"), MISSING]])
def test_only_what_is_missing_all_the_while_counts_as_gone(between: list[scripted.Answer]) -> None:
    pages = [LIST, *[MISSING] * 7, *between]
    run = scripted.Run(pages=pages, watches=[[STEADY], MISSING, MISSING], resource=CUSTOM)
    assert sum(run.waits) > reflector.GONE_S
    assert deltas.Absent not in absences(run)


def test_the_connection_is_given_back_at_the_end() -> None:
    assert scripted.Run(pages=[LIST]).connection.closed


def test_every_request_and_each_watch_that_began_is_counted() -> None:
    run = scripted.Run(pages=[LIST], watches=[connection.Failed("x"), [STEADY]])
    counters = run.reflector.counters
    assert counters["requests"] == len(run.connection.asked)
    assert (counters["lists"], counters["watches"], counters["failures"]) == (1, 1, 1)


@pytest.mark.parametrize("firm", [True, False])
def test_a_stop_ends_every_pause(firm: bool) -> None:  # noqa: FBT001 - parametrised
    pause = reflector.Interruptible()
    threading.Timer(0.05, pause.stop).start()
    pause.wait(3600, firm=firm)
    assert pause.stopped
    pause.wait(3600, firm=firm)


def test_only_a_pause_that_is_not_firm_is_hurried() -> None:
    pause = reflector.Interruptible()
    pause.hurry()
    timer = threading.Timer(0.05, pause.hurry)
    timer.start()
    began = time.monotonic()
    pause.wait(0.3, firm=True)
    assert time.monotonic() - began >= 0.3
    timer = threading.Timer(0.05, pause.hurry)
    timer.start()
    pause.wait(3600, firm=False)
    assert not pause.stopped


def test_the_paths_are_the_apis() -> None:
    assert api.Resource.PODS.path == "/api/v1/pods"
    assert api.Resource.NETWORK_POLICIES.path == "/apis/networking.k8s.io/v1/networkpolicies"
    assert api.Resource.CILIUM_NETWORK_POLICIES.path == "/apis/cilium.io/v2/ciliumnetworkpolicies"
    assert (
        api.Resource.CLUSTER_NETWORK_POLICIES.path == "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"
    )
