"""F14: whatever an answer holds, it passes, and teaches what a reading of it in plain Python says; no more, no less."""

from __future__ import annotations

import itertools
import time

import pytest

from tests.bpf.dns import mutants, reference, rig, segmented, wire

pytestmark = pytest.mark.root

MESSAGES = 800
STREAMS = 60
SEED = 20
SLACK_S = 1.5


def test_a_spoiled_answer_teaches_what_can_still_be_read(learner: rig.Learner) -> None:
    learner.know("a.b-c.example_x.net", exact=rig.API + 1)
    expected, begin = {}, time.clock_gettime(time.CLOCK_BOOTTIME)
    for endpoint, message in enumerate(itertools.islice(mutants.mutants(SEED), MESSAGES), start=0x1000):
        learner.be(endpoint)
        learner.exchange(message)
        expected[endpoint] = (message, reference.taught(message, mutants.NAMES))
    slack = time.clock_gettime(time.CLOCK_BOOTTIME) - begin + SLACK_S
    found: dict[int, dict[str, float]] = {endpoint: {} for endpoint in expected}
    for one in learner.learned():
        found[one.endpoint][str(one.address)] = one.expires_ns / 1e9 - begin
    for endpoint, (message, taught) in expected.items():
        assert found[endpoint].keys() == taught.keys(), message
        for address, ttl in taught.items():
            assert ttl <= found[endpoint][address] <= ttl + slack, message
    assert sum(map(bool, found.values())) > MESSAGES / 5, "enough of them still teach something"


def test_streams_in_any_segments_teach_what_each_answer_does(learner: rig.Learner) -> None:
    """F28; `python -m tests.bpf.dns streams` has as many as one likes."""
    found = segmented.run(learner, streams=STREAMS, seed=SEED)
    assert found.wrong == []
    assert found.taught > STREAMS
    assert found.dropped > STREAMS / 2


def test_the_reference_reads_what_the_writer_wrote() -> None:
    taught = [reference.taught(message, mutants.NAMES) for message in mutants.TRUE]
    assert taught[0] == {"203.0.113.7": 60}
    assert taught[1] == {"203.0.113.7": 0, "203.0.113.8": 1, "203.0.113.9": 2, "203.0.113.10": 3, "2001:db8::7": 60}
    assert taught[2] == {"203.0.113.7": 7}
    assert taught[3] == {"2001:db8::7": 30}
    assert taught[4] == {"203.0.113.7": 60}
    assert len(taught[5]) == 40
    assert reference.taught(wire.answer("other.net", wire.address(mutants.FOUR)), mutants.NAMES) == {}
