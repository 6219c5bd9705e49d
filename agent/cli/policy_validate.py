"""`agentctl policy validate`: what of manifests would not be honoured, before anybody applies them.

Each file is read as the agent reads it and compiled as for a node of its pods; nothing is asked of anybody unless
`--live` is given. Whoever's files have a problem gets every one of them, and exit code 2.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence

import click

from agent import errors, snapshot
from agent.cli import connection, manifest_files, output
from agent.model import endpoint, resources
from agent.policy import compiler, matching, names, words
from agent.rpc import client, details
from agent.sources import manifests

COLUMNS = ("object", "path", "problem")
LIVE_COLUMNS = ("policy", "in_force", "selects")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What became of the files."""

    snapshot: snapshot.Snapshot
    problems: tuple[resources.Problem, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """How one policy of the files stands to what an agent enforces."""

    policy: resources.ObjectRef
    in_force: str
    """`new`, `same`, `another`."""
    selects: tuple[str, ...]
    """Pods of the agent's node."""


@click.command()
@manifest_files.option(required=True)
@click.option("--live", is_flag=True, help="Also compare with what an agent enforces: what is new, whom it selects.")
@connection.agent_when_asked
@output.output_option
def validate(paths: tuple[pathlib.Path, ...], *, live: bool, locate: connection.Locate, form: output.Form) -> None:
    """Read and compile manifests as the agent does; exits with 2 where something of them would not be honoured."""
    checked = check(paths)
    compared: tuple[Live, ...] = ()
    if live:
        with client.AgentClient(locate()) as agent:
            compared = tuple(_compared(checked.snapshot, agent))
    document = {
        "valid": not checked.problems,
        "policies": [output.plain(ref) for ref in checked.snapshot.policies],
        "problems": output.plain(checked.problems),
        **({"live": output.plain(compared)} if live else {}),
    }
    for line in output.prose(_text(checked, compared, live=live), form=form, document=document):
        click.echo(line)
    sys.exit(output.ExitCode.USAGE if checked.problems else output.ExitCode.OK)


def check(paths: Sequence[pathlib.Path]) -> Checked:
    """Read every file, and compile what can be read. Raises InvalidInput for a path that is not there."""
    loaded, wrong = manifests.inspect(paths, stdin=sys.stdin.buffer)
    problems = [
        resources.Problem(resources.ObjectRef("File", "", name), "", str(error)) for name, error in wrong.items()
    ]
    compiled = compiler.compile_node(
        loaded, endpoint.NodeView(name=_node(loaded), hold_mode=endpoint.HoldMode.PERMISSIVE)
    )
    found = (*problems, *loaded.problems, *compiled.problems, *names.check(loaded.policies.values()))
    return Checked(snapshot=loaded, problems=tuple(dict.fromkeys(found)))


def _node(loaded: snapshot.Snapshot) -> str:
    """Choose a node to compile for: any does, as every policy of the cluster is compiled for its problems."""
    return next(iter(loaded.nodes), "validate")


def _compared(new: snapshot.Snapshot, agent: client.AgentClient) -> Iterator[Live]:
    endpoints = agent.endpoints()
    for ref, one in new.policies.items():
        yield Live(policy=ref, in_force=_in_force(one, agent), selects=_selects(new, one, endpoints))


def _selects(
    new: snapshot.Snapshot, one: resources.NetworkPolicy, endpoints: Sequence[details.Endpoint]
) -> tuple[str, ...]:
    """Name the pods that a policy selects; of namespaces that are not in the files no label is known."""
    pods = (
        resources.Pod(namespace=each.namespace, name=each.pod, uid=each.uid, labels=each.labels) for each in endpoints
    )
    return tuple(f"{pod.namespace}/{pod.name}" for pod in pods if matching.selects(new, one, pod))


def _in_force(one: resources.NetworkPolicy, agent: client.AgentClient) -> str:
    try:
        found = agent.policy(one.ref.path)
    except errors.NotFound:
        return "new"
    same = found.rules == tuple(words.rules(one)) and found.subject == words.whole_subject(one)
    return "same" if same else "another"


def _text(checked: Checked, compared: Sequence[Live], *, live: bool) -> Iterator[str]:
    if checked.problems:
        rows = [{"object": str(one.ref), "path": one.path, "problem": one.reason} for one in checked.problems]
        listing = output.Listing(rows=rows, columns=COLUMNS, document=None)
        yield output.listed(listing, output.Form.TABLE)
        yield ""
    if live:
        found = [{"policy": str(one.policy), "in_force": one.in_force, "selects": one.selects} for one in compared]
        yield output.listed(output.Listing(rows=found, columns=LIVE_COLUMNS, document=None), output.Form.TABLE)
        yield ""
    count, policies = len(checked.problems), len(checked.snapshot.policies)
    said = f"{count} problem{'s' if count != 1 else ''}" if count else "no problem"
    yield f"{policies} {'policy' if policies == 1 else 'policies'}, {said}"
