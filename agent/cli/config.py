"""`agentctl config`: what the running agent was told and by whom, and what can be changed while it runs."""

from __future__ import annotations

import pathlib

import click

from agent.cli import connection, output
from agent.rpc import client

COLUMNS = ("name", "value", "origin", "changeable")


class GetUnlessTold(click.Group):
    """A group that takes its flags for those of `get`, where they name no verb."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `get` where a verb is missing."""
        names = self.get_help_option_names(ctx)
        return super().parse_args(ctx, args if args and (args[0][:1] != "-" or args[0] in names) else ["get", *args])


@click.group(cls=GetUnlessTold)
def config() -> None:
    """Show the running agent's configuration; without a verb, as `get` does."""


@config.command("get")
@connection.agent_options
@output.output_option
def get(socket: pathlib.Path, *, form: output.Form) -> None:
    """Show every setting, its value, and where that came from."""
    with client.AgentClient(socket) as agent:
        settings = agent.config()
    listing = output.Listing(
        rows=[{column: getattr(one, column) for column in COLUMNS} for one in settings],
        columns=COLUMNS,
        names=[one.name for one in settings],
        document={"settings": output.plain(settings)},
    )
    click.echo(output.listed(listing, form))


@config.group("set")
def set_() -> None:
    """Change what can be changed while the agent runs; a restart brings back what it was told."""


@set_.command("log-level")
@click.argument("level", type=click.Choice(["debug", "info", "warning", "error"]))
@connection.agent_options
def log_level(socket: pathlib.Path, level: str) -> None:
    """Log more, or less."""
    with client.AgentClient(socket) as agent:
        before = agent.set_log_level(level)
    click.echo(f"log-level {level} (it was {output.escape(before)})")
