"""The agent: everything that runs on a node, built in one place.

    manifests | API server ──Update──> Reconciler ──DesiredState──> Datapath ──> kernel
    CNI cache, /run/netns ──> SandboxWatch ───^   │ staged, enforced                     │ ring
                                                  v                                      v
    agentctl <── gRPC on agent.sock <── Description, Stream <── Observer(History) <──────┘
                                                  └──> DenialLog ──> log

Which datapath that is, is found by opening it (`engines`). `open` adopts what an earlier agent left in the kernel, and
that stays in force until the first policy compiled from whole inputs replaces it; ending the agent, however it ends,
takes nothing out of force. Only `uninstall` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import gc
import os
import pathlib
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from importlib import metadata

from agent import clock as clock_
from agent import config as config_
from agent import errors, health, inputs, lock, logs, pages, reconciler, telemetry
from agent.datapath import engines
from agent.metrics import registry
from agent.model import endpoint, verdict
from agent.node import sandboxes
from agent.node.cri import runtime as runtime_
from agent.observer import denials, history, observer, stream
from agent.rpc import agent_server, describe, service
from agent.sources import inotify, manifests

PROGRAM = "nodewall-agent"
NAMES_WAIT_S = 10.0
"""Longest that verdicts wait for the first policy to be enforced; after that they are told without names."""


def main() -> None:
    """Run `nodewall-agent`; exits with 0 after a signal, 2 on wrong flags, 1 on anything else, in one line each."""
    try:
        config = config_.parse(sys.argv[1:])
    except errors.NodewallError as error:
        sys.exit(_complain(error, 2))
    logs.configure(config.log_level, sys.stderr)
    try:
        with lock.held(config.state_dir, config.lock):
            if config.command is config_.Command.UNINSTALL:
                uninstall(config)
            else:
                asyncio.run(run(config))
    except* errors.NodewallError as group:
        sys.exit(max(_complain(error, 1) for error in _flat(group)))


async def run(config: config_.Config) -> None:
    """Enforce until a signal; what is enforced then stays enforced."""
    clock = clock_.SystemClock()
    log = logs.logger("agent")
    cluster = inputs.cluster(config, clock)
    described = inputs.describe(config, cluster, clock)
    chosen = engines.start(
        config.engine, config.iptables, config.home, tell=lambda what: log.info("another engine removed", what=what)
    )
    datapath, report = chosen.datapath, chosen.report
    with contextlib.closing(datapath):
        variant = {"iptables": report.variant} if report.variant else {}
        log.info("started", node=config.node, mode=report.mode, **variant, pid=os.getpid(), source=described())
        for reason in (*report.reasons, *report.unproved):
            log.warning("engine", reason=reason)
        for how in report.proved:
            log.info("proved", what=how)
        past, verdicts = history.History(), stream.Stream(clock=clock)
        metrics = registry.Registry()
        loop = reconciler.Reconciler(
            datapath=datapath,
            node=config.node,
            deny_mode=config.deny_mode,
            hold_mode=config.hold_mode,
            clock=clock,
            listeners=(past,),
            applied=telemetry.applied(metrics, clock),
        )
        events = chosen.open_source(lambda why: log.warning("verdicts", reason=why))
        watcher = (
            None
            if events is None
            else observer.Observer(
                node=config.node,
                reader=events.reader,
                kernel_lost=lambda: chosen.counters(events).get("events_lost", 0),
                history=past,
                stream=verdicts,
                clock=clock,
            )
        )
        told = telemetry.Telemetry(
            version=version(),
            report=report,
            datapath=datapath,
            loop=loop,
            verdicts=verdicts,
            watcher=watcher,
            counters=functools.partial(chosen.counters, events),
            clock=clock,
            heart=health.Heart(clock),
            cluster=cluster.source if cluster else None,
            teller=inputs.teller(cluster, config.node, loop, clock) if cluster else None,
        )
        runtime = runtime_.RuntimeWatch(config.cri_socket, clock=clock) if config.cri_socket else None
        description = describe.Description(
            node=config.node,
            version=version(),
            report=report,
            deny_mode=config.deny_mode,
            hold_mode=config.hold_mode,
            source=described,
            started_unix_ns=clock.unix_ns(),
            loop=loop,
            counters=functools.partial(
                _counters, functools.partial(chosen.counters, events), loop, verdicts, watcher, runtime
            ),
            not_ready=told.not_ready,
        )
        api = service.AgentService(node=description, stream=verdicts)
        with inotify.Inotify(concerns=lambda _name: True) as changes:
            source = cluster.source if cluster else inputs.directory(config)
            pods = sandboxes.SandboxWatch(
                config.cni_results, changes=changes, clock=clock, netns_dir=config.netns_dir, runtime=runtime
            )
            async with (
                asking(runtime, pods),
                agent_server.serving(api, config.socket),
                answering(config, told, metrics),
            ):
                tasks = {
                    "reconciler": loop.run(),
                    "source": inputs.follow(source, loop),
                    "sandboxes": follow_sandboxes(pods, loop),
                    "denials": log_denials(verdicts),
                    "memory": give_back_memory(loop),
                    "heart": told.heart.run(),
                }
                if watcher is not None:
                    tasks["observer"] = observe(watcher, loop)
                if told.teller is not None:
                    tasks["problems"] = told.teller.run()
                await supervise(tasks, reread=functools.partial(read_again, source, pods, loop))
    log.info("ended; the policy stays in force", node=config.node)


@contextlib.asynccontextmanager
async def answering(
    config: config_.Config, told: telemetry.Telemetry, metrics: registry.Registry
) -> AsyncGenerator[None, None]:
    """Answer kubelet and Prometheus inside the context. Raises InvalidInput where an address cannot be bound."""
    async with contextlib.AsyncExitStack() as servers:
        for flag, where, what in (
            ("--health-address", config.health_address, telemetry.health_pages(told)),
            ("--metrics-address", config.metrics_address, telemetry.metrics_pages(told, metrics)),
        ):
            if where is not None:
                site = pages.serving(host=str(where.address), port=where.port, pages=what, flag=flag)
                await servers.enter_async_context(site)
        yield


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


async def give_back_memory(loop: reconciler.Reconciler) -> None:
    """Once the first policy is enforced, keep what stays out of garbage collection, and free what starting needed."""
    await loop.reached(0)
    gc.collect()
    gc.freeze()
    with contextlib.suppress(AttributeError):  # a C library other than glibc
        ctypes.CDLL(None).malloc_trim(0)


def read_again(source: inputs.Source, pods: sandboxes.SandboxWatch, loop: reconciler.Reconciler) -> None:
    """Read every input afresh, whatever inotify says; after SIGHUP. What the API server says is always fresh."""
    logs.logger("agent").info("reading every input again")
    pods.insist()
    if isinstance(source, manifests.ManifestSource):
        loop.set_source(source.read())


def uninstall(config: config_.Config) -> None:
    """Remove every trace of this node's agent; the manifests and the CNI cache are not its. The lock goes last."""
    engines.uninstall(config.engine, config.home)
    shutil.rmtree(config.state_dir / manifests.COPIES, ignore_errors=True)
    for file in (config.socket, config.lock):
        file.unlink(missing_ok=True)
    print(f"{PROGRAM}: removed; no policy is enforced on {config.node} any more", file=sys.stderr)  # noqa: T201 - a command line's answer


def version() -> str:
    """Return this release's number."""
    try:
        return metadata.version("nodewall")
    except metadata.PackageNotFoundError:
        return "unknown"


def _counters(
    counted: Callable[[], Mapping[str, int]],
    loop: reconciler.Reconciler,
    verdicts: stream.Stream,
    watcher: observer.Observer | None,
    runtime: runtime_.RuntimeWatch | None,
) -> Mapping[str, int]:
    return {
        **({"runtime_unanswered": runtime.state.failures} if runtime is not None else {}),
        **counted(),
        "repaired": loop.repairs.count,
        "verdicts_seen": verdicts.published,
        "verdicts_dropped_by_agent": watcher.dropped if watcher is not None else 0,
        "verdict_watchers": verdicts.readers - 1,  # the log of denials is one
    }


def _flat(group: BaseExceptionGroup[errors.NodewallError]) -> Iterator[errors.NodewallError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flat(error)
        else:
            yield error


def _complain(error: errors.NodewallError, code: int) -> int:
    print(f"{PROGRAM}: {error}", file=sys.stderr)  # noqa: T201 - a command line's answer
    return code


if __name__ == "__main__":
    main()
