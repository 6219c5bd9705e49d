"""What the kernel holds, asked over the API: one flow's trace, the list of tables, the rows of one.

The problem: the kernel changes while it is read, and a change under way looks like a difference. The rule: the kernel
is read between two looks at what is enforced, and again, a few times, if that or the generation changed meanwhile; what
differs with everything at rest is told. Reading runs in a thread of its own, for a table of rules takes its time, and
one reading at a time, for nobody may keep a node busy with questions.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol, TypeVar

from agent import desired as desired_
from agent import errors, reconciler
from agent.datapath import base, judge, tracing
from agent.model import net, resources, verdict
from agent.observer import stream
from agent.policy import asked, evaluator, queries, reachability
from agent.rpc import naming, paths, traces

Result = TypeVar("Result")

TRIES = 4
PAUSE_S = 0.05
"""Between two tries; a change takes less."""
ROWS_A_BATCH = 500
VERDICTS_SHOWN = 3
MODEL = "model and compiled state disagree"
KERNEL = "model and kernel disagree"
UNKNOWN_TO_POLICIES = frozenset({verdict.Reason.ENDPOINT_HELD.name.lower(), tracing.UNREAD})
"""Reasons that no policy knows: a pod is not programmed yet, or nobody can read what it asks for."""


class Enforcing(Protocol):
    """Who knows what is enforced."""

    @property
    def enforcement(self) -> reconciler.Enforcement | None:
        """What is enforced; None before the first policy is."""


class Kernel:
    """Answers for one node."""

    def __init__(
        self, *, node: str, mode: str, datapath: base.Datapath, loop: Enforcing, stream: stream.Stream
    ) -> None:
        """Read what `datapath` has in the kernel, and compare it with what `loop` enforces."""
        self._node, self._mode = node, mode
        self._datapath, self._loop, self._stream = datapath, loop, stream
        self._turn = asyncio.Lock()

    async def trace(self, source: str, destination: str, port: str, asks: str = "") -> traces.Traced:
        """Trace every flow that the three mean, with a DNS query for `asks` in it ("": none).

        Raises InvalidInput, DatapathError.
        """
        naming.without_zone("--from", source)
        naming.without_zone("--to", destination)
        number = asked.port(port)
        wanted = _Wanted(source, destination, number, asked.name(asks, number) if asks else "")
        return await self._in_turn(lambda: self._trace(wanted))

    async def tables(self) -> traces.Tables:
        """List programs and tables. Raises DatapathError."""
        return await self._in_turn(self._tables)

    async def rows(
        self, table: str, *, endpoint: str, policy_set: int, limit: int
    ) -> AsyncIterator[tuple[list[tracing.Row], bool]]:
        """Yield rows in batches, and whether there are more. Raises InvalidInput, NotFound, DatapathError."""
        now = self._enforced()
        state = now.state
        wanted = tracing.Wanted(endpoint=naming.endpoint(now, endpoint) if endpoint else None, policy_set=policy_set)
        with contextlib.closing(await self._in_turn(self._datapath.loaded)) as loaded:
            found = loaded.rows(table, wanted, state)
            if limit:
                found = itertools.islice(found, min(limit + 1, sys.maxsize))
            told = 0
            while batch := await self._in_turn(functools.partial(_some, found)):
                told += len(batch)
                more = 0 < limit < told
                yield batch[:-1] if more else batch, more

    async def _in_turn(self, call: Callable[[], Result]) -> Result:
        """Read in a thread, and outlive it: what it reads must not be closed. Who listens slowly waits alone."""
        async with self._turn:
            running = asyncio.ensure_future(asyncio.to_thread(call))
            try:
                return await asyncio.shield(running)
            except asyncio.CancelledError:
                await asyncio.wait((running,))
                raise

    def _tables(self) -> traces.Tables:
        with contextlib.closing(self._datapath.loaded()) as loaded:
            return traces.Tables(mode=self._mode, inventory=loaded.inventory())

    def _enforced(self) -> reconciler.Enforcement:
        now = self._loop.enforcement
        if now is None:
            remedy = "`agentctl status` says what is waited for"
            raise errors.DatapathError(f"nothing is enforced on {self._node} yet; {remedy}")
        return now

    def _trace(self, wanted: _Wanted) -> traces.Traced:
        for attempt in range(TRIES):
            now = self._enforced()
            with contextlib.closing(self._datapath.loaded()) as loaded:
                found = tuple(self._flows(now, loaded, wanted))
                at_rest = self._loop.enforcement is now and loaded.generation in {None, now.generation}
            if at_rest or attempt == TRIES - 1 or not any(one.disagreements for one in found):
                break
            time.sleep(PAUSE_S)
        return traces.Traced(node=self._node, mode=self._mode, generation=now.generation, flows=found)

    def _flows(
        self, now: reconciler.Enforcement, loaded: tracing.Loaded, wanted: _Wanted
    ) -> Iterator[traces.FlowTrace]:
        every = list(asked.flows(now.snapshot, wanted.source, wanted.destination, wanted.port))
        for one in every:
            flow = one.flow
            path = paths.path(flow, self._node, now.snapshot, now.state, dialled=one.dialled is not None)
            layers = loaded.trace(_question(one, path, wanted.asks), now.state)
            decision = evaluator.evaluate(now.snapshot, flow, now.inputs.audit)
            query = _query(now, wanted.asks, one, every) if wanted.asks else None
            yield traces.FlowTrace(
                source=_name(flow.source, flow.source_address),
                destination=_name(flow.destination, flow.destination_address),
                source_address=flow.source_address,
                destination_address=flow.destination_address,
                protocol=flow.protocol.value,
                port=flow.port,
                dialled=f"{_bracketed(one.dialled[0])}:{one.dialled[1]}" if one.dialled else "",
                service=one.service,
                egress=traces.side(decision.egress, judged_here=path.egress),
                ingress=traces.side(decision.ingress, judged_here=path.ingress),
                path=path.hook.value if path.hook is not None else "",
                path_why=path.why,
                layers=layers,
                disagreements=tuple(disagreements(decision, path, layers, query, via_service=one.dialled is not None)),
                allowed=decision.allowed
                and (query is None or query.allowed)
                and all(layer.loaded.allowed for layer in layers),
                verdicts=self._seen(flow),
                query=query,
            )

    def _seen(self, flow: evaluator.Flow) -> tuple[verdict.VerdictEvent, ...]:
        """Return the last verdicts on flows like this one."""
        wanted = verdict.EVERY_VERDICT
        if isinstance(flow.source, resources.Pod):
            wanted = dataclasses.replace(wanted, namespace=flow.source.namespace, pod=flow.source.name)
        matching = [event for event in self._stream.stored(wanted=wanted) if _is_of(event, flow)]
        return tuple(matching[-VERDICTS_SHOWN:])


def _some(rows: Iterator[tracing.Row]) -> list[tracing.Row]:
    return list(itertools.islice(rows, ROWS_A_BATCH))


@dataclasses.dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be traced."""

    source: str
    destination: str
    port: reachability.Port
    asks: str


