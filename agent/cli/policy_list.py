"""`agentctl policy`: the policies an agent enforces, listed and one by one; the offline verbs join them."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import click

from agent.cli import connection, output, policy_validate, policy_wait, watching
from agent.cli import policy as offline
from agent.rpc import client, details

COLUMNS = ("namespace", "name", "kind", "directions", "rules", "endpoints", "state", "problems")


ROWS_SHOWN = 20
"""Rows that `get` prints; JSON and YAML have more, and -o wide."""


@click.group(commands={**offline.policy.commands, "validate": policy_validate.validate, "wait": policy_wait.wait})
def policy() -> None:
    """Tell what network policies mean, from manifests alone, and show those an agent enforces."""


@policy.command("list")
@connection.agent_options
@watching.watch_option
@output.output_option
def list_(socket: pathlib.Path, *, form: output.Form, watch: bool) -> None:
    """List the policies in force, how many endpoints of the node each selects, and what could not be honoured."""
    with client.AgentClient(socket) as agent:
        watching.show(lambda: _listing(agent.policies()), form=form, watch=watch)


@policy.command("get")
@click.argument("name", metavar="NAME")
@connection.agent_options
@output.output_option
def get(socket: pathlib.Path, name: str, *, form: output.Form) -> None:
    """Show one as it was read: its rules in words, its problems, whom it selects here, its rows."""
    with client.AgentClient(socket) as agent:
        found = agent.policy(name)
    document = {"policy": output.plain(found)}
    click.echo(output.one([*_lines(found)], form=form, name=_name(found.policy), document=document))


def _listing(policies: Sequence[details.Policy]) -> output.Listing:
    return output.Listing(
        rows=[_row(one) for one in policies],
        columns=COLUMNS,
        names=[_name(one) for one in policies],
        document={"policies": output.plain(policies)},
    )


def _name(one: details.Policy) -> str:
    """Name it as `get` takes it; another kind's may have the name of a NetworkPolicy."""
    return f"{one.ref.namespace}/{one.ref.name}" if one.ref.kind == "NetworkPolicy" else one.ref.path


def _lines(found: details.PolicyDetail) -> Iterator[tuple[str, object]]:
    yield "policy", output.Styled(str(found.policy.ref), "bold")
    yield "uid", found.uid
    yield "selects", found.subject
    for place, rule in enumerate(found.rules):
        yield "rules" if not place else "", f"{rule.direction.name.lower()}[{rule.index}] {rule.text}"
    for place, problem in enumerate(found.policy.problems):
        text = f"{problem.path}: {problem.reason}" if problem.path else problem.reason
        yield "problems" if not place else "", output.Styled(text, "yellow")
    yield "endpoints", f"{len(found.endpoints)} of this node"
    for one in found.endpoints:
        yield "", f"  {one.namespace}/{one.pod} ({' and '.join(one.directions)})"
    yield "rows", f"{found.row_count} are there for it"
    shown = found.rows if output.presentation().wide else found.rows[:ROWS_SHOWN]
    for row in shown:
        port = f"{row.protocol} {row.ports}" if row.protocol != "any" else "everything"
        rule_name = f"{row.direction}[{row.rule_index}]"
        yield "", f"  set {row.policy_set} {row.action} {row.peer} ({row.identity}) {port} by {rule_name}"
    if found.row_count > len(shown):
        yield "", f"  {found.row_count - len(shown)} more"


def _row(one: details.Policy) -> dict[str, object]:
    problems = [f"{problem.path}: {problem.reason}" if problem.path else problem.reason for problem in one.problems]
    return {
        "namespace": one.ref.namespace,
        "name": one.ref.name,
        "kind": one.ref.kind,
        "directions": one.directions,
        "rules": f"{one.ingress_rules} in, {one.egress_rules} out",
        "endpoints": one.selected_endpoints,
        "state": output.Styled(f"AUDIT by {', '.join(one.audit)}", "yellow") if one.audit else "enforced",
        "problems": output.Styled("; ".join(problems), "yellow") if problems else None,
    }
