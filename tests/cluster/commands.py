"""Commands that are run to their end, and things that are waited for."""

from __future__ import annotations

import pathlib
import subprocess
import time
from collections.abc import Callable, Sequence

from agent import patience


class Failed(RuntimeError):  # noqa: N818 - reads as what it is
    """A command said no."""


def run(*command: str, text: str | None = None, quiet: bool = False, limit_s: float = 300.0) -> str:
    """Run a command and return its standard output. Raises Failed with what it complained of, unless `quiet`."""
    ended = subprocess.run(
        command, input=text, check=False, capture_output=True, text=True, timeout=patience.seconds(limit_s)
    )
    if ended.returncode and not quiet:
        raise Failed(f"{' '.join(command)}: status {ended.returncode}: {(ended.stderr or ended.stdout).strip()}")
    return ended.stdout


def every(*commands: Sequence[str]) -> None:
    """Run commands one after the other."""
    for command in commands:
        run(*command)


def detach(command: Sequence[str], *, log: pathlib.Path, directory: pathlib.Path | None = None) -> None:
    """Start a command that outlives this process; its output goes to the end of a log."""
    with log.open("ab") as opened:
        apart = ["setsid", "--fork", *command]
        subprocess.run(apart, check=True, cwd=directory, stdin=subprocess.DEVNULL, stdout=opened, stderr=opened)


def wait(what: str, condition: Callable[[], bool], *, limit_s: float, pause_s: float = 0.1) -> None:
    """Return as soon as the condition holds. Raises TimeoutError."""
    deadline = time.monotonic() + patience.seconds(limit_s)
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience.seconds(limit_s):.0f} s")
        time.sleep(pause_s)
