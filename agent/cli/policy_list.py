"""`agentctl policy list`: the policies an agent enforces; it joins the offline verbs of `agentctl policy`."""

from __future__ import annotations

import pathlib

import click

from agent.cli import connection, output
from agent.cli import policy as offline
from agent.rpc import client, views

COLUMNS = ("namespace", "name", "kind", "directions", "rules", "endpoints", "problems")


@click.group(commands=dict(offline.policy.commands))
def policy() -> None:
    """Tell what network policies mean, from manifests alone, and list those an agent enforces."""


@policy.command("list")
@connection.agent_options
@output.output_option
def list_(socket: pathlib.Path, *, form: output.Form) -> None:
    """List the policies in force, how many endpoints of the node each selects, and what could not be honoured."""
    with client.AgentClient(socket) as agent:
        policies = agent.policies()
    document = {"policies": output.plain(policies)}
    click.echo(output.render([_row(one) for one in policies], columns=COLUMNS, form=form, document=document))


def _row(one: views.Policy) -> dict[str, object]:
    problems = [f"{problem.path}: {problem.reason}" if problem.path else problem.reason for problem in one.problems]
    return {
        "namespace": one.ref.namespace,
        "name": one.ref.name,
        "kind": one.ref.kind,
        "directions": one.directions,
        "rules": f"{one.ingress_rules} in, {one.egress_rules} out",
        "endpoints": one.selected_endpoints,
        "problems": output.Styled("; ".join(problems), "yellow") if problems else None,
    }
