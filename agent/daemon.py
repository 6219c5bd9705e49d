"""The agent: everything that runs on a node, built in one place.

    manifests | API server ──Update──> Reconciler ──DesiredState──> Datapath ──> kernel
    CNI cache, /run/netns ──> SandboxWatch ───^ ^ │ staged, enforced                     │ rings
                                  Memory(History)─┼────────────── DNS answers ───────────┤
                                                  v                                      v
    agentctl <── gRPC on agent.sock <── Description, Stream <── Observer(History) <──────┘
                                                  └──> DenialLog ──> log
    collectors <── Hubble's API, Exporter <── Ring <──── Stream

Which datapath that is, is found by opening it (`engines`). `open` adopts what an earlier agent left in the kernel, and
that stays in force until the first policy compiled from whole inputs replaces it; ending the agent, however it ends,
takes nothing out of force. Only `uninstall` does.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import shutil
import sys
from collections.abc import AsyncGenerator, Coroutine, Iterator

from agent import audits, errors, footprint, inputs, lock, logs, pages, tasks, telemetry
from agent import clock as clock_
from agent import config as config_
from agent import parts as parts_
from agent import settings as settings_
from agent.datapath import engines
from agent.hubble import agent_events, tls
from agent.hubble import ring as ring_
from agent.hubble import server as hubble
from agent.learning import memory
from agent.node import sandboxes
from agent.rpc import agent_server, process, service
from agent.sources import inotify, manifests

PROGRAM = "nodewall-agent"


def main() -> None:
    """Run `nodewall-agent`; exits with 0 after a signal, 2 on wrong flags, 1 on anything else, in one line each."""
    try:
        config = config_.parse(sys.argv[1:], os.environ)
    except errors.NodewallError as error:
        sys.exit(_complain(error, 2))
    footprint.share_arena()
    threshold = logs.configure(config.log_level, sys.stderr)
    told = settings_.Settings(config=config, arguments=tuple(sys.argv[1:]), threshold=threshold)
    ended = 0
    try:
        with lock.held(config.state_dir, config.lock):
            if config.command is config_.Command.UNINSTALL:
                uninstall(config)
            else:
                asyncio.run(run(told))
    except* errors.NodewallError as group:
        ended = max(_complain(error, 1) for error in _flat(group))
    sys.exit(ended)


async def run(told: settings_.Settings) -> None:
    """Enforce until a signal; what is enforced then stays enforced."""
    config = told.config
    clock = clock_.SystemClock()
    log = logs.logger("agent")
    cluster = inputs.cluster(config, clock)
    described = inputs.describe(config, cluster, clock)
    chosen = await asyncio.to_thread(  # what asks the kernel by rtnetlink has an event loop of its own
        engines.start,
        config.engine,
        config.iptables,
        config.home,
        tell=lambda what: log.info("another engine removed", what=what),
    )
    report = chosen.report
    with contextlib.closing(chosen.datapath):
        variant = {"iptables": report.variant} if report.variant else {}
        log.info("started", node=config.node, mode=report.mode, **variant, pid=os.getpid(), source=described())
        for reason in (*report.reasons, *report.unproved):
            log.warning("engine", reason=reason)
        for how in report.proved:
            log.info("proved", what=how)
        await serve(told, parts_.build(config, chosen, cluster=cluster, described=described, clock=clock))
    log.info("ended; the policy stays in force", node=config.node)


async def serve(told: settings_.Settings, parts: parts_.Parts) -> None:
    """Follow the inputs and answer questions until a signal."""
    config = told.config
    asked = process.of(told, lambda: parts.metrics.samples(parts.told.take()))
    api = service.AgentService(
        node=parts.description,
        stream=parts.verdicts,
        kernel=parts.kernel,
        process=asked,
        names=parts.told_names,
    )
    happened = agent_events.AgentEvents(parts.loop, name=config.node, clock=parts.clock)
    with inotify.Inotify(concerns=lambda _name: True) as changes:
        source = parts.cluster.source if parts.cluster else inputs.directory(config)
        pods = sandboxes.SandboxWatch(
            config.cni_results,
            changes=changes,
            clock=parts.clock,
            netns_dir=config.netns_dir,
            runtime=parts.runtime,
        )
        async with (
            tasks.asking(parts.runtime, pods),
            agent_server.serving(api, config.socket),
            hubble_answering(config, parts, happened) as ring,
            answering(config, parts),
        ):
            reread = functools.partial(tasks.read_again, source, pods, parts.loop)
            all_tasks = running(parts, source, pods) | {"agent events": happened.run()} | exporting(parts, ring)
            await tasks.supervise(all_tasks, reread=reread)


def hubble_answering(
    config: config_.Config, parts: parts_.Parts, happened: agent_events.AgentEvents
) -> contextlib.AbstractAsyncContextManager[ring_.Ring]:
    """Answer Hubble's API inside the context; gives the flows that it answers with."""
    where = config.hubble_address
    tcp = None
    if where is not None:
        tcp = hubble.Tcp(address=where.address, port=where.port, files=tls.files_in(config.hubble_certificates))
    return hubble.serving(
        parts.verdicts,
        parts.loop,
        events=happened,
        name=config.node,
        version=parts_.version(),
        socket=config.hubble_socket,
        clock=parts.clock,
        tcp=tcp,
        tell=lambda what: logs.logger("hubble").warning("certificates", reason=what),
    )


