"""`agentctl bpf`: the BPF programs and maps in the kernel, as the agent reads them at this moment."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Mapping, Sequence

import click

from agent import errors
from agent.cli import connection, output
from agent.datapath import tracing
from agent.rpc import client, traces

PROGRAM_COLUMNS = ("name", "type", "attached", "id", "tag", "instructions")
MAP_COLUMNS = ("name", "type", "entries", "capacity", "pressure")
ROW_COLUMNS = ("key", "value")
ROWS_SHOWN = 1000
FIXED = frozenset({"ringbuf", "array", "percpu_array"})
"""Types that are always as large as they are."""


@click.group()
def bpf() -> None:
    """Programs and maps in the kernel."""


@bpf.command()
@connection.agent_options
@output.output_option
def progs(socket: pathlib.Path, *, form: output.Form) -> None:
    """List our programs: where each is attached, its tag, and the instructions the verifier walked."""
    found = _tables(socket)
    _require(found, found.inventory.programs)
    rows = [_plain(one) for one in found.inventory.programs]
    click.echo(_listed(rows, PROGRAM_COLUMNS, form, {"programs": rows}))


@bpf.command()
@connection.agent_options
@output.output_option
def maps(socket: pathlib.Path, *, form: output.Form) -> None:
    """List our maps: entries counted in the kernel, what each can hold, and how full it is."""
    found = _tables(socket)
    held = [one for one in found.inventory.tables if one.kind is tracing.Kind.MAP]
    _require(found, held)
    rows = [_plain(one) | {"pressure": _pressure(one)} for one in held]
    click.echo(_listed(rows, MAP_COLUMNS, form, {"maps": rows}))


@bpf.command()
@click.argument("table", metavar="MAP")
@click.option("--pod", default="", metavar="NAMESPACE/NAME", help="Only rows that concern this pod.")
@click.option("--set", "policy_set", type=click.IntRange(0, 2**32 - 1), default=0, help="Only rows of this policy set.")
@click.option("--limit", type=click.IntRange(min=0), default=ROWS_SHOWN, show_default=True, help="0: all rows.")
@connection.agent_options
@output.output_option
def dump(socket: pathlib.Path, *, table: str, pod: str, policy_set: int, limit: int, form: output.Form) -> None:
    """Show a map's rows in words: whose identity, which policy's rule."""
    print_rows(socket, table, form, pod=pod, policy_set=policy_set, limit=limit)


def print_rows(
    socket: pathlib.Path, table: str, form: output.Form, *, pod: str = "", policy_set: int = 0, limit: int
) -> None:
    """Print the rows of a map, set or chain; that there are more is said on stderr."""
    rows: list[Mapping[str, object]] = []
    with client.AgentClient(socket) as agent:
        found = agent.rows(table, endpoint=pod, policy_set=policy_set, limit=limit)
        more = False
        try:
            while True:
                row = next(found)
                rows.append({"key": row.key, "value": row.value})
        except StopIteration as ended:
            more = bool(ended.value)
    click.echo(output.render(rows, columns=ROW_COLUMNS, form=form, document={"rows": rows, "more": more}))
    if more:
        click.echo(f"agentctl: the first {limit} rows; --limit 0 shows all", err=True)


def _listed(rows: Sequence[Mapping[str, object]], columns: Sequence[str], form: output.Form, document: object) -> str:
    names = [str(row["name"]) for row in rows]
    return output.listed(output.Listing(rows=rows, columns=columns, names=names, document=document), form)


def _tables(socket: pathlib.Path) -> traces.Tables:
    with client.AgentClient(socket) as agent:
        return agent.tables()


def _require(found: traces.Tables, of_bpf: Iterable[object]) -> None:
    if not any(True for _ in of_bpf):
        raise errors.DatapathError(f"the engine {found.mode} has no BPF in the kernel; see agentctl ipt show")


def _plain(one: tracing.Program | tracing.TableUse) -> dict[str, object]:
    fields = output.plain(one)
    assert isinstance(fields, dict)  # noqa: S101 - a dataclass
    return fields


def _pressure(one: tracing.TableUse) -> str:
    """Return how full a map is, whose entries come and go."""
    return f"{100 * one.entries / one.capacity:.1f} %" if one.capacity and one.type not in FIXED else ""
