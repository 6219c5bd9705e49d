"""`agentctl graph`: who may talk to whom by the policies, and who did by the verdicts.

Policies and pods come from manifests (`-f`), verdicts from recordings (`--flows`). What is not given is asked of the
agent: it knows the whole cluster's policies, its own node's verdicts, and what is in audit there (A51). A recording
may be of another cluster, so with one alone nobody is asked and no policy is drawn; with `--offline` nobody is asked.
"""

from __future__ import annotations

import importlib.resources
import pathlib
import shutil
import sys
from collections.abc import Mapping

import click
from rich import text as rich_text

from agent import errors, snapshot
from agent import graph as graph_
from agent.cli import auditing, connection, manifest_files, output, recordings
from agent.graph import build, document, dot, model, page, seen, svg, terminal, words
from agent.model import audit as audit_
from agent.policy import reachability

FORMS = ("terminal", "svg", "html", "json", "dot")
TITLE = "Who may talk to whom, and who did"
PAGE_PARTS = ("page.html", "page.css", "page.js")
WIDTH_LEAST, WIDTH_MOST, WIDTH_PIPE = 80, 200, 120


@click.command()
@manifest_files.option("Pods and policies, else the agent's")
@click.option("-n", "--namespace", "namespaces", multiple=True, help="Only edges with an end there; may be repeated.")
@recordings.options
@auditing.options
@click.option("--offline", is_flag=True, help="Ask no agent.")
@click.option("--pods", "expand", is_flag=True, help="Pods instead of workloads.")
@click.option("--all", "everything", is_flag=True, help="Also what no policy speaks of, and is allowed therefore.")
@click.option("-o", "--output", "form", type=click.Choice(FORMS), default="terminal", help="How; terminal unless told.")
@click.option("--out", type=click.Path(path_type=pathlib.Path), help="Write it to this file.")
@connection.agent_when_asked
@output.color_option
def graph(
    locate: connection.Locate,
    *,
    paths: tuple[pathlib.Path, ...],
    namespaces: tuple[str, ...],
    flows: tuple[pathlib.Path, ...],
    since: str,
    skip_malformed: bool,
    audit: audit_.Audit,
    offline: bool,
    expand: bool,
    everything: bool,
    form: str,
    out: pathlib.Path | None,
) -> None:
    """Draw who may talk to whom, and who did.

    ━━▶ allowed and seen, ··▶ allowed and never seen, ╌╌✕ tried and denied, ╍╍▶ passes, and policies in audit would deny
    it. As HTML it is one page to look around in.
    """
    if offline and not paths and not flows:
        raise errors.InvalidInput(field="--offline", value=True, remedy="give -f manifests, --flows, or both")
    live = not offline and not flows
    known, audits = _known(paths, locate, audit, live=live)
    asked = build.Asked(namespaces=frozenset(namespaces), expand=expand, everything=everything, audits=audits)
    if live or flows:
        with recordings.reading(flows, locate, since=since, skip_malformed=skip_malformed) as found:
            drawn = build.build(known, filter(None, map(seen.of_record, found)), asked=asked)
        drawn = build.with_lost(drawn, found.lost)
    else:
        drawn = build.build(known, (), asked=asked)
    _require(drawn, namespaces)
    _write(_written(drawn, form), out)


def _known(
    paths: tuple[pathlib.Path, ...], locate: connection.Locate, audit: audit_.Audit, *, live: bool
) -> tuple[snapshot.Snapshot | None, Mapping[str, audit_.Audit]]:
    """Return the pods and policies, and what is in audit at each node: by the flags, or by what the agent says."""
    if paths:
        loaded = manifest_files.load(paths)
        return loaded, auditing.checked(loaded, audit)
    if audit != audit_.NOTHING:
        option = auditing.used(audit)
        remedy = "give manifests with -f; of its own policies the agent says which are in audit"
        raise errors.InvalidInput(field=option, value="given without -f", remedy=remedy)
    if not live:
        return None, reachability.NO_AUDITS
    socket = locate()
    return recordings.cluster(socket), recordings.audits(socket)


def _require(drawn: model.Graph, namespaces: tuple[str, ...]) -> None:
    """Raise where there is nothing to draw."""
    if drawn.nodes:
        return
    if namespaces:
        value = ", ".join(namespaces)
        raise errors.InvalidInput(field="--namespace", value=value, remedy="no pod and no verdict there")
    raise output.Failure("there is nothing to draw: no pod and no verdict is known")


def _write(text: str, out: pathlib.Path | None) -> None:
    if out is None:
        click.echo(text)
        return
    try:
        out.write_text(text + "\n", encoding="utf-8")
    except OSError as error:
        remedy = f"it cannot be written ({error.strerror})"
        raise errors.InvalidInput(field="--out", value=str(out), remedy=remedy) from error


def _written(drawn: model.Graph, form: str) -> str:
    match form:
        case "svg":
            return svg.document(drawn, title=TITLE).rstrip("\n")
        case "html":
            here = importlib.resources.files(graph_)
            parts = {name: (here / name).read_text(encoding="utf-8") for name in PAGE_PARTS}
            return page.page(drawn, title=TITLE, parts=parts).rstrip("\n")
        case "json":
            return output.to_json(document.document(drawn), indent=2)
        case "dot":
            return "\n".join(dot.lines(drawn, title=TITLE))
        case _:
            return _painted(drawn)


def _painted(drawn: model.Graph) -> str:
    columns = WIDTH_PIPE
    if sys.stdout.isatty():
        columns = min(max(shutil.get_terminal_size().columns, WIDTH_LEAST), WIDTH_MOST)
    painted = rich_text.Text()
    for line in terminal.lines(drawn, width=columns):
        for piece in line:
            painted.append(words.plain(piece.text), style=piece.style.value)
        painted.append("\n")
    painted.rstrip()
    return output.paint(painted)
