"""`agentctl policy wait`: return when what was written is enforced; for scripts that change policy and then test it."""

from __future__ import annotations

import pathlib
import time

import click

from agent import errors
from agent.cli import connection, output, status
from agent.rpc import client

POLL_S = 0.05


@click.command()
@click.argument("revision", required=False, type=click.IntRange(min=1))
@click.option("--all", "everything", is_flag=True, help="All that the agent has been told by now.")
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(min=0), default=30.0, show_default=True, metavar="SECONDS"
)
@connection.agent_options
def wait(socket: pathlib.Path, revision: int | None, *, everything: bool, timeout_s: float) -> None:
    """Wait until REVISION of the agent's inputs (`agentctl status` shows it) is enforced; exits with 1 if it is not."""
    if (revision is None) is not everything:
        value = "neither" if revision is None else f"{revision} and --all"
        raise errors.InvalidInput(field="REVISION", value=value, remedy="write a revision, or --all")
    with client.AgentClient(socket) as agent:
        reached = _reached(agent, revision, timeout_s)
    click.echo(f"revision {reached} is enforced")


def _reached(agent: client.AgentClient, revision: int | None, timeout_s: float) -> int:
    """Return the revision that is enforced then; raises Failure."""
    deadline = time.monotonic() + timeout_s
    now = agent.status()
    wanted = now.revision if revision is None else revision
    while now.enforced_revision < wanted or not now.synced:
        left = deadline - time.monotonic()
        if left <= 0:
            why = status.pending(now) or f"the agent has seen no revision after {now.revision}"
            raise output.Failure(f"revision {wanted} is not enforced after {timeout_s:g} s: {why}")
        time.sleep(min(POLL_S, left))
        now = agent.status()
    return now.enforced_revision
