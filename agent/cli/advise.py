"""`agentctl advise`: policies that let pass what was seen and nothing else, ready for kubectl and for a reader."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import click

from agent import errors, snapshot
from agent.cli import connection, coverage, output, recordings
from agent.flows import advise as advice_
from agent.flows import manifests, selectors, talks, workloads
from agent.sources import manifests as files

FORMATS = {"k8s": manifests.kubernetes, "cilium": manifests.cilium}
FORMS = ("yaml", "json")
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9._/-]*")
"""Texts that every reader of YAML takes for text, unless they are one of WORDS."""
WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"})


@click.command()
@click.option("-n", "--namespace", metavar="NAME", help="Policies for workloads of this namespace alone.")
@click.option("--pod", metavar="NAMESPACE/NAME", help="A policy for this pod's workload alone.")
@click.option("--format", "dialect", type=click.Choice(list(FORMATS)), default="k8s", help="Which kind of policy.")
@click.option(
    "--base",
    type=click.Path(path_type=pathlib.Path),
    help="Manifests: who else is there; else ask the agent, or nobody.",
)
@click.option(
    "-o", "--output", "form", type=click.Choice(FORMS), default="yaml", help="json: a List, comments on stderr."
)
@recordings.options
@connection.agent_when_asked
def advise(
    locate: connection.Locate,
    *,
    namespace: str | None,
    pod: str | None,
    dialect: str,
    form: str,
    base: pathlib.Path | None,
    flows: tuple[pathlib.Path, ...],
    since: str,
    skip_malformed: bool,
) -> None:
    """Print the least policies under which what passed goes on passing, a workload each, as YAML.

    Whoever was seen is isolated both ways; comments say what no policy can express, and how much was seen. Pods of
    which nothing was seen stay as they are. Mind what comes seldom: a job of the night is not in the flows of a day.
    """
    told = recordings.gathered(flows, locate, since=since, skip_malformed=skip_malformed)
    cluster = files.load([base]) if base is not None else None if flows else recordings.cluster(locate())
    known = _known(cluster) if cluster is not None else ()
    found = chosen(advice_.advise(told, known), told, namespace, pod)
    if not found.policies:
        raise errors.InvalidInput(
            field="--flows",
            value=f"{len(told.talks)} flows",
            remedy="none is of a pod that is asked for and gave verdicts; record more, or ask for others",
        )
    if form == "json":
        items = [document for _, document in FORMATS[dialect](found)]
        click.echo(output.to_json({"apiVersion": "v1", "kind": "List", "items": items}, indent=2))
        for line in (*coverage.lines(found.coverage), *found.notes):
            click.echo(output.escape(line), err=True)
        return
    for line in text(found, FORMATS[dialect]):
        click.echo(line)


def chosen(found: advice_.Advice, told: talks.Told, namespace: str | None, pod: str | None) -> advice_.Advice:
    """Return the advice for one namespace or one pod's workload; raises InvalidInput."""
    policies = found.policies
    if namespace is not None:
        policies = tuple(one for one in policies if one.workload.namespace == namespace)
    if pod is not None:
        own, slash, name = pod.partition("/")
        if not slash or not own or not name or "/" in name:
            raise errors.InvalidInput(field="--pod", value=pod, remedy="write NAMESPACE/NAME")
        ends = (end for talk in told.talks for end in (talk.source, talk.destination))
        wanted = {advice_.workload_of(end) for end in ends if (end.namespace, end.pod) == (own, name)}
        policies = tuple(one for one in policies if one.workload in wanted)
    notes = found.notes if namespace is None and pod is None else ()
    return dataclasses.replace(found, policies=policies, notes=notes)


def text(
    found: advice_.Advice, dialect: Callable[[advice_.Advice], Iterable[tuple[advice_.Advised, manifests.Document]]]
) -> Iterator[str]:
    """Yield YAML, what it rests on first; a comment is one line, whatever is in it."""
    yield "# Advised from verdicts: what passed in them passes, and the pods that were seen may do nothing else."
    yield "# Other policies that select the same pods allow more; pods that were not seen stay as they are."
    for line in (*coverage.lines(found.coverage), *found.notes):
        yield f"# {output.escape(line)}"
    for one, document in dialect(found):
        yield "---"
        for note in one.notes:
            yield f"# {output.escape(note)}"
        yield dump(document)


def dump(document: manifests.Document) -> str:
    """Return YAML that has the same meaning to every reader: text that might be a number elsewhere is quoted."""
    import yaml  # noqa: PLC0415 - only here; agentctl starts in a tenth of a second

    return str(yaml.dump(document, Dumper=_dumper(), sort_keys=False, default_flow_style=False)).rstrip("\n")


@functools.cache
def _dumper() -> Any:
    import yaml  # noqa: PLC0415 - see dump

    class Dumper(yaml.SafeDumper):
        """Writes no anchors, and quotes what is not plainly text."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
            """Write everything out, twice where it is there twice."""
            return True

    def represent(dumper: Any, value: str) -> Any:
        plain = PLAIN.fullmatch(value) and value.lower() not in WORDS
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')

    Dumper.add_representer(str, represent)
    return Dumper


def _known(cluster: snapshot.Snapshot) -> Iterator[selectors.Workload]:
    for pod in cluster.pods.values():
        if not pod.host_network:
            yield selectors.Workload(pod.namespace, workloads.stable(pod.labels))
