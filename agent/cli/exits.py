"""What agentctl returns to the shell, and how an error of the agent becomes a line on stderr and a code.

One table for every verb, so that a script may branch on it; `agentctl --help` prints it, and a test compares them.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Mapping
from typing import IO, Any

import click

from agent import errors
from agent.cli import escaping


class ExitCode(enum.IntEnum):
    """What agentctl returns to the shell."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    """A flag, a name or a manifest is wrong."""
    DISAGREEMENT = 3
    """The answer is "no": a model and the kernel differ, a flow is denied, a change breaks something."""
    UNREACHABLE = 4
    DEGRADED = 5


MEANINGS: Mapping[ExitCode, str] = {
    ExitCode.OK: "done; allowed; in order",
    ExitCode.FAILURE: "it failed, was not found, or did not come about in time",
    ExitCode.USAGE: "a flag, a name or a manifest is wrong",
    ExitCode.DISAGREEMENT: "the answer is no: denied, broken, or model and kernel differ",
    ExitCode.UNREACHABLE: "no agent answers",
    ExitCode.DEGRADED: "the agent answers, and something is not in order (status)",
}


class Failure(click.ClickException):
    """A NodewallError on its way to stderr; see `failure`."""

    exit_code = ExitCode.FAILURE

    def show(self, file: IO[Any] | None = None) -> None:
        """Print `agentctl: TEXT`; the text may have lines, each is escaped."""
        lines = "\n".join(escaping.escape(line) for line in self.message.splitlines())
        click.echo(f"agentctl: {lines}", file=file or sys.stderr)


class WrongInput(Failure):
    """The failure is in what was typed or written, not in what was done with it."""

    exit_code = ExitCode.USAGE


class Unanswered(Failure):
    """Nobody was there to ask."""

    exit_code = ExitCode.UNREACHABLE


def failure(error: errors.NodewallError) -> Failure:
    """Return what to raise for `error`, so that click prints its text and exits with the right code."""
    match error:
        case errors.InvalidInput() | errors.InvalidResource():
            return WrongInput(str(error))
        case errors.Unreachable():
            return Unanswered(str(error))
        case _:
            return Failure(str(error))
