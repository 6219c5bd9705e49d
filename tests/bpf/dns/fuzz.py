"""Millions of spoiled answers, run by fuzz.c, and what they taught."""

from __future__ import annotations

import dataclasses
import pathlib
import struct
import subprocess
import tempfile
import time

from agent.datapath.bpf import dns_loader
from tests.bpf.dns import costs, mutants, rig, wire

SOURCE = pathlib.Path(__file__).parent / "fuzz.c"
HEADERS = (rig.RESOLVER4, rig.POD4, (wire.PORT, rig.CLIENT_PORT))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Campaign:
    """What came of it."""

    seconds: float
    counted: dict[str, int]
    """By counter."""
    addresses: int
    strange: int
    """Learned by another endpoint or for a class that no name has: none may be."""


def run(learner: rig.Learner, variant: dns_loader.Variant, *, rounds: int, seed: int) -> Campaign:
    """Run a campaign. Raises CalledProcessError with the frame that did not pass."""
    learner.clear()
    frames = [wire.frame(*HEADERS, message) for message in mutants.TRUE]
    given = b"".join(struct.pack("=H", len(frame)) + frame for frame in frames)
    before = learner.fqdn.counters()
    with tempfile.TemporaryDirectory() as directory, costs.asking(learner, variant):
        program = pathlib.Path(directory) / "fuzz"
        subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE], check=True)
        begin = time.monotonic()
        pin = learner.directory / "asking" / costs.ASKED
        subprocess.run([program, pin, str(seed), str(rounds)], input=given, check=True)
        seconds = time.monotonic() - begin
    after, learned = learner.fqdn.counters(), learner.learned()
    return Campaign(
        seconds=seconds,
        counted={name: after[name] - before[name] for name in after if after[name] != before[name]},
        addresses=len(learned),
        strange=sum((one.endpoint, one.class_) != (rig.ENDPOINT, rig.API) for one in learned),
    )
