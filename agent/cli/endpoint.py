"""`agentctl endpoint`: the pods of one node that policy is enforced on."""

from __future__ import annotations

import pathlib

import click

from agent.cli import connection, output
from agent.rpc import client, views

COLUMNS = ("namespace", "pod", "addresses", "identity", "ingress", "egress", "policies")


@click.group()
def endpoint() -> None:
    """Pods of this node that policy is enforced on."""


@endpoint.command("list")
@connection.agent_options
@output.output_option
def list_(socket: pathlib.Path, *, form: output.Form) -> None:
    """List them: `isolated` is closed but for what policies allow, `held` is closed until it is programmed."""
    with client.AgentClient(socket) as agent:
        endpoints = agent.endpoints()
    document = {"endpoints": output.plain(endpoints)}
    click.echo(output.render([_row(one) for one in endpoints], columns=COLUMNS, form=form, document=document))


def _row(one: views.Endpoint) -> dict[str, object]:
    policies = sorted({ref.name for ref in (*one.ingress_policies, *one.egress_policies)})
    return {
        "namespace": one.namespace,
        "pod": one.pod,
        "addresses": one.addresses,
        "identity": sorted(set(one.identities)),
        "ingress": _state(one, isolated=one.ingress_isolated),
        "egress": _state(one, isolated=one.egress_isolated),
        "policies": policies,
    }


def _state(one: views.Endpoint, *, isolated: bool) -> output.Styled:
    if one.held:
        return output.Styled("held", "yellow")
    return output.Styled("isolated", "bold") if isolated else output.Styled("open", "dim")
