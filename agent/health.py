"""Whether the agent lives, and whether it is ready: a few named checks, each with the reason where it fails.

`livez` fails where only a new process helps: the event loop stands still, or what was given to the worker thread never
returns. `readyz` fails while this node does not enforce what this agent was told: an input that never came whole, an
engine that nobody saw deny, or whose own things are gone, nothing enforced yet. An API server that went away fails
neither: the last policy is in force, and an agent started anew would know less. Nor does a change that cannot be
applied: status and metrics tell.

Pure, but for the heart, whose beats are counted by the event loop.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeAlias

from agent import clock as clock_

BEAT_S = 1.0
LATE_S = 10.0
"""An event loop that is this much behind stands still."""
STUCK_S = 300.0
"""No apply takes longer: that of 100,000 pods takes seconds, and a lock of iptables is waited for half a minute."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question, and how it stands."""

    name: str
    ok: bool
    why: str = ""
    """Where it failed: why. Where it did not: what there is to know."""


Checks: TypeAlias = tuple[Check, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """All that readiness follows from."""

    waiting_for: Sequence[str]
    """Inputs whose first whole list is not in."""
    engine: str
    """What enforces."""
    unproved: Sequence[str]
    """What of it could not be shown to deny when it was opened."""
    missing: Sequence[str]
    """What of the engine's own things is not there, or cannot be put right."""
    generation: int | None
    """What is enforced; None: nothing yet by this agent."""


class Heart:
    """Beats once a second while the event loop runs."""

    def __init__(self, clock: clock_.Clock) -> None:
        """Count from now on."""
        self._clock = clock
        self._beat_ns = clock.monotonic_ns()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._beat_ns = self._clock.monotonic_ns()
            await asyncio.sleep(BEAT_S)

    @property
    def silent_s(self) -> float:
        """Seconds since the last beat."""
        return (self._clock.monotonic_ns() - self._beat_ns) / 1e9


def live(*, silent_s: float, busy_s: float, patience: Callable[[float], float] = lambda usual: usual) -> Checks:
    """Say whether the process works: `busy_s` is how long the worker has been at one job, 0 for none."""
    late, stuck = silent_s > patience(LATE_S), busy_s > patience(STUCK_S)
    return (
        Check(name="event-loop", ok=not late, why=f"stood still for {silent_s:.0f} s" if late else ""),
        Check(name="worker", ok=not stuck, why=f"at one job for {busy_s:.0f} s" if stuck else ""),
    )


def ready(now: Condition) -> Checks:
    """Say whether this node enforces what the agent was told."""
    waiting, missing, unproved = ", ".join(now.waiting_for), "; ".join(now.missing), "; ".join(now.unproved)
    enforced = now.generation is not None
    return (
        Check(name="inputs", ok=not waiting, why=f"no first whole list of {waiting}" if waiting else ""),
        Check(name="deny-probe", ok=not unproved, why=unproved or f"passed at the start: {now.engine}"),
        Check(name="datapath", ok=not missing, why=missing),
        Check(
            name="enforced",
            ok=enforced,
            why=f"generation {now.generation}" if enforced else "no policy applied by this agent yet",
        ),
    )


def failed(checks: Checks) -> tuple[str, ...]:
    """Return a line for each check that failed."""
    return tuple(f"{check.name}: {check.why}" for check in checks if not check.ok)


def text(checks: Checks, *, verbose: bool) -> str:
    """Write a page: `ok` and nothing else, or a line for each check where one failed or all are asked for."""
    bad = any(not check.ok for check in checks)
    if not bad and not verbose:
        return "ok\n"
    return "\n".join((*(_printable(_line(check)) for check in checks), "failed" if bad else "ok")) + "\n"


def _line(check: Check) -> str:
    stands = f"[+] {check.name} ok" if check.ok else f"[-] {check.name} failed"
    return f"{stands}: {check.why}" if check.why else stands


def _printable(line: str) -> str:
    """Escape what an engine's error may hold that would be a line or a command to a terminal."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)
