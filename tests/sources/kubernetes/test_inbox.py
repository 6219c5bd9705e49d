"""The inbox: in order, bounded, and no thread waits for ever."""

from __future__ import annotations

import threading

import pytest

from agent.sources.kubernetes import api, deltas, inbox


def heard(version: int) -> deltas.Heard:
    return deltas.Heard(resource=api.Resource.PODS, version=str(version), unix_ns=0)


def test_what_is_put_is_taken_in_order_and_once() -> None:
    filled = inbox.Inbox(wake=lambda: None)
    for version in range(3):
        filled.put(heard(version))
    assert filled.take() == (heard(0), heard(1), heard(2))
    assert filled.take() == ()


def test_the_loop_is_woken_once_until_it_takes() -> None:
    wakes: list[None] = []
    filled = inbox.Inbox(wake=lambda: wakes.append(None))
    filled.put(heard(0))
    filled.put(heard(1))
    assert len(wakes) == 1
    filled.take()
    filled.put(heard(2))
    assert len(wakes) == 2


def test_a_full_inbox_holds_the_thread_and_counts_it() -> None:
    filled = inbox.Inbox(wake=lambda: None, limit=2)

    def put() -> None:
        for version in range(5):
            filled.put(heard(version))

    thread = threading.Thread(target=put)
    thread.start()
    taken: list[deltas.Delta] = []
    while len(taken) < 5:
        some = filled.take()
        assert len(some) <= 2
        taken.extend(some)
    thread.join()
    assert taken == [heard(version) for version in range(5)]
    assert filled.waits >= 1


def test_who_waits_for_room_is_let_go_at_the_end() -> None:
    filled = inbox.Inbox(wake=lambda: None, limit=1)
    filled.put(heard(0))
    ended: list[str] = []

    def put() -> None:
        try:
            filled.put(heard(1))
        except inbox.Closed:
            ended.append("closed")

    thread = threading.Thread(target=put)
    thread.start()
    filled.close()
    thread.join()
    assert ended == ["closed"]
    with pytest.raises(inbox.Closed):
        filled.put(heard(2))
