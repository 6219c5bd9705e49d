"""Waiting for programs that read what is about to be changed."""

from __future__ import annotations

import time

from agent.datapath.bpf import syscalls

SECONDS = 0.05
"""Where the kernel cannot tell when running programs have ended: ten thousand times what one takes."""


def wait() -> None:
    """Return once every program that was running has ended."""
    if not syscalls.wait_for_programs():
        time.sleep(SECONDS)
