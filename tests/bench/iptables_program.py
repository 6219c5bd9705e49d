"""From a DesiredState of 10,000 policies and 100,000 addresses to enforced, against the plain ways to write as much.

Plain: 10,000 rules by iptables-restore, and 100,000 addresses in one set by `ipset restore`; the engine is divided by
the sum of both. For comparison once: a set for each peer and rules that name them, and python-iptables, which writes
rules alone, in one commit. Each begins with finished text or values, in an empty namespace.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping

from agent import desired
from agent.datapath.iptables import commands
from tests.bench import figures, iptables_cluster, iptables_engine, iptables_linear, iptables_node

ROUNDS = 5
RULES, MEMBERS = iptables_cluster.POLICIES, 100_000
SETS = "100,000 addresses, ipset restore, one set"
Way = tuple[iptables_cluster.Setting, commands.Variant]


def run() -> list[figures.Figure]:
    """Measure in rounds over all ways, then what is measured once."""
    rules = iptables_linear.rules(RULES)
    members = iptables_linear.one_set(MEMBERS)
    states = {setting: _state(setting) for setting in iptables_cluster.Setting}
    took: defaultdict[str, list[float]] = defaultdict(list)
    metered: defaultdict[Way, list[tuple[float, iptables_engine.Meter]]] = defaultdict(list)
    for _ in range(ROUNDS):
        took[SETS].append(_timed(members, "ipset", "restore"))
        for variant in iptables_engine.VARIANTS:
            took[_restore(variant)].append(_timed(rules, *_command(variant)))
            for setting, state in states.items():
                metered[setting, variant].append(_enforce(state, variant))
    plain = {name: figures.median(values) for name, values in took.items()}
    return [
        *(figures.Figure(name=name, value=value, unit="ms") for name, value in plain.items()),
        *_engine(metered, plain),
        *_once(plain[_restore(commands.Variant.LEGACY)]),
    ]


def _restore(variant: commands.Variant) -> str:
    return f"10,000 rules, iptables-{variant.value}-restore"


def _command(variant: commands.Variant) -> tuple[str, ...]:
    return f"iptables-{variant.value}-restore", "--noflush", "-w"


def _state(setting: iptables_cluster.Setting) -> desired.DesiredState:
    """Compile for a node like every other that `iptables_node` makes: interfaces are numbered in order."""
    with iptables_node.running() as rig:
        return iptables_cluster.compile_for(iptables_cluster.build(setting), rig.interfaces)


def _timed(text: str, *command: str) -> float:
    with iptables_node.empty() as rig:
        begin = time.perf_counter()
        rig.run(*command, text=text)
        return (time.perf_counter() - begin) * 1000


def _enforce(state: desired.DesiredState, variant: commands.Variant) -> tuple[float, iptables_engine.Meter]:
    with (
        iptables_node.running() as rig,
        iptables_engine.opened(rig, variant) as engine,
        iptables_engine.metered() as meter,
    ):
        return iptables_engine.apply(rig, engine, state) * 1000, meter


def _engine(
    metered: Mapping[Way, list[tuple[float, iptables_engine.Meter]]], plain: Mapping[str, float]
) -> Iterator[figures.Figure]:
    for (setting, variant), runs in metered.items():
        meters = [meter for _, meter in runs]
        parts = [
            f"{part} {figures.median([getattr(meter, f'{part}_s') for meter in meters]) * 1000:.0f}"
            for part in ("render", "sets", "restore")
        ]
        yield figures.Figure(
            name=f"nodewall, {variant.value}, 10,000 policies, {setting.value}",
            value=figures.median([took for took, _ in runs]),
            unit="ms",
            baseline=plain[_restore(variant)] + plain[SETS],
            note=f"{', '.join(parts)} ms; {meters[-1].rules:,} rules, {meters[-1].members:,} members",
        )


def _once(baseline: float) -> Iterator[figures.Figure]:
    with iptables_node.empty() as rig:
        for name, text, command in (
            ("100,000 addresses, ipset restore, a set a peer", iptables_linear.sets(RULES), ("ipset", "restore")),
            (
                "10,000 rules that name them, legacy",
                iptables_linear.rules_of_sets(RULES),
                _command(commands.Variant.LEGACY),
            ),
        ):
            begin = time.perf_counter()
            rig.run(*command, text=text)
            yield figures.Figure(name=name, value=(time.perf_counter() - begin) * 1000, unit="ms", note="one round")
    with iptables_node.empty() as rig:
        begin = time.perf_counter()
        rig.run(sys.executable, "-m", "tests.bench.iptables_python", str(RULES))
        took = (time.perf_counter() - begin) * 1000
    yield figures.Figure(
        name="10,000 rules, python-iptables, one commit", value=took, unit="ms", baseline=baseline, note="one round"
    )
