"""Which agent a verb asks: named by socket, state directory, or node of a lab; else the only one of this machine."""

from __future__ import annotations

import functools
import glob
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import click

from agent import errors
from agent.lab import rundir

DEFAULT = pathlib.Path("/run/nodewall/agent.sock")
VARIABLE = "NODEWALL_SOCKET"
Locate: TypeAlias = Callable[[], pathlib.Path]
"""Finds the agent's socket; raises InvalidInput where the options mean none, or several."""


def agent_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --socket, --state-dir, --lab and --node; it gets the socket's path as `socket`."""

    @functools.wraps(command)
    def found(*arguments: Any, locate: Locate, **others: Any) -> Any:
        return command(*arguments, socket=locate(), **others)

    return agent_when_asked(found)


def agent_when_asked(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the same options, and `locate` to find the socket by: it may need no agent at all."""

    @click.option("--socket", type=click.Path(path_type=pathlib.Path), help=f"The agent's socket; else ${VARIABLE}.")
    @click.option("--state-dir", type=click.Path(path_type=pathlib.Path), help="The agent's state directory.")
    @click.option("--lab", metavar="NAME", help="A lab on this machine.")
    @click.option("--node", metavar="NAME", help="A node of a lab.")
    @functools.wraps(command)
    def given(
        *arguments: Any,
        socket: pathlib.Path | None,
        state_dir: pathlib.Path | None,
        lab: str | None,
        node: str | None,
        **others: Any,
    ) -> Any:
        variable = os.environ.get(VARIABLE)
        locate = functools.partial(find, socket=socket, state_dir=state_dir, lab=lab, node=node, variable=variable)
        return command(*arguments, locate=locate, **others)

    return given


def find(
    *,
    socket: pathlib.Path | None,
    state_dir: pathlib.Path | None,
    lab: str | None,
    node: str | None,
    variable: str | None,
) -> pathlib.Path:
    """Return the socket that the options mean; raises InvalidInput where that is not one, listing what there is."""
    if socket is not None and state_dir is not None:
        raise errors.InvalidInput(field="--state-dir", value=str(state_dir), remedy="--socket says it already")
    if socket is not None:
        return socket
    if state_dir is not None:
        return state_dir / "agent.sock"
    if variable and lab is None and node is None:
        return pathlib.Path(variable)
    return _only(sorted(candidates(lab, node)), lab, node)


def candidates(lab: str | None, node: str | None) -> Iterator[pathlib.Path]:
    """Yield the sockets there are, of one lab or node if named."""
    if lab is None and node is None and DEFAULT.exists():
        yield DEFAULT
    labs = [rundir.RunDirectory(lab).name] if lab is not None else ["*"]
    for name in labs:
        # No name is a path: the pattern cannot leave the labs' directory.
        pattern = f"{name}/nodes/{glob.escape(node.replace('/', '_')) if node else '*'}/state/agent.sock"
        yield from rundir.ROOT.glob(pattern)


def _only(found: list[pathlib.Path], lab: str | None, node: str | None) -> pathlib.Path:
    match found:
        case [path]:
            return path
        case []:
            if lab is None and node is None:
                return DEFAULT  # the client says that nobody is there, and what to do
            field, value = ("--lab", lab) if lab is not None else ("--node", node)
            raise errors.InvalidInput(field=field, value=value, remedy=f"no agent runs there; {_known()}")
        case _:
            field, value = ("--node", node) if lab is not None else ("--lab", lab)
            value = value or "(not given)"
            choices = "".join(f"\n  {option_text(path)}" for path in found)
            raise errors.InvalidInput(field=field, value=value, remedy=f"several agents run; choose one:{choices}")


def _known() -> str:
    found = sorted(candidates(None, None))
    return "agents: " + ", ".join(option_text(path) for path in found) if found else "this machine has no agent"


def option_text(path: pathlib.Path) -> str:
    """Return the options that name a socket."""
    try:
        lab, _, node, *_ = path.relative_to(rundir.ROOT).parts
    except ValueError:
        return f"--socket {path}"
    return f"--lab {lab} --node {node}"
