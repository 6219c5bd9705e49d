"""What forwarding costs: connects, and 64-byte UDP packets of one flow that nobody answers.

Plain forwarding; conntrack alone; this engine with 10,000 policies; 10,000 rules in a row. A flow nobody answers is
never ESTABLISHED, so nothing shortens its way: every packet is judged in full, as every packet of every flow is here.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping

from tests.bench import figures, iptables_cluster, iptables_engine, iptables_linear, iptables_node
from tests.bpf import node

ROUNDS = 15
CONNECTS = 1000
SEND_MS = 200
PLAIN, TRACKING, LINEAR = "plain forwarding", "conntrack alone", "10,000 rules in a row"
Drain = Callable[[], None]
Write = Callable[[iptables_node.Rig], contextlib.AbstractContextManager[Drain]]
"""Puts rules in force; what it gives is called between measurements."""


def variants(cluster: iptables_cluster.Cluster) -> Mapping[str, Write]:
    """Return what is written to each node, by the name of the variant."""
    found: dict[str, Write] = {
        PLAIN: lambda _: contextlib.nullcontext(_nothing),
        TRACKING: lambda rig: _restored(rig, iptables_linear.tracking()),
    }
    for variant in iptables_engine.VARIANTS:
        found[iptables_engine.name(variant)] = functools.partial(
            iptables_engine.enforcing, cluster=cluster, variant=variant
        )
    found[LINEAR] = lambda rig: _restored(rig, iptables_linear.rules(iptables_cluster.POLICIES))
    return found


def run() -> list[figures.Figure]:
    """Measure every variant in every round, in the crowded setting."""
    cluster = iptables_cluster.build(iptables_cluster.Setting.CROWDED)
    measured = measure(variants(cluster))
    plain_connect, plain_rate = (figures.median(values) for values in measured[PLAIN])
    found = []
    for name, (connects, _) in measured.items():
        baseline = None if name == PLAIN else plain_connect
        note = f"best {min(connects) / 1000:.1f} us"
        value = figures.median(connects) / 1000
        found.append(
            figures.Figure(
                name=f"TCP connect, {name}",
                value=value,
                unit="us",
                baseline=baseline and baseline / 1000,
                note=note,
            )
        )
    for name, (_, rates) in measured.items():
        baseline = None if name == PLAIN else plain_rate
        note = f"best {max(rates):.0f}, {1e6 / max(rates):.0f} ns a packet"
        found.append(
            figures.Figure(
                name=f"UDP 64 B, {name}", value=figures.median(rates), unit="kpps", baseline=baseline, note=note
            )
        )
    return found


def measure(writers: Mapping[str, Write], rounds: int = ROUNDS) -> dict[str, tuple[list[float], list[float]]]:
    """Return connect times (ns) and packet rates (thousands a second) by variant, a value a round but the first."""
    found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in writers}
    with contextlib.ExitStack() as stack:
        rigs = {name: stack.enter_context(_written(write)) for name, write in writers.items()}
        for number in range(rounds + 1):
            for place, ask in enumerate((_connect, _rate)):
                for name, (each, drain) in rigs.items():
                    value = ask(each)
                    drain()
                    if number:
                        found[name][place].append(value)
    return found


@contextlib.contextmanager
def _written(write: Write) -> Iterator[tuple[iptables_node.Rig, Drain]]:
    with iptables_node.running() as rig, write(rig) as drain:
        yield rig, drain


@contextlib.contextmanager
def _restored(rig: iptables_node.Rig, text: str) -> Iterator[Drain]:
    rig.run("iptables-legacy-restore", "--noflush", "-w", text=text)
    yield _nothing


def _nothing() -> None:
    """Do what there is to do between measurements where nothing is logged."""


def _connect(rig: iptables_node.Rig) -> float:
    where = (str(iptables_cluster.SERVER), str(iptables_cluster.OPEN))
    answer = rig.ask(str(iptables_node.tool("connect")), "tcp", *where, str(CONNECTS))
    assert answer["successes"] == CONNECTS, answer
    return float(answer["median_ns"])


def _rate(rig: iptables_node.Rig) -> float:
    where = (str(iptables_cluster.SERVER), str(iptables_cluster.OPEN))
    before = node.within(rig.server, _arrived)
    answer = rig.ask(str(iptables_node.tool("packets")), "send", *where, str(SEND_MS))
    time.sleep(0.01)
    arrived = node.within(rig.server, _arrived) - before
    assert arrived > 0.9 * answer["sent"], f"{arrived} of {answer['sent']} packets arrived"
    return float(arrived / answer["wall_ns"] * 1e6)


def _arrived() -> int:
    """Count the UDP packets that reached a socket of this namespace, full or not."""
    lines = pathlib.Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Udp:"))
    counted = dict(zip(names, map(int, values), strict=True))
    return counted["InDatagrams"] + counted["RcvbufErrors"]
