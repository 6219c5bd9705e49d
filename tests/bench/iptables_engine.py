"""This project's engine as the benchmarks run it, and where its time goes."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from agent import clock, desired
from agent.datapath.iptables import commands, datapath, nflog, prefix, render, sets
from tests.bench import iptables_cluster, iptables_node

VARIANTS = tuple(commands.Variant)


@dataclasses.dataclass(slots=True)
class Meter:
    """What applying took and wrote, summed until it is reset."""

    render_s: float = 0.0
    sets_s: float = 0.0
    restore_s: float = 0.0
    members: int = 0
    rules: int = 0
    text_bytes: int = 0


def name(variant: commands.Variant) -> str:
    """Name the engine in tables."""
    return f"nodewall, {variant.value}"


@contextlib.contextmanager
def opened(rig: iptables_node.Rig, variant: commands.Variant) -> Iterator[datapath.IptablesDatapath]:
    """Open the engine on a node; what it enforces stays with the namespace, which goes away."""
    engine = datapath.IptablesDatapath(variant=variant)
    rig.inside(engine.open)
    try:
        yield engine
    finally:
        rig.inside(engine.close)


@contextlib.contextmanager
def enforcing(
    rig: iptables_node.Rig, cluster: iptables_cluster.Cluster, variant: commands.Variant
) -> Iterator[Callable[[], None]]:
    """Have a node enforce the cluster's policies, source checks of every veth included, and listen to its verdicts.

    The value reads and forgets what has been logged so far; between measurements, as the agent has a core of its own.
    """
    with opened(rig, variant) as engine:
        state = iptables_cluster.compile_for(cluster, rig.interfaces)
        rig.inside(lambda: engine.attach_links(iptables_cluster.sandboxes(cluster, rig.interfaces)))
        apply(rig, engine, state)
        reader = rig.inside(lambda: nflog.NflogReader(prefix.GROUP, engine.moments, clock=clock.SystemClock()))
        with contextlib.closing(reader):
            yield lambda: _empty(reader)


def _empty(reader: nflog.NflogReader) -> None:
    while reader.read():
        pass


def apply(rig: iptables_node.Rig, engine: datapath.IptablesDatapath, state: desired.DesiredState) -> float:
    """Apply and return the seconds until it is enforced; what waits until then is done afterwards."""
    begin = time.perf_counter()
    rig.inside(lambda: engine.apply(state))
    took = time.perf_counter() - begin
    rig.inside(engine.settle)
    return took


@contextlib.contextmanager
def metered() -> Iterator[Meter]:
    """Measure the three parts of every apply in the block."""
    meter = Meter()

    def render_(*given: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        try:
            return plain_render(*given, **named)
        finally:
            meter.render_s += time.perf_counter() - begin

    def restore(family: Any, variant: Any, text: str, *given: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        try:
            return plain_restore(family, variant, text, *given, **named)
        finally:
            meter.restore_s += time.perf_counter() - begin
            meter.text_bytes += len(text)
            meter.rules += text.count("\n-A ")

    def on_sets(plain: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: sets.Sets, name: str, *given: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return plain(self, name, *given, **named)
            finally:
                meter.sets_s += time.perf_counter() - begin
                meter.members += len(given[0]) if plain in counted else 0

        return call

    plain_render, plain_restore = render.render, commands.restore
    counted = (sets.Sets.add, sets.Sets.remove)
    verbs = ("create", "add", "remove", "flush", "destroy")
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(render, "render", render_))
        stack.enter_context(mock.patch.object(commands, "restore", restore))
        for verb in verbs:
            stack.enter_context(mock.patch.object(sets.Sets, verb, on_sets(getattr(sets.Sets, verb))))
        yield meter
