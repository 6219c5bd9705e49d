"""`agentctl simulate`: what other policies would do to flows that were seen, before anybody applies them."""

from __future__ import annotations

import collections
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from agent import errors, snapshot
from agent.cli import connection, coverage, manifest_files, output, recordings
from agent.flows import parties, talks
from agent.flows import simulate as simulation
from agent.model import resources
from agent.sources import manifests

COLUMNS = ("source", "destination", "port", "count", "last_seen", "because", "formerly")
TITLES = {
    simulation.Outcome.BREAKS: ("would break", "red"),
    simulation.Outcome.OPENS: ("would newly pass", "green"),
    simulation.Outcome.OUTDATED: ("recorded otherwise than the present policies have it; nothing changes", "yellow"),
    simulation.Outcome.UNRESOLVED: ("cannot be told", "yellow"),
}
"""Outcomes whose flows are listed."""
CLUSTER_WIDE = "ClusterNetworkPolicy"
KINDS = {kind.lower(): kind for kind in ("NetworkPolicy", "CiliumNetworkPolicy", CLUSTER_WIDE)}


@click.command()
@manifest_files.option("New or changed policies")
@click.option("--delete", "deleted", multiple=True, metavar="KIND/[NS/]NAME", help="A policy to do without.")
@click.option("--base", type=click.Path(path_type=pathlib.Path), help="Manifests of the cluster; else ask the agent.")
@recordings.options
@connection.agent_when_asked
@output.output_option
def simulate(
    locate: connection.Locate,
    *,
    paths: tuple[pathlib.Path, ...],
    deleted: tuple[str, ...],
    base: pathlib.Path | None,
    flows: tuple[pathlib.Path, ...],
    since: str,
    skip_malformed: bool,
    form: output.Form,
) -> None:
    """Judge recorded or stored verdicts by the present policies with -f added, or replaced, and --delete taken away.

    Exits with 3 where a flow that passed would be denied, and with 1 where no flow could be judged: that is no yes.
    What was not recorded is not judged: see the coverage.
    """
    if not paths and not deleted:
        raise errors.InvalidInput(field="-f", value="(not given)", remedy="name changed policies, or some to --delete")
    present = manifests.load([base]) if base is not None else recordings.cluster(locate())
    new = simulation.changed(present, _loaded(paths), map(ref, deleted))
    told = recordings.gathered(flows, locate, since=since, skip_malformed=skip_malformed)
    report = simulation.simulate(told, present, new)
    for line in output.prose(text(report), form=form, document=document(report)):
        click.echo(line)
    if not report.resolved:
        raise output.Failure(f"nothing was judged: {unanswered(report, has_base=base is not None)}")
    sys.exit(output.ExitCode.DISAGREEMENT if report.of(simulation.Outcome.BREAKS) else output.ExitCode.OK)


def ref(written: str) -> resources.ObjectRef:
    """Return the policy that KIND/NAMESPACE/NAME means, or KIND/NAME of a kind without namespaces.

    Raises InvalidInput.
    """
    kind, *rest = written.split("/")
    found = KINDS.get(kind.lower(), kind)
    places = 1 if found == CLUSTER_WIDE else 2
    if len(rest) != places or not all((kind, *rest)):
        remedy = f"write KIND/NAMESPACE/NAME, such as NetworkPolicy/shop/default-deny, or {CLUSTER_WIDE}/NAME"
        raise errors.InvalidInput(field="--delete", value=written, remedy=remedy)
    namespace = "" if found == CLUSTER_WIDE else rest[0]
    return resources.ObjectRef(found, namespace, rest[-1])


def text(report: simulation.Report) -> Iterator[str]:
    """Yield the report as people read it: what changes, then how much that is worth."""
    for outcome, (title, colour) in TITLES.items():
        found = report.of(outcome)
        if found:
            yield click.style(f"{coverage.count(len(found), 'flow')} {title}:", fg=colour, bold=True)
            columns = [column for column in COLUMNS if any(row_of(one)[column] for one in found)]
            yield output.render([row_of(one) for one in found], columns=columns, form=output.Form.TABLE, document=None)
            yield ""
    passes, denied = (len(report.of(one)) for one in (simulation.Outcome.PASSES, simulation.Outcome.DENIED))
    if report.resolved:
        if not report.of(simulation.Outcome.BREAKS):
            yield _nothing_breaks(report)
        yield f"unchanged: {passes} pass, {denied} are denied"
    if report.named:
        pods = coverage.count(report.named, "pod")
        yield f"known by its name, as the manifests have no address for it: {pods}"
    if report.stand_ins:
        yield f"judged with another pod of the workload, as the one recorded is gone: {report.stand_ins}"
    yield from coverage.lines(report.coverage)
    if report.resolved < len(report.judged):
        share = report.resolved * 100 // len(report.judged)  # 99.9 % are not all
        judged = f"{report.resolved} of {coverage.count(len(report.judged), 'flow')} ({share} %)"
        yield click.style(f"  judged: {judged}; nothing is known of the others", fg="yellow")


