"""Verdicts from a ring to collectors: how many arrive, how many are told lost, what the agent takes for it.

The agent's reader, stream, names and gRPC server run in a process of their own, fed by a process that writes raw
events at a fixed rate into a ring laid out as the kernel's, and read by real gRPC clients in others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator

from tests.bench import figures, verdicts_ring

RATES = (20_000, 100_000, 300_000, 800_000)
SECONDS = float(os.environ.get("NODEWALL_BENCH_SECONDS", "10"))
BESIDE_RATE = 20_000
"""At which collectors are compared with each other."""
MANY = 100
STILL = 5
"""Seconds in which nothing more came: then nothing will. Losses are told one kind a second."""
WARM_RATE, WARM_S = 1000, 0.2
"""Offered before anybody collects, so that the agent's counters have a beginning."""
TICK = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What became of one rate."""

    offered: int
    ring_lost: int
    delivered: int
    told_lost: int
    cpu: float
    """Of a core, while it was offered."""
    rss_mib: float
    """At the end."""


def run() -> list[figures.Figure]:
    """Measure each rate with one collector, then one beside a stalled one, then many."""
    found: list[figures.Figure] = []
    for rate in RATES:
        found += _told(f"{rate // 1000}k/s offered, one collector", measure(rate))
    alone, beside = measure(BESIDE_RATE), measure(BESIDE_RATE, stalled=1)
    name = f"{BESIDE_RATE // 1000}k/s, a stalled collector beside it"
    found.append(
        figures.Figure(
            name=f"{name}: delivered to the live one", value=beside.delivered, baseline=alone.delivered, unit="flows"
        )
    )
    found.append(figures.Figure(name=f"{name}: CPU of the agent", value=beside.cpu, baseline=alone.cpu, unit="cores"))
    found.append(figures.Figure(name=f"{name}: RSS", value=beside.rss_mib, baseline=alone.rss_mib, unit="MiB"))
    many = measure(BESIDE_RATE, streams=MANY)
    return found + _told(f"{BESIDE_RATE // 1000}k/s, {MANY} collectors", many, streams=MANY)


def _told(name: str, one: Run, *, streams: int = 1) -> list[figures.Figure]:
    wanted = one.offered * streams
    note = (
        "all accounted for"
        if one.delivered + one.told_lost == wanted
        else (f"{wanted - one.delivered - one.told_lost:,} neither came nor were told")
    )
    return [
        figures.Figure(name=f"{name}: delivered", value=one.delivered, baseline=wanted, unit="flows", note=note),
        figures.Figure(name=f"{name}: told lost", value=one.told_lost, baseline=wanted, unit="flows"),
        figures.Figure(name=f"{name}: CPU of the agent", value=one.cpu, unit="cores"),
        figures.Figure(name=f"{name}: RSS of the agent", value=one.rss_mib, unit="MiB"),
    ]


def measure(rate: int, *, streams: int = 1, stalled: int = 0) -> Run:
    """Offer `rate` verdicts a second for SECONDS."""
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as undo:
        ring, socket = pathlib.Path(directory) / "ring", pathlib.Path(directory) / "state" / "hubble.sock"
        socket.parent.mkdir(mode=0o700)
        verdicts_ring.make(ring)
        wake = os.eventfd(0, os.EFD_NONBLOCK)
        undo.callback(os.close, wake)
        agent = undo.enter_context(_child("verdicts_agent", str(ring), str(wake), str(socket), wake=wake))
        _wait_for(socket)
        _write(ring, wake, WARM_RATE, WARM_S)
        time.sleep(1)
        warm = verdicts_ring.offered(ring)
        if stalled:
            undo.enter_context(_reader(socket, stalled, "stalled"))
        collector = undo.enter_context(_reader(socket, streams))
        cpu, begin = _cpu_s(agent.pid), time.monotonic()
        _write(ring, wake, rate, SECONDS)
        cpu, took = _cpu_s(agent.pid) - cpu, time.monotonic() - begin
        offered, lost = verdicts_ring.offered(ring)
        counts = _settled(collector, since=time.monotonic(), wanted=(offered - warm[0]) * streams)
        rss = _rss_mib(agent.pid)
        return Run(
            offered=offered - warm[0],
            ring_lost=lost - warm[1],
            delivered=counts["flows"],
            told_lost=counts["lost"],
            cpu=cpu / took,
            rss_mib=rss,
        )


def _settled(collector: subprocess.Popen[str], *, since: float, wanted: int) -> dict[str, int]:
    """Return what a collector counted, once all came or nothing came for a while after `since`."""
    assert collector.stdout is not None
    before, still = -1, 0
    for line in collector.stdout:
        counts = json.loads(line)
        total = counts["flows"] + counts["lost"]
        still = still + 1 if total == before and counts["at"] > since else 0
        before = total
        if total >= wanted or still >= STILL:
            return dict(counts)
    raise AssertionError("a collector ended")


def _write(ring: pathlib.Path, wake: int, rate: int, seconds: float) -> None:
    with _child("verdicts_writer", str(ring), str(wake), str(rate), str(seconds), wake=wake) as writer:
        assert writer.wait() == 0


@contextlib.contextmanager
def _child(module: str, *words: str, wake: int = -1) -> Iterator[subprocess.Popen[str]]:
    """Run a module of this package; it is gone after the context."""
    with subprocess.Popen(
        [sys.executable, "-m", f"tests.bench.{module}", *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(wake,) if wake >= 0 else (),
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


@contextlib.contextmanager
def _reader(socket: pathlib.Path, streams: int, *more: str) -> Iterator[subprocess.Popen[str]]:
    with _child("verdicts_reader", str(socket), str(streams), *more) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


def _wait_for(socket: pathlib.Path) -> None:
    until = time.monotonic() + 30
    while not socket.exists():
        assert time.monotonic() < until, "the agent does not listen"
        time.sleep(0.05)


def _cpu_s(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def _rss_mib(pid: int) -> float:
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024
