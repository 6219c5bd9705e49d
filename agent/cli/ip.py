"""`agentctl ip get`: who is behind an address, by what it was found, and which policies speak of it."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import click

from agent.cli import connection, output
from agent.rpc import client, details


@click.group()
def ip() -> None:
    """Who an address is."""


@ip.command("get")
@click.argument("address", metavar="ADDRESS")
@connection.agent_options
@output.output_option
def get(socket: pathlib.Path, address: str, *, form: output.Form) -> None:
    """Show pod, node, machine or Service, identity, and the selectors and blocks that match it."""
    with client.AgentClient(socket) as agent:
        found = agent.address(address)
    document = {"address": output.plain(found)}
    click.echo(output.one([*_lines(found)], form=form, name=str(found.address), document=document))


def _lines(found: details.AddressDetail) -> Iterator[tuple[str, object]]:
    yield "address", output.Styled(str(found.address), "bold")
    yield "is", [str(owner) for owner in found.owners] or "nobody the agent knows"
    yield "endpoint", found.endpoint or "none of this node"
    yield "identity", f"{found.identity} {found.reserved}".rstrip()
    yield "found by", f"{found.prefix}, {found.found}" if found.prefix else found.found
    for place, point in enumerate(found.services):
        listening = f"{point.service.namespace}/{point.service.name} at {point.port}/{point.protocol}"
        yield "services" if not place else "", listening
    yield from _matches("selected by", found.selected_by)
    yield from _matches("peer of", found.peer_of)


def _matches(label: str, matches: tuple[details.PolicyMatch, ...]) -> Iterator[tuple[str, object]]:
    if not matches:
        yield label, "no policy"
    for place, match in enumerate(matches):
        yield label if not place else "", f"{match.policy} {match.path}: {match.because}"
