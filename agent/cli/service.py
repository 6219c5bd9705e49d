"""`agentctl service`: where Services listen, what is behind them, and what policy allows of that."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import click

from agent import errors
from agent.cli import connection, output, watching
from agent.rpc import client, details

COLUMNS = ("namespace", "name", "frontends", "backends", "allowed")
WIDE = ("behind",)


@click.group()
def service() -> None:
    """Services of the cluster, as this node resolves them."""


@service.command("list")
@connection.agent_options
@watching.watch_option
@output.output_option
def list_(socket: pathlib.Path, *, form: output.Form, watch: bool) -> None:
    """List them; `allowed` is what each egress policy set of this node allows of the backends."""
    with client.AgentClient(socket) as agent:
        watching.show(lambda: _listing(agent.services()), form=form, watch=watch)


@service.command("get")
@click.argument("name", metavar="NAME")
@connection.agent_options
@output.output_option
def get(socket: pathlib.Path, name: str, *, form: output.Form) -> None:
    """Show one, NAMESPACE/NAME or a name that only one has."""
    with client.AgentClient(socket) as agent:
        found = named(agent.services(), name)
    document = {"service": output.plain(found)}
    click.echo(output.one([*_lines(found)], form=form, name=_name(found), document=document))


def named(services: Sequence[details.Service], name: str) -> details.Service:
    """Return the Service that `name` names; raises InvalidInput, NotFound."""
    found = [one for one in services if name in {_name(one), one.name}]
    if not found:
        raise errors.NotFound(field="service", value=name, remedy="`agentctl service list` shows all")
    if len(found) > 1:
        several = ", ".join(_name(one) for one in found)
        raise errors.InvalidInput(field="service", value=name, remedy=f"several have that name; write one of {several}")
    return found[0]


def _listing(services: Sequence[details.Service]) -> output.Listing:
    return output.Listing(
        rows=[_row(one) for one in services],
        columns=COLUMNS,
        wide=WIDE,
        names=[_name(one) for one in services],
        document={"services": output.plain(services)},
    )


def _name(one: details.Service) -> str:
    return f"{one.namespace}/{one.name}"


def _row(one: details.Service) -> dict[str, object]:
    return {
        "namespace": one.namespace,
        "name": one.name,
        "frontends": [_frontend(each) for each in one.frontends],
        "backends": len(one.backends),
        "allowed": [f"{each.policy_set}: {each.allows}" for each in one.classes],
        "behind": [_backend(each) for each in one.backends],
    }


def _lines(one: details.Service) -> Iterator[tuple[str, object]]:
    yield "service", output.Styled(_name(one), "bold")
    for place, front in enumerate(one.frontends):
        text = _frontend(front) if front.number else f"{_frontend(front)}, refused: there is no backend of this family"
        yield "listens at" if not place else "", text
    if not one.frontends:
        yield "listens at", "nowhere (headless)"
    yield "backends", len(one.backends)
    for back in one.backends:
        owner = f" {back.owner}" if back.owner is not None else ""
        yield "", f"  {_backend(back)}{owner} (identity {back.identity})"
    for place, found in enumerate(one.classes):
        rule = f" by {found.rule}" if found.rule else ""
        pods = f", for {', '.join(found.pods)}" if found.pods else ""
        yield "allowed" if not place else "", f"{found.allows} of them by policy set {found.policy_set}{rule}{pods}"
    if not one.classes:
        yield "allowed", "all: no endpoint of this node is isolated in egress, or there is nothing to judge"


def _frontend(one: details.ServiceFrontend) -> str:
    return f"{_at(str(one.address))}:{one.port}/{one.protocol}"


def _backend(one: details.ServiceBackend) -> str:
    return f"{_at(str(one.address))}:{one.port}/{one.protocol}"


def _at(address: str) -> str:
    return f"[{address}]" if ":" in address else address
