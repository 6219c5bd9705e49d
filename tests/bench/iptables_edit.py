"""What one policy edit costs where there are 100 policies and where there are 10,000, all of local pods.

The client's policy allows one port more, then again does not. From apply() called to enforced, and what was written.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from agent.datapath.iptables import commands
from tests.bench import figures, iptables_cluster, iptables_engine, iptables_node

ROUNDS = 21
SIZES = (100, iptables_cluster.POLICIES)


def run() -> list[figures.Figure]:
    """Measure each variant at each size; the smaller size is the baseline."""
    clusters = {size: iptables_cluster.build(iptables_cluster.Setting.CROWDED, size) for size in SIZES}
    return [figure for variant in iptables_engine.VARIANTS for figure in _of(variant, clusters)]


def _of(variant: commands.Variant, clusters: dict[int, iptables_cluster.Cluster]) -> Iterator[figures.Figure]:
    baseline = None
    for size, cluster in clusters.items():
        with (
            iptables_node.running() as rig,
            iptables_engine.opened(rig, variant) as engine,
        ):
            states = [
                iptables_cluster.compile_for(each, rig.interfaces)
                for each in (cluster, iptables_cluster.edited(cluster, iptables_cluster.CLOSED))
            ]
            iptables_engine.apply(rig, engine, states[0])
            with iptables_engine.metered() as meter:
                turns = itertools.islice(itertools.cycle(reversed(states)), ROUNDS)
                took = [iptables_engine.apply(rig, engine, state) * 1000 for state in turns]
        value = figures.median(took)
        yield figures.Figure(
            name=f"one policy edited among {size:,}, {variant.value}",
            value=value,
            unit="ms",
            baseline=baseline,
            note=(
                f"render {meter.render_s / ROUNDS * 1000:.1f}, sets {meter.sets_s / ROUNDS * 1000:.1f},"
                f" restore {meter.restore_s / ROUNDS * 1000:.1f} ms; {meter.text_bytes // ROUNDS:,} B,"
                f" {meter.rules / ROUNDS:.0f} rules, {meter.members / ROUNDS:.0f} members written"
            ),
        )
        baseline = value if baseline is None else baseline
