"""`agentctl ipt`: the chains, rules and sets of the iptables engine, as the agent reads them at this moment."""

from __future__ import annotations

import pathlib

import click

from agent import errors
from agent.cli import bpf, connection, output
from agent.datapath import tracing
from agent.rpc import client

COLUMNS = ("kind", "name", "type", "family", "entries")


@click.group()
def ipt() -> None:
    """Chains, rules and sets of the iptables engine."""


@ipt.command()
@click.argument("name", metavar="[CHAIN|SET]", default="")
@click.option("--pod", default="", metavar="NAMESPACE/NAME", help="Only rules and members that concern this pod.")
@click.option("--limit", type=click.IntRange(min=0), default=bpf.ROWS_SHOWN, show_default=True, help="0: all rows.")
@connection.agent_options
@output.output_option
def show(socket: pathlib.Path, *, name: str, pod: str, limit: int, form: output.Form) -> None:
    """List chains and sets with their sizes, or show the rules of a chain, the members of a set, or all of a pod."""
    if name or pod:
        bpf.print_rows(socket, name, form, pod=pod, limit=limit)
        return
    with client.AgentClient(socket) as agent:
        found = agent.tables()
    held = [one for one in found.inventory.tables if one.kind is not tracing.Kind.MAP]
    if not held:
        raise errors.DatapathError(f"the engine {found.mode} has no rules of iptables; see agentctl bpf maps")
    rows = [{name: getattr(one, name) for name in COLUMNS} | {"kind": one.kind.value} for one in held]
    names = [one.name for one in held]
    click.echo(output.listed(output.Listing(rows=rows, columns=COLUMNS, names=names, document={"tables": rows}), form))