def running(
    parts: parts_.Parts, source: inputs.Source, pods: sandboxes.SandboxWatch
) -> dict[str, Coroutine[None, None, None]]:
    """Return every task by name."""
    named: dict[str, Coroutine[None, None, None]] = {
        "reconciler": parts.loop.run(),
        "source": inputs.follow(source, parts.loop),
        "sandboxes": tasks.follow_sandboxes(pods, parts.loop),
        "denials": tasks.log_denials(parts.verdicts),
        "audit": tasks.follow_audit(parts.verdicts, parts.ledger),
        "memory": tasks.give_back_memory(parts.loop),
        "heart": parts.told.heart.run(),
    }
    if parts.names is not None:
        named["names"] = parts.names.run()
    if parts.watcher is not None:
        named["observer"] = tasks.observe(parts.watcher, parts.loop)
    if parts.told.teller is not None:
        named["problems"] = parts.told.teller.run()
    return named


def exporting(parts: parts_.Parts, ring: ring_.Ring) -> dict[str, Coroutine[None, None, None]]:
    """Return the tasks that send flow logs, by name: none where nobody is named to send to.

    They come last, and in this order: tasks are ended in it, and what the observer had left is sent then, too.
    """
    if parts.exporter is None:
        return {}
    return {"flow logs": parts.exporter.read(ring), "flow log export": parts.exporter.send()}


@contextlib.asynccontextmanager
async def answering(config: config_.Config, parts: parts_.Parts) -> AsyncGenerator[None, None]:
    """Answer kubelet and Prometheus inside the context. Raises InvalidInput where an address cannot be bound."""
    async with contextlib.AsyncExitStack() as servers:
        for flag, where, what in (
            ("--health-address", config.health_address, telemetry.health_pages(parts.told)),
            ("--metrics-address", config.metrics_address, telemetry.metrics_pages(parts.told, parts.metrics)),
        ):
            if where is not None:
                site = pages.serving(host=str(where.address), port=where.port, pages=what, flag=flag)
                await servers.enter_async_context(site)
        yield


def uninstall(config: config_.Config) -> None:
    """Remove every trace of this node's agent; the manifests and the CNI cache are not its. The lock goes last."""
    engines.uninstall(config.engine, config.home)
    shutil.rmtree(config.state_dir / manifests.COPIES, ignore_errors=True)
    for file in (
        config.state_dir / audits.FILE,
        config.state_dir / memory.FILE,
        config.socket,
        config.hubble_socket,
        config.lock,
    ):
        file.unlink(missing_ok=True)
    print(f"{PROGRAM}: removed; no policy is enforced on {config.node} any more", file=sys.stderr)  # noqa: T201 - a command line's answer


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
