"""`agentctl identity`: what a number in a verdict stands for."""

from __future__ import annotations

import pathlib

import click

from agent.cli import connection, output
from agent.rpc import client, views

COLUMNS = ("id", "namespace", "labels", "namespace_labels", "ports", "blocks", "addresses")
SHOWN = 3
"""Addresses a table shows; JSON and YAML have more."""


@click.group()
def identity() -> None:
    """Identities and the facts they stand for."""


@identity.command("list")
@connection.agent_options
@output.output_option
def list_(socket: pathlib.Path, *, form: output.Form) -> None:
    """List the identities of the whole cluster, with the facts that some policy tells addresses apart by."""
    with client.AgentClient(socket) as agent:
        identities = agent.identities()
    document = {"identities": output.plain(identities)}
    click.echo(output.render([_row(one) for one in identities], columns=COLUMNS, form=form, document=document))


def _row(one: views.Identity) -> dict[str, object]:
    shown = [str(address) for address in one.addresses[:SHOWN]]
    more = one.address_count - len(shown)
    return {
        "id": one.id,
        "namespace": one.namespace,
        "labels": one.labels,
        "namespace_labels": one.namespace_labels,
        "ports": one.named_ports,
        "blocks": one.blocks,
        "addresses": [*shown, f"{more} more"] if more > 0 else shown,
    }