def _nothing_breaks(report: simulation.Report) -> str:
    if report.resolved < len(report.judged):
        return click.style("of the flows that could be judged none would break", fg="yellow", bold=True)
    return click.style("nothing that was seen would break", fg="green", bold=True)


def unanswered(report: simulation.Report, *, has_base: bool) -> str:
    """Say why no flow could be judged, and what to do about it: FIELD: VALUE: REMEDY."""
    if not report.judged:
        return "--flows: no verdict of a policy: record some with agentctl observe -o json, or begin earlier (--since)"
    why, many = collections.Counter(one.why for one in report.judged).most_common(1)[0]
    said = f"none of {coverage.count(len(report.judged), 'flow')} can be told, {many} of them because {why}"
    if not has_base:
        return f"--flows: {said}: give a recording of this agent's cluster"
    return f"--base: {said}: give manifests of the cluster that was recorded, its pods with name, labels and addresses"


def row_of(one: simulation.Judged) -> dict[str, object]:
    """Return a flow as a row of the table."""
    talk = one.talk
    return {
        "source": talks.ref(talk.key.source),
        "destination": _destination(talk),
        "port": port(talk.key),
        "count": talk.count,
        "last_seen": coverage.moment(talk.last_ns),
        "because": _because(one),
        "formerly": one.formerly,
    }


def port(key: talks.Key) -> str:
    """Return PORT/PROTOCOL."""
    protocol = parties.protocol_of(key.protocol)
    name = protocol.name if protocol else str(key.protocol)
    return f"{key.port}/{name}" if key.port else name


def document(report: simulation.Report) -> dict[str, Any]:
    """Return the report as JSON says it."""
    listed = {outcome.value: [_judged(one) for one in report.of(outcome)] for outcome in TITLES}
    counts = {outcome.value: len(report.of(outcome)) for outcome in simulation.Outcome}
    return {
        **listed,
        "counts": counts,
        "stand_ins": report.stand_ins,
        "named": report.named,
        "coverage": {
            "flows": len(report.judged),
            "flows_judged": report.resolved,
            **coverage.document(report.coverage),
        },
    }


def _judged(one: simulation.Judged) -> dict[str, object]:
    talk = one.talk
    return {
        "source": talks.ref(talk.key.source),
        "destination": talks.ref(talk.key.destination),
        "service": output.plain(talks.service_of(talk.destination)),
        "family": talk.key.source.version,
        "port": talk.key.port,
        "protocol": port(talk.key).rpartition("/")[2],
        "count": talk.count,
        "first_seen": coverage.moment(talk.first_ns),
        "last_seen": coverage.moment(talk.last_ns),
        "nodes": sorted(talk.nodes),
        "direction": one.side.direction.name.lower() if one.side else None,
        "policies": output.plain(one.blamed),
        "rule": output.plain(one.side.rule) if one.side else None,
        "because": one.why or (one.side.because if one.side else ""),
        "formerly": one.formerly,
        "stands_in": one.stands_in,
    }


def _because(one: simulation.Judged) -> str:
    """Say which policy it is that denies, or what lets pass; the whole sentence is in the documents."""
    if one.why or one.side is None:
        return one.why
    where = one.side.direction.name.lower()
    if one.blamed:
        does = "isolated" if one.side is None or one.side.rule is None else "denied"
        return f"{where} {does} by {', '.join(map(str, one.blamed))}"
    return f"{where} allowed by {one.side.rule}" if one.side.rule else f"{where} not isolated"


def _destination(talk: talks.Talk) -> str:
    service = talks.service_of(talk.destination)
    return str(service) if service is not None else talks.ref(talk.key.destination)


def _loaded(paths: Sequence[pathlib.Path]) -> snapshot.Snapshot:
    """Read changed policies; what is no policy is told on stderr, as what is wrong is."""
    loaded = manifest_files.load(paths)
    parts = (loaded.pods, loaded.nodes, loaded.services, loaded.endpoint_slices, loaded.hosts)
    others = sum(len(part) for part in parts)
    if others:
        click.echo(f"{coverage.count(others, 'object')} of -f ignored: only policies and namespaces count", err=True)
    return loaded
