"""What a packet costs the learner, by BPF_PROG_TEST_RUN.

An answer counts once, so a program that asks the question before each (asked.bpf.c) is run many times in the kernel,
and what asking costs is taken off.
"""

from __future__ import annotations

import contextlib
import ipaddress
import pathlib
import statistics
import tempfile
from collections.abc import Iterator

from agent.datapath.bpf import dns_loader, packet_loader, syscalls
from tests.bpf import judge
from tests.bpf.dns import rig, wire

SOURCE = pathlib.Path(__file__).parent / "asked.bpf.c"
FLAGS = {dns_loader.Variant.LOOP: (), dns_loader.Variant.PLAIN: ("-DNW_PLAIN_LOOPS",)}
ASK, ASKED = "nw_ask", "nw_asked"
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
    answer = wire.answer(name, *(wire.address(FIRST + index, 3600) for index in range(records)))
    return wire.frame(rig.RESOLVER4, rig.POD4, (port, rig.CLIENT_PORT), answer)


def nanoseconds(program: int, frame: bytes, *, repeat: int, rounds: int) -> float:
    """Return the median, over rounds, of the mean time of one run."""
    return statistics.median(
        syscalls.program_test_run(program, frame, repeat=repeat).nanoseconds for _ in range(rounds)
    )


def answer_ns(programs: dict[str, int], frame: bytes, *, repeat: int, rounds: int) -> float:
    """Return what the answer alone takes."""
    both = nanoseconds(programs[ASKED], frame, repeat=repeat, rounds=rounds)
    return both - nanoseconds(programs[ASK], frame, repeat=repeat, rounds=rounds)
