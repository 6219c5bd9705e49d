"""Time, as a collaborator: only `SystemClock` looks at the machine's clocks, and only the daemon makes one."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Three clocks; the differences between them are not constant (NTP steps, suspend)."""

    def unix_ns(self) -> int:
        """Return the wall clock, nanoseconds since 1970."""

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC in nanoseconds: what bpf_ktime_get_ns() counts."""

    def boot_ns(self) -> int:
        """Return CLOCK_BOOTTIME in nanoseconds: what bpf_ktime_get_boot_ns() counts, suspended or not."""


class SystemClock:
    """The machine's clocks."""

    def unix_ns(self) -> int:
        """Return the wall clock, nanoseconds since 1970."""
        return time.time_ns()

    def monotonic_ns(self) -> int:
        """Return CLOCK_MONOTONIC in nanoseconds: what bpf_ktime_get_ns() counts."""
        return time.monotonic_ns()

    def boot_ns(self) -> int:
        """Return CLOCK_BOOTTIME in nanoseconds: what bpf_ktime_get_boot_ns() counts, suspended or not."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
