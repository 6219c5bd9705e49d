"""What is kept of what was learned: F9, F19, F21 and F26, as the kernel decides them."""

from __future__ import annotations

import ipaddress
import itertools
import sys
import time
from collections.abc import Iterable

import pytest

from agent.datapath.bpf import dns_loader, fqdn_layout, fqdn_maps, rows
from tests.bpf.dns import rig, wire

pytestmark = pytest.mark.root

FIRST = ipaddress.ip_address("198.18.0.0")
NAMES = [f"n{index}.example.net" for index in range(6)]
CLASS = [0x80000100 + index for index in range(6)]


def _learns(learner: rig.Learner, numbers: Iterable[int], *, ttl: int = 600) -> None:
    for batch in _batched(numbers):
        learner.exchange(wire.answer(rig.NAME, *(wire.address(FIRST + number, ttl) for number in batch)))


def _known(learner: rig.Learner, endpoint: int = rig.ENDPOINT) -> set[int]:
    return {int(one.address) - int(FIRST) for one in learner.learned() if one.endpoint == endpoint}


def _batched(numbers: Iterable[int]) -> Iterable[list[int]]:
    left = iter(numbers)
    while batch := list(itertools.islice(left, 200)):
        yield batch


def test_an_endpoint_has_4096_addresses_and_the_oldest_go_first(learner: rig.Learner) -> None:
    """F21: exactly so many; what is pushed out is its own, and counted."""
    learner.be(rig.NEIGHBOUR)
    _learns(learner, range(3))
    learner.be(rig.ENDPOINT)
    before = learner.fqdn.counters()["evicted"]
    _learns(learner, range(4096))
    assert _known(learner) == set(range(4096))
    assert learner.fqdn.counters()["evicted"] == before
    _learns(learner, range(5000, 5300))
    known = _known(learner)
    assert len(known) == 4096
    assert known >= set(range(5000, 5300)) | set(range(400, 4096))
    assert learner.fqdn.counters()["evicted"] == before + 300
    assert _known(learner, rig.NEIGHBOUR) == {0, 1, 2}


def test_what_has_expired_goes_before_what_counts(learner: rig.Learner) -> None:
    """F21: an address that is asked for again and again stays, however old it is."""
    _learns(learner, [0])
    _learns(learner, range(1, 4096), ttl=0)
    before = learner.fqdn.counters()["evicted"]
    _learns(learner, range(5000, 5100))
    _learns(learner, range(6000, 9990), ttl=0)
    assert _known(learner) >= {0, *range(5000, 5100)}
    assert learner.fqdn.counters()["evicted"] == before


def _use(learner: rig.Learner, ages: dict[int, float]) -> None:
    """Have flows have used these addresses so many seconds ago."""
    descriptor, now_ns = learner.fqdn.descriptor("fqdn_learned"), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    for number, age_s in ages.items():
        key = fqdn_layout.encode_learned_key(rig.ENDPOINT, FIRST + number)
        raw = rows.lookup(descriptor, key, fqdn_layout.LEARNED_VALUE.size)
        assert raw is not None
        *of, _, place = fqdn_layout.LEARNED_VALUE.unpack(raw)
        rows.update(descriptor, key, fqdn_layout.LEARNED_VALUE.pack(*of, now_ns - round(age_s * 1e9), place))


def test_what_connections_use_outlives_what_has_expired_and_is_used_by_none(learner: rig.Learner) -> None:
    """F17: their addresses expire like any other, and are needed still; but they make room for what counts."""
    before = learner.fqdn.counters()["evicted"]
    _learns(learner, range(4096), ttl=0)
    _use(learner, {number: 100 + number % 8 for number in range(0, 4096, 2)})
    _learns(learner, range(5000, 7000))
    assert _known(learner) >= {*range(0, 3900, 2), *range(5000, 7000)}
    _learns(learner, range(7000, 9000))
    known = _known(learner)
    assert known >= set(range(5000, 9000)), "none of those that count made room"
    assert learner.fqdn.counters()["evicted"] == before


def test_of_those_that_were_used_the_one_that_was_not_for_longest_makes_room(learner: rig.Learner) -> None:
    _learns(learner, range(4096), ttl=0)
    _use(learner, {number: 1000 if number % 8 == 5 else 10 for number in range(4096)})
    _learns(learner, range(5000, 5300))
    gone = set(range(4096)) - _known(learner)
    assert len(gone) == 300
    assert {number % 8 for number in gone} == {5}


def test_a_class_that_takes_anothers_place_does_not_take_its_datagrams(learner: rig.Learner) -> None:
    """F8, F18."""
    _names(learner, {0: 60, 1: 90, 2: 90, 3: 90})
    descriptor = learner.fqdn.descriptor("fqdn_learned")
    key = fqdn_layout.encode_learned_key(rig.ENDPOINT, FIRST)
    raw = rows.lookup(descriptor, key, fqdn_layout.LEARNED_VALUE.size)
    assert raw is not None
    words = list(fqdn_layout.LEARNED_VALUE.unpack(raw))
    words[1 : fqdn_layout.CLASS_WORDS * fqdn_layout.CLASSES : fqdn_layout.CLASS_WORDS] = [7, 8, 9, 10]
    rows.update(descriptor, key, fqdn_layout.LEARNED_VALUE.pack(*words))
    _names(learner, {1: 120, 4: 90})
    raw = rows.lookup(descriptor, key, fqdn_layout.LEARNED_VALUE.size)
    assert raw is not None
    words = list(fqdn_layout.LEARNED_VALUE.unpack(raw))
    assert words[0] == CLASS[4]
    assert words[1 : fqdn_layout.CLASS_WORDS * fqdn_layout.CLASSES : fqdn_layout.CLASS_WORDS] == [0, 8, 9, 10]


