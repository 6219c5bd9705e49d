"""Time, as a collaborator: only `SystemClock` looks at the machine's clocks, and only the daemon makes one."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Two clocks; the difference between them is not constant (NTP steps, suspend)."""

    def unix_ns(self) -> int:
        """Return the wall clock, nanoseconds since 1970."""

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC in nanoseconds: what bpf_ktime_get_ns() counts."""


class SystemClock:
    """The machine's clocks."""

    def unix_ns(self) -> int:
        """Return the wall clock, nanoseconds since 1970."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC in nanoseconds: what bpf_ktime_get_ns() counts."""
        return time.monotonic_ns()
