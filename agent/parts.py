"""The agent's parts, built from its configuration and joined; nothing runs yet.

Which part knows which is decided here and nowhere else: below, each knows the types it was given. It must not wait,
start a task or touch the kernel, but for opening what verdicts are read from.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING

from agent import audits, health, inputs, logs, reconciler, telemetry
from agent import clock as clock_
from agent import config as config_
from agent.datapath import base, engines
from agent.learning import feed
from agent.learning import memory as memory_
from agent.metrics import registry
from agent.node.cri import runtime as runtime_
from agent.observer import history, observer, queries, stream
from agent.rpc import audits as audit_rpc
from agent.rpc import describe
from agent.rpc import kernel as kernel_
from agent.rpc import names as names_

if TYPE_CHECKING:  # who exports nothing does without
    from agent.otlp import exporter as exporter_


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """All that lives as long as the agent."""

    clock: clock_.Clock
    cluster: inputs.Cluster | None
    """The API server; None: policies come from a directory."""
    loop: reconciler.Reconciler
    verdicts: stream.Stream
    watcher: observer.Observer | None
    """None where nothing tells of verdicts."""
    runtime: runtime_.RuntimeWatch | None
    metrics: registry.Registry
    told: telemetry.Telemetry
    description: describe.Description
    ledger: audits.Ledger
    kernel: kernel_.Kernel
    exporter: exporter_.Exporter | None
    """None where flow logs are sent nowhere."""
    names: memory_.Memory | None
    """None where nothing is learned from DNS."""
    told_names: names_.Names
    """What is told of that."""


def build(
    config: config_.Config,
    chosen: engines.Running,
    *,
    cluster: inputs.Cluster | None,
    described: Callable[[], str],
    clock: clock_.Clock,
) -> Parts:
    """Build everything around the datapath that was chosen; `described` says where policies come from."""
    past, verdicts, metrics = history.History(), stream.Stream(clock=clock), registry.Registry()
    ledger = audits.Ledger(file=config.state_dir / audits.FILE, given=config.audit, clock=clock)
    if ledger.trouble:
        logs.logger("audit").error("not as it was", reason=ledger.trouble)
    refusals = queries.Refusals(node=config.node, history=past, stream=verdicts, clock=clock)
    names = _names(config, chosen, clock, refusals)
    loop = reconciler.Reconciler(
        datapath=chosen.datapath,
        node=config.node,
        deny_mode=config.deny_mode,
        hold_mode=config.hold_mode,
        clock=clock,
        listeners=(past,),
        applied=_each(telemetry.applied(metrics, clock), lambda new, _: ledger.see(new), _forgetting(names)),
        audit=ledger.setting,
        memory=names,
        learns_names=chosen.report.learns_names,
        filters_queries=chosen.report.filters_queries,
        resolvers=config.resolvers,
    )
    events = chosen.open_source(lambda why: logs.logger("agent").warning("verdicts", reason=why))
    counted = functools.partial(chosen.counters, events)
    watcher = _watcher(config.node, events, counted=counted, past=past, verdicts=verdicts, clock=clock, names=names)
    runtime = runtime_.RuntimeWatch(config.cri_socket, clock=clock) if config.cri_socket else None
    exporter = _exporter(config, clock)
    told = telemetry.Telemetry(
        version=version(),
        report=chosen.report,
        datapath=chosen.datapath,
        loop=loop,
        verdicts=verdicts,
        watcher=watcher,
        counters=counted,
        clock=clock,
        heart=health.Heart(clock),
        cluster=cluster.source if cluster else None,
        ledger=ledger,
        teller=inputs.teller(cluster, config.node, loop, clock) if cluster else None,
        exports=exporter.counted if exporter is not None else None,
        names=names.counted if names is not None else None,
    )
    counters = functools.partial(_counters, counted, loop, verdicts, watcher, runtime)
    return Parts(
        clock=clock,
        cluster=cluster,
        loop=loop,
        verdicts=verdicts,
        watcher=watcher,
        runtime=runtime,
        metrics=metrics,
        told=told,
        description=_description(config, chosen, told, described, counters, ledger=ledger),
        ledger=ledger,
        exporter=exporter,
        names=names,
        told_names=_told_names(names, chosen.datapath, clock),
        kernel=kernel_.Kernel(
            node=config.node, mode=chosen.report.mode, datapath=chosen.datapath, loop=loop, stream=verdicts
        ),
    )


def version() -> str:
    """Return this release's number."""
    try:
        return metadata.version("nodewall")
    except metadata.PackageNotFoundError:
        return "unknown"


