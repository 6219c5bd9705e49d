"""Where flows come from: recordings, stdin, or what the agent of this machine has stored."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, Any

import click

from agent import errors, snapshot
from agent.api.observer import observer_pb2 as pb
from agent.cli import connection, flow_filters
from agent.flows import records, talks
from agent.hubble import client, replay, requests
from agent.model import audit as audit_
from agent.rpc import client as rpc

STDIN = "-"
BYTES_READ = 1 << 20


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --flows, --since and --skip-malformed; it gets `flows`, `since` and `skip_malformed`."""
    for option in (
        click.option("--skip-malformed", is_flag=True, help="Pass over lines that cannot be read, and count them."),
        click.option("--since", default="", metavar="WHEN", help="Take no flow before: 5m, 1h30m (ago), or a moment."),
        click.option(
            "--flows",
            "flows",
            type=click.Path(path_type=pathlib.Path, allow_dash=True),
            multiple=True,
            help="A recording (observe -o json); - is stdin. Several nodes' may be given. Else what the agent stores.",
        ),
    ):
        command = option(command)
    return command


@dataclasses.dataclass(slots=True)
class Reading:
    """Verdicts as they are read, and how many are known to be missing so far; iterate over it once."""

    lines: Iterable[records.Line]
    reader: records.Reader | None
    """Of recordings; None: an agent answers."""
    lost: int = 0

    def __iter__(self) -> Iterator[records.Record]:
        """Yield verdicts; raises InvalidInput, Unreachable."""
        for line in self.lines:
            if isinstance(line.item, records.Lost):
                self.lost += line.item.count
            else:
                yield line.item


@contextlib.contextmanager
def reading(
    paths: Sequence[pathlib.Path], locate: connection.Locate, *, since: str, skip_malformed: bool
) -> Iterator[Reading]:
    """Read recordings, or what the agent has stored where none is named; raises InvalidInput, Unreachable."""
    asked = pb.GetFlowsRequest()
    if since:
        asked.since.FromNanoseconds(flow_filters.moment(since, time.time_ns(), field="--since"))
    if not paths:
        with client.FlowClient(client.beside(locate())) as agent:
            yield Reading(agent.flows(asked), None)
        return
    with opened(*paths) as lines:
        reader = records.Reader(lines, skip_malformed=skip_malformed)
        yield Reading(replay.answered(reader, requests.query(asked)), reader)


def gathered(
    paths: Sequence[pathlib.Path], locate: connection.Locate, *, since: str, skip_malformed: bool
) -> talks.Told:
    """Return what recordings tell, or the agent where none is named; raises InvalidInput, Unreachable."""
    with reading(paths, locate, since=since, skip_malformed=skip_malformed) as found:
        told = talks.gather(found, found.reader)
    return dataclasses.replace(told, coverage=dataclasses.replace(told.coverage, lost=found.lost))


def cluster(socket: pathlib.Path) -> snapshot.Snapshot:
    """Return the cluster as the agent enforces it."""
    with rpc.AgentClient(socket) as agent:
        return agent.snapshot()


def audits(socket: pathlib.Path) -> Mapping[str, audit_.Audit]:
    """Return what the agent has in audit, by its node: of other nodes it knows nothing (rule A51)."""
    with rpc.AgentClient(socket) as agent:
        entries, _ = agent.audit()
        node = agent.status().node
    annotation = audit_.Means.ANNOTATION.value
    named = frozenset(audit_.Target(one.namespace, one.policy) for one in entries if one.means != annotation)
    return {node: audit_.Audit(flags=named, annotations=any(one.means == annotation for one in entries))}


@contextlib.contextmanager
def opened(*paths: pathlib.Path) -> Iterator[Iterable[bytes]]:
    """Open recordings, one after the other as if they were one; raises InvalidInput where one cannot be read."""
    with contextlib.ExitStack() as files:
        yield _lines([_opened(path, files) for path in paths])


def _opened(path: pathlib.Path, files: contextlib.ExitStack) -> IO[bytes]:
    if str(path) == STDIN:
        return sys.stdin.buffer
    try:
        return files.enter_context(path.open("rb", buffering=BYTES_READ))
    except OSError as error:
        remedy = f"it cannot be opened ({error.strerror})"
        raise errors.InvalidInput(field="flows", value=str(path), remedy=remedy) from error


def _lines(opened: Sequence[IO[bytes]]) -> Iterator[bytes]:
    for one in opened:
        try:
            yield from records.bounded(one)
        except OSError as error:  # a directory opens, and cannot be read
            remedy = f"it cannot be read ({error.strerror})"
            raise errors.InvalidInput(field="flows", value=str(one.name), remedy=remedy) from error
