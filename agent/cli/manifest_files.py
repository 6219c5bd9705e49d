"""`-f`: manifests as every verb takes them: files, directories, `-` for stdin; their problems are told on stderr."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click

from agent import snapshot
from agent.cli import output
from agent.sources import manifests

MORE = "a manifest, a directory of them, or - for stdin; may be given more than once."


def option(what: str = "", *, required: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what gives a command `-f`, as its parameter `paths`; `what` says in the help what the manifests are."""
    return click.option(
        "-f",
        "--filename",
        "paths",
        type=click.Path(path_type=pathlib.Path, allow_dash=True),
        multiple=True,
        required=required,
        help=f"{what}: {MORE}" if what else MORE[0].upper() + MORE[1:],
    )


def load(paths: Sequence[pathlib.Path]) -> snapshot.Snapshot:
    """Read manifests; what is wrong in them is told on stderr. Raises InvalidInput, InvalidResource."""
    loaded = manifests.load(paths, stdin=sys.stdin.buffer)
    for problem in loaded.problems:
        where = f"{problem.ref} {problem.path}" if problem.path else str(problem.ref)
        click.echo(f"problem: {output.escape(where)}: {output.escape(problem.reason)}", err=True)
    return loaded
