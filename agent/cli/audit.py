"""`agentctl audit`: policies of a node that deny nothing and tell what they would deny (rule A51)."""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

import click

from agent import errors
from agent.cli import connection, output
from agent.cli import status as status_
from agent.model import audit as audit_
from agent.rpc import client, views

COLUMNS = ("namespace", "policy", "by", "for", "policies", "would_deny")
ALL = "(all of them)"
FLAG, ANNOTATION = audit_.Means.FLAG.value, audit_.Means.ANNOTATION.value
ENDED_BY = {FLAG: "start the agent without its flag", ANNOTATION: f"take the annotation {audit_.ANNOTATION} off"}


@click.group()
def audit() -> None:
    """Have policies of this node deny nothing, and tell what they would deny."""


def _target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--policy", metavar="NAMESPACE/NAME", help="One policy.")(command)
    return click.option("-n", "--namespace", metavar="NAMESPACE", help="All policies of a namespace.")(command)


@audit.command()
@_target_options
@connection.agent_options
def enable(socket: pathlib.Path, *, namespace: str | None, policy: str | None) -> None:
    """Put a namespace or a policy into audit, until it is taken out; a restart of the agent does not."""
    target = target_of(namespace, policy)
    with client.AgentClient(socket) as agent:
        change = agent.set_audit(target, enable=True)
        entries, _ = agent.audit()
    means = audit_.Means.COMMAND.value
    now = (one.policies for one in entries if (one.namespace, one.policy, one.means) == (*_names(target), means))
    there = next(now, 0)
    what = f"{there} {'policy denies' if there == 1 else 'policies deny'} nothing on this node"
    click.echo(
        f"{target} is {click.style('in audit', fg='yellow')}: {what if there else 'there is no such policy yet'}"
    )
    _finish(change)


@audit.command()
@_target_options
@connection.agent_options
def disable(socket: pathlib.Path, *, namespace: str | None, policy: str | None) -> None:
    """Enforce a namespace or a policy again, also on connections that are open; exits with 1 if it stays in audit."""
    target = target_of(namespace, policy)
    with client.AgentClient(socket) as agent:
        change = agent.set_audit(target, enable=False)
    if change.held_by:
        ways = "; ".join(ENDED_BY.get(means, "disable its whole namespace") for means in change.held_by)
        click.echo(f"{target} stays in audit, by {' and '.join(change.held_by)}: {ways}", err=True)
        sys.exit(output.ExitCode.FAILURE)
    click.echo(f"{target} is enforced")
    _finish(change)


@audit.command("list")
@connection.agent_options
@output.output_option
def list_(socket: pathlib.Path, *, form: output.Form) -> None:
    """List what is in audit, by which means, for how long, and how many connections it would have denied."""
    with client.AgentClient(socket) as agent:
        entries, trouble = agent.audit()
    if trouble:
        click.echo(output.escape(trouble), err=True)
    now = time.time_ns()
    document = {"audit": output.plain(entries)}
    rows, names = [_row(one, now) for one in entries], [_name(one) for one in entries]
    click.echo(output.listed(output.Listing(rows=rows, columns=COLUMNS, names=names, document=document), form))


def target_of(namespace: str | None, policy: str | None) -> audit_.Target:
    """Return what the options mean. Raises InvalidInput."""
    if (namespace is None) is (policy is None):
        remedy = "name one of -n NAMESPACE and --policy NAMESPACE/NAME"
        raise errors.InvalidInput(field="--policy", value=policy or "", remedy=remedy)
    field, text = ("--policy", policy) if policy is not None else ("--namespace", namespace)
    found = audit_.target(str(text), field=field)
    if bool(found.policy) is not (policy is not None):
        raise errors.InvalidInput(field=field, value=text, remedy="write -n NAMESPACE, or --policy NAMESPACE/NAME")
    return found


def _names(target: audit_.Target) -> tuple[str, str]:
    return target.namespace, target.policy


def _finish(change: views.AuditChange) -> None:
    """Say what is not as it should be, and exit with 1 if anything is."""
    if not change.in_force:
        click.echo("this is not in force yet; see agentctl status", err=True)
    if change.trouble:
        click.echo(f"a restart would forget this: {output.escape(change.trouble)}", err=True)
    if change.trouble or not change.in_force:
        sys.exit(output.ExitCode.FAILURE)


def _name(one: views.AuditEntry) -> str:
    return f"{one.namespace}/{one.policy}" if one.policy else one.namespace


def _row(one: views.AuditEntry, now_ns: int) -> dict[str, object]:
    return {
        "namespace": one.namespace,
        "policy": one.policy or ALL,
        "by": one.means,
        "for": status_.ago(now_ns, one.since_unix_ns),
        "policies": one.policies or output.Styled("none there", "yellow"),
        "would_deny": one.would_deny,
    }
