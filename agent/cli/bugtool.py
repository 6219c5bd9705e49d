"""`agentctl bugtool`: one archive with what a report of a bug needs, and no secret (`bundle.items` is all of it)."""

from __future__ import annotations

import pathlib
import re
import secrets
import sys
import time
from collections.abc import Iterator
from importlib import metadata

import click

from agent import errors
from agent.cli import connection, output
from agent.cli.bundle import archive, items, redact
from agent.rpc import client

STDOUT = pathlib.Path("-")
UNSAFE = re.compile(r"[^A-Za-z0-9.-]+")


@click.command()
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=pathlib.Path, dir_okay=False, allow_dash=True),
    metavar="FILE.tar.gz",
    help="Where to write, - is stdout; nodewall-bugtool-NODE-TIME.tar.gz unless told.",
)
@click.option(
    "--redact", "labels", is_flag=True, help="Hash the values of labels; leave out log and texts quoting them."
)
@connection.agent_options
def bugtool(socket: pathlib.Path, path: pathlib.Path | None, *, labels: bool) -> None:
    """Collect status, configuration, endpoints, policies, audit, identities, Services, metrics, verdicts, log, kernel.

    Never environment, tokens, keys or certificates. Without an agent it collects what the node tells. Look into the
    archive before you pass it on: it has names, addresses and labels of your pods.

    In a container: kubectl exec POD -- agentctl bugtool -o - > bundle.tar.gz
    """
    node = _node(socket)
    directory = f"nodewall-bugtool-{UNSAFE.sub('-', node)}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    target = path or pathlib.Path(f"{directory}.tar.gz")
    piped = target == STDOUT
    if piped and sys.stdout.isatty():
        raise errors.InvalidInput(field="-o", value="-", remedy="stdout is a terminal; send it to a file")
    if not piped and target.exists():
        raise errors.InvalidInput(field="-o", value=str(target), remedy="name a file that is not there yet")
    redactor = redact.Redactor(key=secrets.token_bytes(16), labels=labels)
    found = list(_collected(socket, redactor, terminal=sys.stderr.isatty()))
    about = {
        "agentctl": metadata.version("nodewall"),
        "node": redact.scrub(node),
        "unix_time": int(time.time()),
        "labels": "hashed" if labels else "as they are",
    }
    if piped:
        archive.write_to(sys.stdout.buffer, directory, found, about)
    else:
        archive.write(target, directory, found, about)
    failed = [one for one in found if one.error]
    for one in failed:
        click.echo(f"agentctl: not collected: {one.name}: {output.escape(one.error)}", err=True)
    said = f"{len(found) - len(failed)} of {len(found)} items"
    click.echo(said if piped else f"{output.escape(str(target))}: {target.stat().st_size} bytes, {said}", err=piped)


def _collected(socket: pathlib.Path, redactor: redact.Redactor, *, terminal: bool) -> Iterator[archive.Collected]:
    for item in items.everything(socket, texts=not redactor.labels):
        if terminal:
            click.echo(f"{item.name} ... ", err=True, nl=False)
        one = archive.collect(item, redactor)
        if terminal:
            size = len(one.content) if one.content is not None else 0
            click.echo(f"{size} bytes in {one.seconds:.1f} s" if size else "failed", err=True)
        yield one


def _node(socket: pathlib.Path) -> str:
    try:
        with client.AgentClient(socket) as agent:
            return agent.status().node
    except errors.NodewallError:
        return "unknown"
