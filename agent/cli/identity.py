"""`agentctl identity`: what a number in a verdict stands for."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import click

from agent.cli import connection, output, watching
from agent.rpc import client, details

COLUMNS = ("id", "namespace", "labels", "namespace_labels", "ports", "blocks", "addresses")
SHOWN = 3
"""Addresses a table shows; JSON and YAML have more."""


@click.group()
def identity() -> None:
    """Identities and the facts they stand for."""


@identity.command("list")
@connection.agent_options
@watching.watch_option
@output.output_option
def list_(socket: pathlib.Path, *, form: output.Form, watch: bool) -> None:
    """List the identities of the whole cluster, with the facts that some policy tells addresses apart by."""
    with client.AgentClient(socket) as agent:
        watching.show(lambda: _listing(agent.identities()), form=form, watch=watch)


@identity.command("get")
@click.argument("number", metavar="ID", type=click.IntRange(0, 2**32 - 1))
@connection.agent_options
@output.output_option
def get(socket: pathlib.Path, number: int, *, form: output.Form) -> None:
    """Show what a number stands for, and who has it."""
    with client.AgentClient(socket) as agent:
        found = agent.identity(number)
    document = {"identity": output.plain(found)}
    click.echo(output.one([*_lines(found)], form=form, name=str(number), document=document))


def _listing(identities: Sequence[details.Identity]) -> output.Listing:
    return output.Listing(
        rows=[_row(one) for one in identities],
        columns=COLUMNS,
        names=[str(one.id) for one in identities],
        document={"identities": output.plain(identities)},
    )


def _lines(found: details.IdentityDetail) -> Iterator[tuple[str, object]]:
    one = found.identity
    yield "identity", output.Styled(f"{one.id} {found.reserved}".rstrip(), "bold")
    yield "means", found.meaning
    yield "namespace", one.namespace
    yield "labels", one.labels
    yield "namespace labels", one.namespace_labels
    yield "ports", one.named_ports
    yield "blocks", one.blocks
    yield "prefixes", found.prefixes
    yield "addresses", one.address_count
    for holder in found.holders:
        yield "", f"  {holder.address} {holder.owner if holder.owner.name else 'of a pod not known any more'}"
    if len(found.holders) < one.address_count:
        yield "", f"  {one.address_count - len(found.holders)} more"
    yield "rows", f"{found.rows} of this node's policy sets name it"


def _row(one: details.Identity) -> dict[str, object]:
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
