"""`agentctl version`: of agentctl, and of the agent it would ask; two releases may speak past each other."""

from __future__ import annotations

import sys
from importlib import metadata

import click

from agent import errors
from agent.cli import connection, output
from agent.rpc import client as client_


@click.command()
@click.option("--client", "alone", is_flag=True, help="Of agentctl only; no agent is asked.")
@connection.agent_when_asked
@output.output_option
def version(locate: connection.Locate, *, alone: bool, form: output.Form) -> None:
    """Print the versions of agentctl and of the agent; exits with 4 where no agent answers."""
    own, other, failed = metadata.version("nodewall"), None, None
    if not alone:
        try:
            with client_.AgentClient(locate()) as agent:
                other = agent.status().version
        except errors.Unreachable as error:
            failed = error
    lines = [("agentctl", own), *([("agent", other or "does not answer")] if not alone else [])]
    click.echo(output.one(lines, form=form, name=own, document={"agentctl": own, "agent": other}))
    if other not in {None, own}:
        click.echo("agentctl: agent and agentctl are of different releases; use those of one", err=True)
    if failed is not None:
        click.echo(f"agentctl: {output.escape(str(failed))}", err=True)
        sys.exit(output.ExitCode.UNREACHABLE)
