"""Where the agent's picture of the cluster comes from: a directory of manifests, or the API server.

Both yield whole pictures, the first one only when everything is in, so what follows them need not know which it is. The
Kubernetes client is imported only where it is used. While the API server is away nothing is yielded and the last policy
stays; the log says when it went and when it came back, and `describe` says since when.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Protocol

from agent import clock as clock_
from agent import config as config_
from agent import errors, logs, reconciler
from agent.sources import manifests

if TYPE_CHECKING:
    from agent import problems
    from agent.sources.kubernetes import access as access_
    from agent.sources.kubernetes import source as source_


class Source(Protocol):
    """Yields pictures of the cluster."""

    def watch(self) -> AsyncGenerator[manifests.Update, None]:
        """Yield the first whole picture, then one after every change."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """The source `kubernetes`, and the credentials it goes by."""

    source: source_.KubernetesSource
    access: access_.Access


async def follow(source: Source, loop: reconciler.Reconciler) -> None:
    """Hand every picture to the reconciler."""
    async with contextlib.aclosing(source.watch()) as updates:
        async for update in updates:
            loop.set_source(update)


def directory(config: config_.Config) -> manifests.ManifestSource:
    """Return the source of manifests. Raises InvalidInput where the agent was told of none."""
    if config.source is None:
        raise errors.InvalidInput(field="--source", value="", remedy="name a directory of manifests")
    return manifests.ManifestSource(directory=config.source, state_directory=config.state_dir)


def cluster(config: config_.Config, clock: clock_.Clock) -> Cluster | None:
    """Return the source `kubernetes` if it was asked for; raises InvalidInput if its credentials cannot be used."""
    if config.cluster is None:
        return None
    from agent.sources.kubernetes import access, source  # noqa: PLC0415 - agents fed by manifests do without

    log = logs.logger("kubernetes")

    def tell(state: source.WatchState) -> None:
        if not state.served:
            log.info("not served by this cluster; asked for again within a minute", resource=state.resource.value)
        elif state.connected:
            log.info("connected", resource=state.resource.value)
        else:
            log.warning("not connected; the last policy stays", resource=state.resource.value, error=state.error)

    asked = config.cluster
    granted = access.Access(kubeconfig=asked.kubeconfig, server=asked.server, tls_server_name=asked.server_name)
    return Cluster(source=source.KubernetesSource(access=granted, clock=clock, told=tell), access=granted)


def teller(found: Cluster, node: str, loop: reconciler.Reconciler, clock: clock_.Clock) -> problems.Teller:
    """Return what tells the authors of policies what of them is not honoured."""
    from agent import problems  # noqa: PLC0415 - likewise
    from agent.sources.kubernetes import events  # noqa: PLC0415 - likewise

    sender = events.EventSender(access_=found.access, node=node, clock=clock)
    return problems.Teller(node=node, loop=loop, sender=sender, clock=clock)


def describe(config: config_.Config, found: Cluster | None, clock: clock_.Clock) -> Callable[[], str]:
    """Return what says, now, where policies come from and since when that does not answer."""

    def said() -> str:
        if found is None:
            return str(config.source)
        lost_unix_ns = found.source.lost_unix_ns
        if lost_unix_ns is None:
            return "kubernetes"
        errors_ = {state.error for state in found.source.states if state.error}
        silent_s = max(0, clock.unix_ns() - lost_unix_ns) / 1e9
        return f"kubernetes (no answer for {silent_s:.0f} s{': ' if errors_ else ''}{'; '.join(sorted(errors_))})"

    return said
