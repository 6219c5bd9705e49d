"""What a packet costs the learner, by BPF_PROG_TEST_RUN.

An answer counts once, so a program that asks the question before each (asked.bpf.c) is run many times in the kernel,
and what asking costs is taken off.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import os
import pathlib
import statistics
import tempfile
from collections.abc import Iterator

from agent.datapath.bpf import dns_loader, packet_loader, syscalls
from tests.bpf import judge
from tests.bpf.dns import connections, rig, wire

SOURCE = pathlib.Path(__file__).parent / "asked.bpf.c"
FLAGS = {dns_loader.Variant.LOOP: (), dns_loader.Variant.PLAIN: ("-DNW_PLAIN_LOOPS",)}
ASK, ASKED = "nw_ask", "nw_asked"
ASK_AGAIN, ASKED_AGAIN = "nw_ask_again", "nw_asked_again"
FIRST = ipaddress.ip_address("198.18.0.1")
RECORDS = (1, 4, 32)


@contextlib.contextmanager
def asking(learner: rig.Learner, variant: dns_loader.Variant) -> Iterator[dict[str, int]]:
    """Load the programs that ask by themselves, over the learner's maps."""
    pins = learner.directory / "asking"
    pins.mkdir()
    try:
        with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as opened:
            built = pathlib.Path(directory) / "asked.bpf.o"
            judge.build(SOURCE, built, *FLAGS[variant])
            names = packet_loader.load(
                built,
                kind=packet_loader.ProgramType.SCHED_CLS,
                map_pins=learner.directory,
                program_pins=pins,
            )
            yield {name: opened.enter_context(syscalls.owned(syscalls.open_pin(pins / name))) for name in names}
    finally:
        for path in pins.iterdir():
            path.unlink()
        pins.rmdir()


def reply_of(records: int, *, port: int = wire.PORT, name: str = rig.NAME) -> bytes:
    """Return the frame of an answer with so many addresses."""
    return wire.frame(rig.RESOLVER4, rig.POD4, (port, rig.CLIENT_PORT), _answer(records, name))


def nanoseconds(program: int, frame: bytes, *, repeat: int, rounds: int) -> float:
    """Return the median, over rounds, of the mean time of one run."""
    return statistics.median(
        syscalls.program_test_run(program, frame, repeat=repeat).nanoseconds for _ in range(rounds)
    )


def answer_ns(programs: dict[str, int], frame: bytes, *, repeat: int, rounds: int) -> float:
    """Return what the answer alone takes."""
    return _behind(programs, (ASK, ASKED), frame, repeat=repeat, rounds=rounds)


def segment_ns(
    learner: rig.Learner, programs: dict[str, int], records: int, share: float, *, repeat: int, rounds: int
) -> float:
    """Return what the segment takes that brings the last share of an answer, and so completes it."""
    stream = wire.prefixed(_answer(records, rig.NAME))
    cut = round(len(stream) * (1 - share))
    connection = connections.opened(dataclasses.replace(learner, programs=programs))
    connection.ask(wire.asked_by(stream[2:]))
    for begin, end in ((0, cut), (cut, len(stream))):
        assert connection.send(connections.Way.ANSWERS, begin, stream[begin:end])
    number = connection.first[connections.Way.ANSWERS] + 1 + cut
    frame = connection.frame(connections.Way.ANSWERS, number, stream[cut:], wire.PUSH | wire.ACK)
    return _behind(programs, (ASK_AGAIN, ASKED_AGAIN), frame, repeat=repeat, rounds=rounds)


def _behind(programs: dict[str, int], names: tuple[str, str], frame: bytes, *, repeat: int, rounds: int) -> float:
    """Return what the second program takes more than the first one, on one processor, which knows the last message."""
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        first, both = (nanoseconds(programs[name], frame, repeat=repeat, rounds=rounds) for name in names)
    finally:
        os.sched_setaffinity(0, usable)
    return both - first


def _answer(records: int, name: str) -> bytes:
    return wire.answer(name, *(wire.address(FIRST + index, 3600) for index in range(records)))
