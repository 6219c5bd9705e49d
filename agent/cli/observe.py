"""`agentctl observe`: verdicts as they happen or as they were recorded, with the policy that caused each.

The flags are Hubble's, and what `-o json` prints is Hubble's JSON: its command line reads it, and so does every verb
here that takes `--flows`. A recording answers the same questions as an agent does.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import click

from agent import errors
from agent.api.observer import observer_pb2 as pb
from agent.cli import connection, flow_filters, flow_lines, jsonpath, output, recordings
from agent.flows import records
from agent.hubble import client, replay, requests

WITH_PATH = f"{output.JSONPATH}EXPR"
FORMS = ("compact", "dict", "json", "jsonpb", "table", "yaml", WITH_PATH)

Form: TypeAlias = str | jsonpath.Template
"""How to print a flow: one of FORMS, or what is to be printed of its document."""


class FormChoice(click.Choice[str]):
    """One of FORMS; with a path, read already."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return a Form; what is neither a name nor a path that is understood is usage."""
        if not value.startswith(output.JSONPATH):
            return super().convert(value, param, ctx)
        try:
            return jsonpath.parse(value.removeprefix(output.JSONPATH))
        except errors.InvalidInput as error:
            self.fail(output.escape(str(error)), param, ctx)


@click.command(cls=flow_filters.Negatable)
@click.option("-f", "--follow", is_flag=True, help="Go on with those to come.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="The last N; 20 unless told.")
@click.option("--first", type=click.IntRange(min=1), metavar="N", help="The first N.")
@click.option("--all", "everything", is_flag=True, help="All that are stored.")
@click.option("--since", default="", metavar="WHEN", help="5m, 1h30m (ago), 2026-11-21T14:16:42Z.")
@click.option("--until", default="", metavar="WHEN", help="As --since.")
@click.option("--input-file", type=click.Path(path_type=pathlib.Path, allow_dash=True), help="A recording; - is stdin.")
@click.option("--skip-malformed", is_flag=True, help="Pass over lines of it that cannot be read, and count them.")
@flow_filters.filter_options
@click.option("-o", "--output", "form", type=FormChoice(FORMS), default="compact", help="How to print.")
@click.option(
    "--print-policy-names", "policies", is_flag=True, help="Name the policies apart from what is said of them."
)
@click.option("--raw", is_flag=True, help="What each layer said for itself, not one verdict a connection.")
@connection.agent_when_asked
@output.color_option
def observe(
    locate: connection.Locate,
    *,
    follow: bool,
    last: int | None,
    first: int | None,
    everything: bool,
    since: str,
    until: str,
    input_file: pathlib.Path | None,
    skip_malformed: bool,
    form: Form,
    policies: bool,
    raw: bool,
    not_: bool,  # noqa: ARG001 - `Negatable` has dealt with it
    **values: tuple[str, ...],
) -> None:
    """Show who talks to whom, what became of it, and which policy decided.

    \b
    agentctl observe --follow --verdict DROPPED
    agentctl observe --pod shop/backend --not --from-pod shop/frontend
    agentctl observe --all -o json > flows.json; agentctl observe --input-file flows.json
    agentctl observe -o 'jsonpath={.flow.source.pod_name} -> {.flow.destination.pod_name}'
    """  # noqa: D301 - click's own mark of lines to keep
    if raw and input_file is not None:
        raise errors.InvalidInput(field="--raw", value="--input-file", remedy="a recording has what was recorded")
    if follow and (form == "table" or input_file is not None):
        field = "--input-file" if input_file is not None else "-o"
        raise errors.InvalidInput(field=field, value=str(input_file or form), remedy="leave it out to follow")
    bare = last is None and first is None and not everything and not since and not follow and input_file is None
    asked = flow_filters.request(
        values,
        last=flow_filters.DEFAULT_LAST if bare else last,
        first=first,
        everything=everything,
        follow=follow,
        since=since,
        until=until,
        now_ns=time.time_ns(),
    )
    try:
        if input_file is None:
            _print(live(locate(), asked, raw=raw), form, policies=policies)
        else:
            _replayed(input_file, asked, form, policies=policies, skip_malformed=skip_malformed)
    except KeyboardInterrupt:
        return  # how a person ends --follow


def live(socket: pathlib.Path, asked: pb.GetFlowsRequest, *, raw: bool) -> Iterator[records.Line]:
    """Yield what the agent tells, `raw` of each layer; raises InvalidInput, Unreachable."""
    if not raw:
        with client.FlowClient(client.beside(socket)) as agent:
            yield from agent.flows(asked)
        return
    query = requests.query(asked)
    if query.window.follow:
        window = dataclasses.replace(query.window, number=None)
        query = dataclasses.replace(query, window=window)
    with client.FlowClient(socket) as agent:
        yield from replay.answered(agent.layers(asked), query)


def _replayed(
    path: pathlib.Path, asked: pb.GetFlowsRequest, form: Form, *, policies: bool, skip_malformed: bool
) -> None:
    query = requests.query(asked)
    with recordings.opened(path) as lines:
        reader = records.Reader(lines, skip_malformed=skip_malformed)
        _print(replay.answered(reader, query), form, policies=policies)
    for count, what in ((reader.malformed, "could not be read"), (reader.others, "hold no verdict of a policy")):
        if count:
            click.echo(f"{count} lines of {output.escape(str(path))} {what}", err=True)


def _print(lines: Iterable[records.Line], form: Form, *, policies: bool) -> None:
    if form == "table":
        items = [line.item for line in lines]
        rows = [flow_lines.row(item, policies=policies) for item in items if isinstance(item, records.Record)]
        click.echo(output.render(rows, columns=flow_lines.COLUMNS, form=output.Form.TABLE, document=None))
        items = [item for item in items if isinstance(item, records.Lost)]
        for item in items:
            click.echo(flow_lines.line(item), err=True)
        return
    for line in lines:
        click.echo(printed(line, form, policies=policies))


def printed(line: records.Line, form: Form, *, policies: bool = False) -> str:
    """Return a flow as a line, a block, a JSON object in one line, a YAML document, or what a path finds in it."""
    match form:
        case jsonpath.Template():
            return form.apply(line.document).removesuffix("\n")  # who prints it ends the line
        case "json" | "jsonpb":
            return output.to_json(line.document)
        case "yaml":
            return "---\n" + output.render((), columns=(), form=output.Form.YAML, document=line.document)
        case "dict":
            return flow_lines.block(line.item, policies=policies)
        case _:
            return flow_lines.line(line.item, policies=policies)