def _exporter(config: config_.Config, clock: clock_.Clock) -> exporter_.Exporter | None:
    """Return what sends flow logs; raises InvalidInput where certificates cannot be used."""
    if config.collector is None:
        return None
    from agent.otlp import exporter, transport  # noqa: PLC0415 - who exports nothing does without

    log = logs.logger("otlp")
    sender = transport.Transport(config.collector, tell=lambda what: log.warning("certificates", reason=what))
    return exporter.Exporter(config.collector, node=config.node, version=version(), sender=sender, clock=clock)


def _names(
    config: config_.Config, chosen: engines.Running, clock: clock_.Clock, refusals: queries.Refusals
) -> memory_.Memory | None:
    log = logs.logger("names")
    ring = chosen.open_answers(lambda why: log.warning("answers", reason=why))
    if ring is None:
        return None
    return memory_.Memory(
        feed=feed.Feed(ring),
        known=chosen.datapath.known,
        lifetimes=config.lifetimes,
        file=config.state_dir / memory_.FILE,
        clock=clock,
        refused=refusals.tell,
    )


def _told_names(names: memory_.Memory | None, datapath: base.Datapath, clock: clock_.Clock) -> names_.Names:
    if names is None:
        return names_.NO_NAMES
    return names_.Names(
        remembered=names.remembered, known=datapath.known, boot_ns=clock.boot_ns, caught_up=names.caught_up
    )


def _forgetting(names: memory_.Memory | None) -> Callable[[reconciler.Enforcement, base.Applied], None]:
    def forget(new: reconciler.Enforcement, _done: base.Applied) -> None:
        if names is not None:
            names.keep_only(new.state.endpoints)

    return forget


def _watcher(
    node: str,
    events: engines.Source | None,
    *,
    counted: Callable[[], Mapping[str, int]],
    past: history.History,
    verdicts: stream.Stream,
    clock: clock_.Clock,
    names: memory_.Memory | None,
) -> observer.Observer | None:
    if events is None:
        return None
    return observer.Observer(
        node=node,
        reader=events.reader,
        kernel_lost=lambda: counted().get("events_lost", 0),
        history=past,
        stream=verdicts,
        clock=clock,
        names=names,
    )


def _description(
    config: config_.Config,
    chosen: engines.Running,
    told: telemetry.Telemetry,
    described: Callable[[], str],
    counters: Callable[[], Mapping[str, int]],
    *,
    ledger: audits.Ledger,
) -> describe.Description:
    return describe.Description(
        node=config.node,
        version=told.version,
        report=chosen.report,
        deny_mode=config.deny_mode,
        hold_mode=config.hold_mode,
        source=described,
        started_unix_ns=told.clock.unix_ns(),
        loop=told.loop,
        counters=counters,
        not_ready=told.not_ready,
        audit=audit_rpc.Auditing(loop=told.loop, ledger=ledger),
    )


def _each(
    *listeners: Callable[[reconciler.Enforcement, base.Applied], object],
) -> Callable[[reconciler.Enforcement, base.Applied], None]:
    def tell(new: reconciler.Enforcement, done: base.Applied) -> None:
        for listener in listeners:
            listener(new, done)

    return tell


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
        "verdict_watchers": verdicts.readers - telemetry.OWN_READERS,
        "verdicts_again": watcher.again if watcher is not None else 0,
    }
