"""What the agent does for as long as it runs: one coroutine a task, each ended by being cancelled.

Each connects two parts that know nothing of each other, and logs what people ask after. None keeps a state that
another one needs.
"""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping

from agent import audits, footprint, inputs, logs, reconciler
from agent.model import endpoint, verdict
from agent.node import sandboxes
from agent.node.cri import runtime as runtime_
from agent.observer import denials, observer, stream
from agent.sources import manifests

NAMES_WAIT_S = 10.0
"""Longest that verdicts wait for the first policy to be enforced; after that they are told without names."""


async def supervise(tasks: Mapping[str, Coroutine[None, None, None]], *, reread: Callable[[], None]) -> None:
    """Run `tasks` until SIGTERM or SIGINT, or until one fails, which ends all; SIGHUP calls `reread`."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, reread)
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task, name=name) for name, task in tasks.items()]
        await stopped.wait()
        for task in running:
            task.cancel()


async def follow_sandboxes(pods: sandboxes.SandboxWatch, loop: reconciler.Reconciler) -> None:
    """Hand every change of this node's pods to the reconciler, and log who came and went."""
    log = logs.logger("sandboxes")
    before: frozenset[endpoint.Sandbox] = frozenset()
    missing: frozenset[pathlib.Path] = frozenset()
    async for reading in pods.watch():
        loop.set_sandboxes(reading.sandboxes, reading.problems)
        now = frozenset(one for one in reading.sandboxes if one.attached)
        for change, which in (("pod gone", before - now), ("pod found", now - before)):
            for one in which:
                addresses = ",".join(str(address) for address in one.addresses)
                log.info(change, pod=f"{one.namespace}/{one.pod}", addresses=addresses, netns_cookie=one.netns_cookie)
        for one in reading.sandboxes:
            if not one.identified:
                log.debug("network namespace of nobody yet", netns=one.pod, netns_cookie=one.netns_cookie)
        for directory in reading.missing - missing:
            log.info("not there yet, so not watched", directory=str(directory))
        before, missing = now, missing | reading.missing


@contextlib.asynccontextmanager
async def asking(runtime: runtime_.RuntimeWatch | None, pods: sandboxes.SandboxWatch) -> AsyncGenerator[None, None]:
    """Ask the container runtime inside the context, if there is one; log when it ceases to answer and answers again."""
    if runtime is None:
        yield
        return
    log = logs.logger("runtime")
    silent = False

    def changed() -> None:
        nonlocal silent
        error = runtime.state.error
        if error and not silent:
            log.warning("not answering; pods are known by the CNI result cache alone", error=error)
        elif silent and not error:
            log.info("answering again")
        silent = bool(error)
        pods.kick()

    loop = asyncio.get_running_loop()
    with runtime.running(lambda: loop.call_soon_threadsafe(changed)):
        yield


async def observe(watcher: observer.Observer, loop: reconciler.Reconciler) -> None:
    """Read verdicts once their policies have names; those of the time without an agent wait in the ring until then."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(NAMES_WAIT_S):
            await loop.reached(0)
    await watcher.run()


async def log_denials(verdicts: stream.Stream) -> None:
    """Write denied flows to the log, repeated ones seldom."""
    log = logs.logger("verdicts")
    with verdicts.subscribe(wanted=verdict.Filter(verdict=verdict.Verdict.DROPPED)) as subscription:
        await denials.DenialLog(lambda fields: log.warning("flow denied", **fields)).follow(subscription.items())


async def follow_audit(verdicts: stream.Stream, ledger: audits.Ledger) -> None:
    """Count what policies in audit would deny, and write it to the log, repeated ones seldom."""
    log = logs.logger("verdicts")
    lines = denials.DenialLog(
        lambda fields: log.warning("flow passed; in audit, would be denied", verdict="audit", **fields),
        of=verdict.Verdict.AUDIT,
    )
    with verdicts.subscribe(wanted=verdict.Filter(verdict=verdict.Verdict.AUDIT)) as subscription:
        await lines.follow(_counted(subscription.items(), ledger))


async def _counted(items: AsyncIterator[verdict.Item], ledger: audits.Ledger) -> AsyncIterator[verdict.Item]:
    async for item in items:
        if isinstance(item, verdict.VerdictEvent):
            ledger.count(item)
        yield item


async def give_back_memory(loop: reconciler.Reconciler) -> None:
    """Once the first policy is enforced, keep what stays out of garbage collection, and free what starting needed."""
    await loop.reached(0)
    footprint.give_back()


def read_again(source: inputs.Source, pods: sandboxes.SandboxWatch, loop: reconciler.Reconciler) -> None:
    """Read every input afresh, whatever inotify says; after SIGHUP. What the API server says is always fresh."""
    logs.logger("agent").info("reading every input again")
    pods.insist()
    if isinstance(source, manifests.ManifestSource):
        loop.set_source(source.read())