def test_no_place_is_lost_or_counted_twice(learner: rig.Learner) -> None:
    """F21: however often addresses come back and rows are deleted, rows and places match."""
    for begin in (0, 3000, 1500, 6000):
        _learns(learner, range(begin, begin + 2000), ttl=begin % 2000)
        descriptor = learner.fqdn.descriptor("fqdn_learned")
        rows.delete_batch(descriptor, [key for key, _ in rows.dump(descriptor)][::3])
    learned = dict(rows.dump(learner.fqdn.descriptor("fqdn_learned")))
    places = dict(rows.dump(learner.fqdn.descriptor("fqdn_places")))
    assert len(places) <= fqdn_layout.ADDRESSES_MAX
    for key, value in learned.items():
        endpoint, address = fqdn_layout.LEARNED_KEY.unpack(key)
        place = fqdn_layout.LEARNED_VALUE.unpack(value)[-1]
        assert places[fqdn_layout.PLACE_KEY.pack(endpoint, place)] == address


def _names(learner: rig.Learner, ttls: dict[int, int]) -> dict[int, int]:
    """Have one address under several names; return the classes and how long they count."""
    for index, ttl in ttls.items():
        learner.know(NAMES[index], exact=CLASS[index])
        learner.exchange(wire.answer(NAMES[index], wire.address(FIRST, ttl)))
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return {CLASS.index(one.class_): round((one.expires_ns - now_ns) / 1e9) for one in learner.learned()}


def test_names_that_share_an_address_each_count_for_their_own_time(learner: rig.Learner) -> None:
    """F8, F19."""
    assert _names(learner, {0: 60, 1: 30, 2: 90, 3: 10}) == {0: 60, 1: 30, 2: 90, 3: 10}
    assert _names(learner, {1: 200, 2: 5}) == {0: 60, 1: 200, 2: 90, 3: 10}


def test_the_name_that_expires_soonest_makes_room_for_a_fifth(learner: rig.Learner) -> None:
    before = learner.fqdn.counters()["class_evicted"]
    learner.fqdn.count(CLASS)
    assert _names(learner, {0: 60, 1: 30, 2: 90, 3: 40, 4: 20}) == {0: 60, 4: 20, 2: 90, 3: 40}
    assert learner.fqdn.counters()["class_evicted"] == before + 1


def test_the_names_of_policies_that_are_gone_make_room_first(learner: rig.Learner) -> None:
    """What is replayed for one address expires all at once: time alone would have it push out itself (F26)."""
    before = learner.fqdn.counters()["class_evicted"]
    learner.fqdn.count(CLASS[:4])
    assert _names(learner, {0: 60, 1: 60, 2: 60, 3: 60}) == {0: 60, 1: 60, 2: 60, 3: 60}
    learner.fqdn.count(CLASS[4:6])
    learner.fqdn.count_only([CLASS[0], CLASS[4], CLASS[5]])
    assert _names(learner, {4: 60, 5: 60}) == {0: 60, 3: 60, 4: 60, 5: 60}
    assert learner.fqdn.counters()["class_evicted"] == before, "nobody misses them"


def test_no_more_classes_count_than_there_is_room_for(learner: rig.Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fqdn_maps, "COUNTING", 3)
    learner.fqdn.count(CLASS[:2])
    learner.fqdn.count(CLASS)
    descriptor = learner.fqdn.descriptor("fqdn_counting")
    assert len(list(rows.dump(descriptor))) == 3
    learner.fqdn.count_only(CLASS[3:4])
    assert [key for key, _ in rows.dump(descriptor)] == [CLASS[3].to_bytes(4, sys.byteorder)]


def test_history_is_replayed_by_the_rules_of_answers(learner: rig.Learner) -> None:
    """F26, F19: nothing is shortened, nothing of an answer that comes meanwhile is lost."""
    learner.exchange(wire.answer(rig.NAME, wire.address(FIRST, 500)))
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    old = [
        fqdn_layout.Learned(endpoint=rig.ENDPOINT, address=FIRST + index, class_=class_, expires_ns=now_ns + 60 * 10**9)
        for index in range(150)
        for class_ in (rig.API, CLASS[0])
    ]
    six = fqdn_layout.Learned(endpoint=rig.NEIGHBOUR, address=rig.POD6, class_=CLASS[1], expires_ns=now_ns + 10 * 10**9)
    assert fqdn_maps.replay(learner.programs[dns_loader.REPLAY], [*old, six]) == 0
    found = {(one.endpoint, one.address, one.class_): one.expires_ns for one in learner.learned()}
    assert len(found) == 301
    assert found[rig.ENDPOINT, FIRST, rig.API] > now_ns + 400 * 10**9
    assert found[rig.ENDPOINT, FIRST, CLASS[0]] == now_ns + 60 * 10**9
    assert found[rig.NEIGHBOUR, rig.POD6, CLASS[1]] == now_ns + 10 * 10**9


def test_an_endpoint_that_is_gone_leaves_nothing(learner: rig.Learner) -> None:
    _learns(learner, range(10))
    learner.ask(wire.query(rig.NAME))
    learner.be(rig.NEIGHBOUR)
    _learns(learner, range(5))
    learner.fqdn.forget(rig.ENDPOINT)
    assert _known(learner) == set()
    assert len(_known(learner, rig.NEIGHBOUR)) == 5
    assert [
        len(list(rows.dump(learner.fqdn.descriptor(f"fqdn_{name}")))) for name in ("places", "hands", "pending")
    ] == [*(5, 1, 0)]
