"""`agentctl status`: what runs, whether it is up to date, and what is wrong."""

from __future__ import annotations

import contextlib
import pathlib
import sys
import time
from collections.abc import Iterator

import click

from agent import errors
from agent.cli import connection, output, watching
from agent.rpc import client, views

POLL_S = 0.05
SECOND_NS = 1_000_000_000


@click.command()
@click.option("--brief", is_flag=True, help="One line: OK, or why not.")
@click.option("--wait", "wait_s", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait until it is OK.")
@connection.agent_options
@watching.watch_option
@output.output_option
def status(socket: pathlib.Path, *, brief: bool, wait_s: float | None, form: output.Form, watch: bool) -> None:
    """Show what the agent enforces; exits with 5 where it is not in sync, not ready, or something failed."""
    with client.AgentClient(socket) as agent:
        now = _waited(agent, wait_s) if wait_s is not None else agent.status()
        if watch:
            _watch(agent, brief=brief, form=form)
            return
    click.echo(_shown(now, brief=brief, form=form))
    sys.exit(output.ExitCode.DEGRADED if pending(now) else output.ExitCode.OK)


def _shown(now: views.Status, *, brief: bool, form: output.Form) -> str:
    trouble = pending(now)
    if form is not output.Form.TABLE:
        return output.dump({"status": output.plain(now), "ok": not trouble, "pending": trouble}, form)
    if brief or output.presentation().names:
        return f"{output.escape(now.node)}: {trouble or 'OK'}" if brief else output.escape(now.node)
    found = lines(now, unix_ns=time.time_ns())
    return "\n".join(f"{click.style(f'{label:<10}', bold=True)} {text}".rstrip() for label, text in found)


def _watch(agent: client.AgentClient, *, brief: bool, form: output.Form) -> None:
    """Redraw on a terminal; elsewhere print a line, or a document, whenever it is another."""
    redraw = sys.stdout.isatty() and form is output.Form.TABLE and not brief
    before = ""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            text = _shown(agent.status(), brief=not redraw, form=form)
            if redraw:
                click.clear()
            if redraw or text != before:
                click.echo(text)
            before = text
            time.sleep(watching.INTERVAL_S)


def pending(now: views.Status) -> str:
    """Return why the agent does not enforce its present inputs, or is not ready; "" if all is in order."""
    if now.last_error:
        return f"the last change is not enforced: {output.escape(now.last_error)}"
    if now.repair_error:
        return f"rules that others changed are not put right: {output.escape(now.repair_error)}"
    if not now.synced:
        return "waiting for the first whole list of every input; what was enforced before is in force"
    if now.enforced_revision < now.revision:
        return f"revision {now.revision} is not enforced yet"
    if now.not_ready:
        return f"not ready: {output.escape('; '.join(now.not_ready))}"
    return ""


def lines(now: views.Status, *, unix_ns: int) -> Iterator[tuple[str, str]]:
    """Yield label and text of each line."""
    escape = output.escape
    trouble = pending(now)
    state = click.style(trouble, fg="red") if trouble else click.style("OK", fg="green")
    yield escape(now.node), f"{state}, nodewall {escape(now.version)}, up {ago(unix_ns, now.started_unix_ns)}"
    yield "ready", "; ".join(click.style(escape(why), fg="red") for why in now.not_ready) or "yes"
    iptables = f" ({now.iptables})" if now.iptables else ""
    yield "engine", escape(f"{now.mode}{iptables}, denied is answered by {now.deny_mode}, hold {now.hold_mode}")
    for reason in now.mode_reasons:
        yield "", escape(reason)
    for number, how in enumerate(now.proved):
        yield "proved" if not number else "", escape(how)
    yield "source", f"{escape(now.source)}, changed {ago(unix_ns, now.source_changed_unix_ns)} ago"
    enforced = f"enforced for {ago(unix_ns, now.enforced_unix_ns)}" if now.enforced_revision else "nothing yet"
    yield "policy", f"revision {now.enforced_revision}, generation {now.generation}, {enforced}"
    yield "", f"{now.policies} policies in {now.policy_sets} sets of {now.rows} rows, {now.identities} identities"
    held = click.style(f", {now.held_endpoints} held", fg="yellow") if now.held_endpoints else ""
    yield "pods", f"{now.endpoints} endpoints of {now.sandboxes} sandboxes{held}"
    if now.audited:
        named = "; ".join(map(escape, now.audited))
        yield "audit", click.style(f"AUDIT: {named}; {now.audited_endpoints} endpoints", fg="yellow")
    if now.last_repair:
        yield "repaired", f"{escape(now.last_repair)}, {ago(unix_ns, now.last_repair_unix_ns)} ago"
    counters = [f"{escape(name)} {value}" for name, value in sorted(now.counters.items()) if value]
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


def ago(now_ns: int, then_ns: int) -> str:
    """Return a span of time in the two units people would say."""
    if not then_ns:
        return "never"
    seconds = max(0, now_ns - then_ns) / SECOND_NS
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    return f"{minutes} min" if not hours else f"{hours} h {minutes % 60} min"
