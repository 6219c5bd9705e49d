"""Asks the shipped decision headers in the kernel: a twin program over the pinned maps, run by BPF_PROG_TEST_RUN.

Answers have the form of `memory.Judgement`, so that a test can compare the two word by word.
"""

from __future__ import annotations

import contextlib
import pathlib
import platform
import struct
import subprocess
import tempfile
from collections.abc import Iterator

from agent.datapath import judge as judge_
from agent.datapath import memory
from agent.datapath.bpf import layout, packet_loader, syscalls
from agent.model import net
from agent.model import verdict as verdict_

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SOURCE = REPOSITORY / "tests" / "bpf" / "entry.bpf.c"
PROGRAM = "nw_entry"
ASK_FORWARD, ASK_LOCAL, ASK_CONNECT = 1, 2, 3
QUESTION = struct.Struct("=QI16s16s2s2sBBBB4x")
DECISION = struct.Struct("=IIIBBBx4x")
PADDING = bytes(14)
SILENT = 0


class Judge:
    """Judges flows from the maps pinned in one directory."""

    def __init__(self, program: int) -> None:
        """Use the loaded twin program."""
        self._program = program

    def judge(
        self,
        *,
        client: net.Address,
        server: net.Address,
        protocol: int,
        port: int,
        hook: memory.Hook = memory.Hook.FORWARD,
        established: bool = False,
    ) -> memory.Judgement:
        """Judge a connection as the packet layer does; `established`: a packet of one that both sides know."""
        kind = ASK_FORWARD if hook is memory.Hook.FORWARD else ASK_LOCAL
        _, egress, ingress = self._ask(_question(kind, 0, client, server, (protocol, port, established)))
        return egress if hook is memory.Hook.LOCAL_IN else judge_.first(egress, ingress)

    def judge_connect(self, cookie: int, address: net.Address, protocol: int, port: int) -> memory.Judgement | None:
        """Judge connect() as the socket layer does; None: it passes and nothing is said."""
        server = net.normalize(address)
        verdict, decision, _ = self._ask(_question(ASK_CONNECT, cookie, server, server, (protocol, port, False)))
        return decision if verdict != SILENT else None

    def _ask(self, question: bytes) -> tuple[int, memory.Judgement, memory.Judgement]:
        answer = syscalls.program_test_run(self._program, PADDING + question + bytes(2 * DECISION.size))
        begin = len(PADDING) + QUESTION.size
        first, second = (answer.data[begin + DECISION.size * index :] for index in range(2))
        return (
            answer.verdict,
            _judgement(first, net.Direction.EGRESS),
            _judgement(second, net.Direction.INGRESS),
        )


def _question(kind: int, cookie: int, client: net.Address, server: net.Address, what: tuple[int, int, bool]) -> bytes:
    """Write struct question; `what` is protocol, server port, and whether the connection is established."""
    protocol, port, established = what
    return QUESTION.pack(
        cookie, kind, layout.encode_address(client), layout.encode_address(server), bytes(2),
        port.to_bytes(2, "big"), protocol, server.version, 0, established,
    )  # fmt: skip


def _judgement(raw: bytes, side: net.Direction) -> memory.Judgement:
    """Read struct decision; a side that is no endpoint's says nothing, which counts as not isolated."""
    endpoint, policy_set, rule, direction, verdict, reason = DECISION.unpack_from(raw)
    return memory.Judgement(
        verdict=verdict_.Verdict(verdict or verdict_.Verdict.FORWARDED.value),
        reason=verdict_.Reason(reason or verdict_.Reason.NOT_ISOLATED.value),
        direction=net.Direction(direction) if direction else side,
        endpoint=endpoint,
        rule=rule,
        set=policy_set,
    )


def build(source: pathlib.Path, target: pathlib.Path, *flags: str) -> None:
    """Compile a BPF source as `make setup` does, with these flags besides."""
    command = ["clang", "-target", "bpf", "-mcpu=v3", "-g", "-O2", "-Wall", "-Werror"]
    command += [f"-I{REPOSITORY / 'bpf' / 'include'}", "-idirafter", f"/usr/include/{platform.machine()}-linux-gnu"]
    subprocess.run([*command, *flags, "-c", str(source), "-o", str(target)], check=True)


@contextlib.contextmanager
def opened(map_pins: pathlib.Path) -> Iterator[Judge]:
    """Load the twin program over the maps pinned in `map_pins`."""
    program_pins = map_pins / "judge"
    program_pins.mkdir()
    try:
        with tempfile.TemporaryDirectory() as directory:
            built = pathlib.Path(directory) / "entry.bpf.o"
            build(SOURCE, built)
            packet_loader.load(
                built, kind=packet_loader.ProgramType.SCHED_CLS, map_pins=map_pins, program_pins=program_pins
            )
        with syscalls.owned(syscalls.open_pin(program_pins / PROGRAM)) as program:
            yield Judge(program)
    finally:
        for path in program_pins.iterdir():
            path.unlink()
        program_pins.rmdir()