def _query(now: reconciler.Enforcement, name: str, one: asked.Asked, every: Sequence[asked.Asked]) -> traces.QueryTrace:
    """Put a query to the policies, as it is dialled: of a Service, all endpoints have a say."""
    answer = queries.asked_of(now.snapshot, asked.alternatives(one, every), name, now.inputs.audit)
    return traces.QueryTrace(
        name=name, allowed=answer.allowed, because=answer.because, would_refuse=answer.would_refuse
    )


def disagreements(
    decision: evaluator.Decision,
    path: paths.Path,
    layers: tuple[tracing.Layer, ...],
    query: traces.QueryTrace | None = None,
    *,
    via_service: bool,
) -> Iterator[str]:
    """Yield what does not agree, a line each: the policies with what was compiled, that with the kernel."""
    here = [side for side, judged in ((decision.egress, path.egress), (decision.ingress, path.ingress)) if judged]
    for layer in layers:
        name = f"{layer.layer.name.lower()} layer ({layer.hook})"
        by_policy = all(side.allowed for side in here)
        if layer.layer is verdict.Layer.SOCKET:
            # Of a Service the hook judges all endpoints at once, and only to deny where each of them is denied.
            by_policy = decision.egress.allowed if not via_service or not layer.compiled.allowed else True
        if layer.hook == tracing.QUERY and query is not None:
            by_policy = query.allowed
        if layer.compiled.allowed != by_policy and layer.compiled.reason not in UNKNOWN_TO_POLICIES:
            policy, compiled = _said(allowed=by_policy), _said(allowed=layer.compiled.allowed)
            yield f"{MODEL}, {name}: {policy} by policy, {compiled} as compiled"
        if layer.loaded.allowed != layer.compiled.allowed:
            compiled, loaded = (_said(allowed=one.allowed) for one in (layer.compiled, layer.loaded))
            yield f"{KERNEL}, {name}: {compiled} as compiled, {loaded} by what the kernel holds"
        elif layer.differences:
            count = len(layer.differences)
            yield f"{KERNEL}, {name}: the verdict is the same, {count} row{'s' if count > 1 else ''} that it met differ"


def _said(*, allowed: bool) -> str:
    return "allowed" if allowed else "denied"


def _question(one: asked.Asked, path: paths.Path, asks: str) -> tracing.Question:
    flow = one.flow
    dialled = None
    if one.dialled is not None:
        dialled = desired_.Frontend(address=one.dialled[0], port=one.dialled[1], protocol=flow.protocol.value)
    return tracing.Question(
        flow=judge.Flow(
            client=flow.source_address, server=flow.destination_address, protocol=flow.protocol.value, port=flow.port
        ),
        hook=path.hook,
        netns_cookie=path.netns_cookie,
        dialled=dialled,
        asks=asks,
        veth_ifindex=path.veth_ifindex,
    )


def _is_of(event: verdict.VerdictEvent, flow: evaluator.Flow) -> bool:
    ends = (event.source.address, event.destination.address, event.protocol, event.destination.port)
    return ends == (flow.source_address, flow.destination_address, flow.protocol.value, flow.port)


def _name(party: evaluator.Party, address: net.Address) -> str:
    match party:
        case resources.Pod():
            return f"{party.namespace}/{party.name}"
        case resources.Node():
            return f"node/{party.name}"
        case resources.Host() if party.name:
            return f"host/{party.name}"
        case _:
            return str(address)


def _bracketed(address: net.Address) -> str:
    return f"[{address}]" if address.version == net.Family.IPV6.value else str(address)
