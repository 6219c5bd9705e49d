"""`agentctl metrics`: what Prometheus would scrape, over the agent's socket, whether it listens for scrapes or not."""

from __future__ import annotations

import fnmatch
import pathlib

import click

from agent.cli import connection, output, watching
from agent.rpc import client, details

COLUMNS = ("name", "labels", "value")
WIDE = ("kind", "help")


@click.command()
@click.argument("pattern", default="")
@connection.agent_options
@watching.watch_option
@output.output_option
def metrics(socket: pathlib.Path, pattern: str, *, form: output.Form, watch: bool) -> None:
    """Show the agent's metrics: all, or those whose names contain PATTERN or match it (*, ?, [...])."""
    with client.AgentClient(socket) as agent:
        watching.show(lambda: _listing(agent.metrics(), pattern), form=form, watch=watch)


def _listing(samples: tuple[details.MetricSample, ...], pattern: str) -> output.Listing:
    chosen = [one for one in samples if pattern in one.name or fnmatch.fnmatchcase(one.name, pattern)]
    return output.Listing(
        rows=[
            {"name": one.name, "labels": one.labels, "value": _number(one.value), "kind": one.kind, "help": one.help}
            for one in chosen
        ],
        columns=COLUMNS,
        wide=WIDE,
        names=[_series(one) for one in chosen],
        document={"metrics": output.plain(chosen)},
    )


def _series(one: details.MetricSample) -> str:
    """Write a sample's name as Prometheus does."""
    labels = ",".join(f'{key}="{value}"' for key, value in one.labels.items())
    return f"{one.name}{{{labels}}}" if labels else one.name


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() else f"{value:.6g}"
