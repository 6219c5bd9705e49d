"""`agentctl fqdn`: which names policies mean, which addresses DNS gave pods for them, and what comes of one."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import click

from agent.cli import connection, output, watching
from agent.rpc import client, names

CACHE_COLUMNS = ("namespace", "pod", "address", "name", "pattern", "expires")
CACHE_WIDE = ("class", "remembered")
NAMES_COLUMNS = ("pattern", "kind", "policies", "addresses", "refused")
UNMEANT = "no policy"


@click.group()
def fqdn() -> None:
    """Names of policies, and the addresses that DNS gave pods for them."""


@fqdn.command("cache")
@click.argument("pod", metavar="[POD|ID]", default="")
@connection.agent_options
@watching.watch_option
@output.output_option
def cache(socket: pathlib.Path, pod: str, *, form: output.Form, watch: bool) -> None:
    """List what pods, or one, were told: each address with the names it was told by and the patterns they match."""
    with client.AgentClient(socket) as agent:
        watching.show(lambda: _cache(agent.learned(pod)), form=form, watch=watch)


@fqdn.command("names")
@connection.agent_options
@watching.watch_option
@output.output_option
def names_(socket: pathlib.Path, *, form: output.Form, watch: bool) -> None:
    """List the names that policies of this node mean; `addresses` is how many count for each now."""
    with client.AgentClient(socket) as agent:
        known = agent.names()
        if form is output.Form.TABLE:
            _say_whom(known)
        watching.show(lambda: _names(agent.names()), form=form, watch=watch)


@fqdn.command("explain")
@click.argument("pod", metavar="POD|ID")
@click.argument("name", metavar="NAME|ADDRESS")
@connection.agent_options
@output.output_option
def explain(socket: pathlib.Path, pod: str, name: str, *, form: output.Form) -> None:
    """Say what a name or an address means for a pod: which policies mean it, what was told, what that opens."""
    with client.AgentClient(socket) as agent:
        found = agent.explain_name(pod, name)
    document = {"explanation": output.plain(found)}
    click.echo(output.one([*_lines(found)], form=form, name=f"{found.namespace}/{found.pod}", document=document))


def _cache(found: Sequence[names.LearnedAddress]) -> output.Listing:
    return output.Listing(
        rows=[_cache_row(one) for one in found],
        columns=CACHE_COLUMNS,
        wide=CACHE_WIDE,
        names=[f"{one.namespace}/{one.pod}/{one.address}" for one in found],
        document={"addresses": output.plain(found)},
    )


def _cache_row(one: names.LearnedAddress) -> dict[str, object]:
    patterns = sorted({pattern for each in one.classes for pattern in each.patterns})
    return {
        "namespace": one.namespace,
        "pod": one.pod,
        "address": one.address,
        "name": [each.name for each in one.names],
        "pattern": patterns or output.Styled(UNMEANT, "dim"),
        "expires": _when(max((each.expires_s for each in one.classes), default=None)),
        "class": [f"{each.number:#x}" for each in one.classes],
        "remembered": _when(max((each.expires_s for each in one.names), default=None)),
    }


def _when(seconds: float | None) -> output.Styled | str | None:
    if seconds is None:
        return None
    if seconds > 0:
        return f"in {seconds:.0f}s"
    return output.Styled(f"{-seconds:.0f}s ago", "dim")


def _say_whom(known: names.KnownNames) -> None:
    """Tell on stderr what the table has no place for."""
    if not known.learns:
        click.echo(names.NOT_LEARNED, err=True)
    elif known.resolvers:
        click.echo(f"answers are believed from {', '.join(map(str, known.resolvers))}", err=True)


def _names(known: names.KnownNames) -> output.Listing:
    return output.Listing(
        rows=[
            {
                "pattern": one.pattern,
                "kind": one.dialect,
                "policies": [f"{ref.namespace}/{ref.name}".lstrip("/") for ref in one.policies],
                "addresses": one.addresses,
                "refused": output.Styled(one.refused, "yellow") if one.refused else None,
            }
            for one in known.patterns
        ],
        columns=NAMES_COLUMNS,
        names=[one.pattern for one in known.patterns],
        document={"names": output.plain(known)},
    )


def _lines(found: names.Explained) -> Iterator[tuple[str, object]]:
    yield "pod", output.Styled(f"{found.namespace}/{found.pod}", "bold")
    yield "asked", found.asked
    yield "matches", found.patterns or "no pattern of this node's policies"
    yield "policies", [str(ref) for ref in found.policies] or "none"
    for place, one in enumerate(found.addresses):
        told = ", ".join(f"{each.name} ({_text(each.expires_s)})" for each in one.names) or "a name that is forgotten"
        counts = max((each.expires_s for each in one.classes), default=None)
        state = "opens nothing" if counts is None else _text(counts)
        yield "told" if not place else "", f"{one.address} by {told}: {state}{', in use' if one.used else ''}"
    for place, row in enumerate(found.rows):
        opens = f"{row.action} {row.protocol} {row.ports} to {row.peer} (egress rule {row.rule_index})"
        yield "opens" if not place else "", opens
    for place, why in enumerate(found.because):
        yield "so" if not place else "", why


def _text(seconds: float) -> str:
    return f"for {seconds:.0f}s" if seconds > 0 else f"expired {-seconds:.0f}s ago"
