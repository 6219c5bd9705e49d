"""`agentctl status` and `version`: what runs, whether it is up to date, and what is wrong."""

from __future__ import annotations

import pathlib
import sys
import time
from collections.abc import Iterator

import click

from agent import errors
from agent.cli import connection, output
from agent.rpc import client, views

POLL_S = 0.05
SECOND_NS = 1_000_000_000


@click.command()
@click.option("--brief", is_flag=True, help="One line: OK, or why not.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait until it is OK.")
@connection.agent_options
@output.output_option
def status(socket: pathlib.Path, *, brief: bool, wait_s: float | None, form: output.Form) -> None:
    """Show what the agent enforces; exits with 1 where it is not in sync, or something failed."""
    with client.AgentClient(socket) as agent:
        now = _waited(agent, wait_s) if wait_s is not None else agent.status()
    trouble = pending(now)
    if form is not output.Form.TABLE:
        document = {"status": output.plain(now), "ok": not trouble, "pending": trouble}
        click.echo(output.render((), columns=(), form=form, document=document))
    elif brief:
        click.echo(f"{now.node}: {trouble or 'OK'}")
    else:
        for label, text in lines(now, unix_ns=time.time_ns()):
            click.echo(f"{click.style(f'{label:<10}', bold=True)} {text}".rstrip())
    sys.exit(output.ExitCode.FAILURE if trouble else output.ExitCode.OK)


@click.command()
@output.output_option
def version(form: output.Form) -> None:
    """Print the version of agentctl; an agent's is in its status."""
    from importlib import metadata  # noqa: PLC0415 - 30 ms that no other verb needs

    number = metadata.version("nodewall")
    if form is output.Form.TABLE:
        click.echo(f"agentctl {number}")
    else:
        click.echo(output.render((), columns=(), form=form, document={"version": number}))


def pending(now: views.Status) -> str:
    """Return why the agent does not enforce its present inputs; "" if it does."""
    if now.last_error:
        return f"the last change is not enforced: {output.escape(now.last_error)}"
    if now.repair_error:
        return f"rules that others changed are not put right: {output.escape(now.repair_error)}"
    if not now.synced:
        return "waiting for the first whole list of every input; what was enforced before is in force"
    if now.enforced_revision < now.revision:
        return f"revision {now.revision} is not enforced yet"
    return ""


def lines(now: views.Status, *, unix_ns: int) -> Iterator[tuple[str, str]]:
    """Yield label and text of each line."""
    escape = output.escape
    trouble = pending(now)
    state = click.style(trouble, fg="red") if trouble else click.style("OK", fg="green")
    yield escape(now.node), f"{state}, nodewall {now.version}, up {_ago(unix_ns, now.started_unix_ns)}"
    yield "ready", "; ".join(click.style(escape(why), fg="red") for why in now.not_ready) or "yes"
    iptables = f" ({escape(now.iptables)})" if now.iptables else ""
    yield "engine", f"{now.mode}{iptables}, denied is answered by {now.deny_mode}, hold {now.hold_mode}"
    for reason in now.mode_reasons:
        yield "", escape(reason)
    for number, how in enumerate(now.proved):
        yield "proved" if not number else "", escape(how)
    yield "source", f"{escape(now.source)}, changed {_ago(unix_ns, now.source_changed_unix_ns)} ago"
    enforced = f"enforced for {_ago(unix_ns, now.enforced_unix_ns)}" if now.enforced_revision else "nothing yet"
    yield "policy", f"revision {now.enforced_revision}, generation {now.generation}, {enforced}"
    yield "", f"{now.policies} policies in {now.policy_sets} sets of {now.rows} rows, {now.identities} identities"
    held = click.style(f", {now.held_endpoints} held", fg="yellow") if now.held_endpoints else ""
    yield "pods", f"{now.endpoints} endpoints of {now.sandboxes} sandboxes{held}"
    if now.last_repair:
        yield "repaired", f"{escape(now.last_repair)}, {_ago(unix_ns, now.last_repair_unix_ns)} ago"
    counters = [f"{name} {value}" for name, value in sorted(now.counters.items()) if value]
    yield "counters", ", ".join(counters) or "all 0"
    for number, problem in enumerate(now.problems):
        where = escape(f"{problem.ref} {problem.path}".strip())
        yield "problems" if not number else "", f"{click.style(where, fg='yellow')}: {escape(problem.reason)}"


def _waited(agent: client.AgentClient, wait_s: float) -> views.Status:
    """Return the first status that is OK, or the last one before `wait_s` seconds are over."""
    deadline = time.monotonic() + wait_s
    while True:
        left = deadline - time.monotonic()
        try:
            now = agent.status()
        except errors.Unreachable:
            if left <= 0:
                raise
        else:
            if not pending(now) or left <= 0:
                return now
        time.sleep(min(POLL_S, max(left, 0)))


def _ago(now_ns: int, then_ns: int) -> str:
    """Return a span of time in the two units people would say."""
    if not then_ns:
        return "never"
    seconds = max(0, now_ns - then_ns) / SECOND_NS
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{minutes} min" if not hours else f"{hours} h {minutes % 60} min"
