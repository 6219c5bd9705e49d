"""From engine to engine in one network namespace while traffic runs: no gap, no leak, and nothing left of the last."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import multiprocessing.synchronize
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import pytest

from agent import errors
from agent.datapath import base, engines
from agent.datapath.bpf import conntrack, learner, names_filter, socket_loader
from agent.datapath.bpf import datapath as bpf
from agent.datapath.iptables import ruleset, sets, variant
from agent.model import net, verdict
from tests.bpf import conftest, node, packets, states, traffic

pytestmark = pytest.mark.root

OPEN, CLOSED = 8080, 9090
ECHO_S = 2.0
SECONDS = 120
"""Longer than the tour takes on a starved machine."""
Counted: TypeAlias = collections.Counter[str]
Way: TypeAlias = tuple[engines.Engine, engines.Iptables]
NFBPF = (engines.Engine.NFBPF, engines.Iptables.AUTO)
SOCKET_NFT = (engines.Engine.SOCKET_IPTABLES, engines.Iptables.NFT)
SOCKET_LEGACY = (engines.Engine.SOCKET_IPTABLES, engines.Iptables.LEGACY)
NFT = (engines.Engine.IPTABLES, engines.Iptables.NFT)
LEGACY = (engines.Engine.IPTABLES, engines.Iptables.LEGACY)
TOUR = (NFBPF, SOCKET_NFT, SOCKET_LEGACY, NFBPF, LEGACY, NFT, SOCKET_NFT, NFT, NFBPF)
"""Every layer comes and goes, and every kind of packet layer follows every other."""
LEFT = {
    NFBPF: {"packet programs", "socket programs", "learner", "conntrack table"},
    SOCKET_NFT: {"socket programs", "learner", "programs to ask", "nft chains", "sets", "netdev table"},
    SOCKET_LEGACY: {"socket programs", "learner", "programs to ask", "legacy chains", "sets", "netdev table"},
    NFT: {"nft chains", "sets", "netdev table"},
    LEGACY: {"legacy chains", "sets", "netdev table"},
}


class Rig:
    """A node, its agents one after the other, and what they leave."""

    def __init__(self, home: node.Node) -> None:
        """Nothing is enforced yet."""
        self.node = home
        self.home = engines.Home(node=f"takeover-{os.getpid()}", bpffs=conftest.BPFFS, cgroup_root=home.cgroup)
        rows = {(protocol, OPEN): states.ALLOW for protocol in (states.TCP, states.UDP)}
        self.state = states.pods(
            home,
            egress={(states.identity_of(1), *port, 16): action for port, action in rows.items()},
            ingress={(states.identity_of(0), *port, 16): action for port, action in rows.items()},
        )
        self.told: list[str] = []

    @contextlib.contextmanager
    def agent(self, way: Way) -> Iterator[engines.Running]:
        """Start an agent; what it enforces outlives it."""
        self.told = []
        running = engines.start(*way, self.home, tell=self.told.append)
        with contextlib.closing(running.datapath):
            yield running

    def enforce(self, way: Way) -> base.Applied:
        """Have an agent come, enforce and end."""
        with self.agent(way) as running:
            running.datapath.attach_links(states.sandboxes(self.node))
            applied = running.datapath.apply(self.state)
            running.datapath.settle()
            return applied

    def left(self) -> set[str]:
        """Return what of any engine is in this network namespace."""
        home = conftest.BPFFS / bpf.ROOT / self.home.node
        pins = {path.name for path in home.glob("v*/links/*")}
        programs = {path.name for path in home.glob("v*/programs/*/*")}
        tables = subprocess.run(["nft", "list", "tables"], check=True, capture_output=True, text=True).stdout
        found = {
            "packet programs": bool(pins & set(bpf.PACKET_PROGRAMS)),
            "socket programs": bool(pins & set(socket_loader.ATTACH_TYPES)),
            "learner": any(name.startswith(hook.prefix) for hook in learner.HOOKS for name in pins),
            "programs to ask": bool(programs & set(names_filter.PROGRAMS)),
            "conntrack table": f"table inet {conntrack.TABLE}" in tables,
            "netdev table": "table netdev nodewall" in tables,
            "sets": bool(_set_names()),
        }
        found |= {f"{one.value} chains": _has_chains(one) for one in variant.Variant}
        return {what for what, there in found.items() if there}


def _set_names() -> list[str]:
    with contextlib.closing(sets.Sets()) as kernel:
        return list(kernel.headers(ruleset.SET_PREFIX))


def _has_chains(which: variant.Variant) -> bool:
    return any(
        ":NW-" in variant._saved(family, which, table)
        for family in net.Family
        for table in variant.tables(family, which)
    )


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    if not os.path.ismount(conftest.BPFFS):
        subprocess.run(["mount", "-t", "bpf", "bpf", str(conftest.BPFFS)], check=True)
    with node.running() as home, pytest.MonkeyPatch.context() as patch:
        patch.setattr(node, "CHILD_SECONDS", SECONDS)
        patch.setenv("XTABLES_LOCKFILE", str(tmp_path_factory.mktemp("lock") / "xtables.lock"))
        made = Rig(home)
        try:
            yield made
        finally:
            engines.uninstall(engines.Engine.AUTO, made.home)


@pytest.mark.slow
def test_from_engine_to_engine_nothing_leaks_nothing_allowed_is_denied_and_nothing_of_the_last_is_left(
    rig: Rig,
) -> None:
    first, second = rig.node.pods
    rig.enforce(TOUR[0])
    stop = multiprocessing.Event()
    forged = packets.udp(first.address4, second.address4, CLOSED)
    with second.started(traffic.listens(OPEN)) as listening:
        assert listening() == "listens"  # before anybody asks
        with (
            second.started(_receives_until(CLOSED, stop)) as arrived,
            first.started(traffic.floods(forged, first.mac, stop, pause_s=0.001)) as flooded,
            first.started(_asks_until(second.address4, stop)) as asked,
            first.started(_connects_until(second.address4, stop)) as connected,
        ):
            before = TOUR[0]
            for way in TOUR[1:]:
                rig.enforce(way)
                assert rig.left() == LEFT[way], f"{before} to {way}"
                assert bool(rig.told) is bool(LEFT[before] - LEFT[way]), f"{before} to {way}"
                before = way
            stop.set()
            answers, results, forced, came = asked(), connected(), flooded(), arrived()
    print(f"\n{len(TOUR) - 1} changes: {answers}, {results}, {forced} packets past the sockets, {came} came")
    assert answers["lost"] == 0
    assert answers["answered"] > 100
    assert results["open: refused"] == 0
    assert results["open: connected"] > 100
    assert results["closed: connected"] == 0
    assert results["closed: refused"] > 100
    assert forced > 100
    assert came == 0


@pytest.mark.parametrize(("old", "new"), [(NFBPF, NFT), (LEGACY, SOCKET_NFT), (NFT, NFBPF)])
@pytest.mark.parametrize("next_is_new", [True, False])
def test_an_agent_that_dies_between_the_engines_leaves_both_and_either_takes_over(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, old: Way, new: Way, *, next_is_new: bool
) -> None:
    rig.enforce(old)

    def die(*_: object) -> bool:
        raise errors.ApplyFailed("killed")

    with monkeypatch.context() as patch:
        for name in ("removal.everything", "removal.rules"):
            patch.setattr(f"agent.datapath.iptables.{name}", die)
        patch.setattr("agent.datapath.bpf.datapath.BPFDatapath.remove_packet_layer", die)
        patch.setattr("agent.datapath.bpf.datapath.BPFDatapath.uninstall", die)
        with pytest.raises(errors.ApplyFailed, match="cannot be removed and may deny more: killed"):
            rig.enforce(new)
    first, second = rig.node.pods
    assert rig.left() >= LEFT[new]
    with second.started(traffic.listens(OPEN)) as listening, second.started(traffic.listens(CLOSED)) as also:
        assert (listening(), also()) == ("listens", "listens")
        assert first.run(traffic.connects(second.address4, OPEN)) == 0, "both allow it"
        assert first.run(traffic.connects(second.address4, CLOSED)) != 0
        way = new if next_is_new else old
        rig.enforce(way)
        assert rig.left() == LEFT[way]
        assert first.run(traffic.connects(second.address6, OPEN)) == 0
        assert first.run(traffic.connects(second.address6, CLOSED)) != 0


@pytest.mark.parametrize("way", [SOCKET_NFT, SOCKET_LEGACY])
def test_events_of_both_layers_carry_the_generation_that_was_reported(rig: Rig, way: Way) -> None:
    first, second = rig.node.pods
    with rig.agent(way) as running:
        assert running.report.mode == "socket+iptables"
        assert running.report.variant == way[1].value
        running.datapath.apply(states.pods(rig.node))
        generation = running.datapath.apply(rig.state).generation
        source = running.open_source(pytest.fail)
        assert source is not None
        while source.reader.read():
            pass
        first.run(traffic.connects(second.address4, CLOSED))
        first.run(traffic.sends_raw(packets.udp(first.address4, second.address4, CLOSED), to=first.mac))
        deadline, seen = time.monotonic() + 3, dict[int, int]()
        while len(seen) < 2 and time.monotonic() < deadline:
            seen |= {event.layer: event.generation for event in source.reader.read()}
            time.sleep(0.02)
        assert seen == {verdict.Layer.SOCKET.value: generation, verdict.Layer.PACKET.value: generation}
        assert running.counters(source)["events_lost"] == 0
        source.reader.close()


def test_uninstalling_removes_every_engine_whichever_was_used_last(rig: Rig) -> None:
    for way in (SOCKET_NFT, LEGACY):
        rig.enforce(way)
        engines.uninstall(engines.Engine.AUTO, rig.home)
        assert rig.left() == set()
        engines.uninstall(engines.Engine.AUTO, rig.home)


def _asks_until(address: net.Address, stop: multiprocessing.synchronize.Event) -> Callable[[], Counted]:
    """Have one socket ask again and again, and count what is not answered; nothing is asked twice."""

    def action() -> Counted:
        counted: Counted = collections.Counter()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((str(address), OPEN))
            client.settimeout(ECHO_S)
            while not stop.is_set():
                try:
                    client.send(b"question")
                    client.recv(64)
                except OSError as error:
                    counted["lost"] += 1
                    counted[f"lost: {error}"] += 1
                else:
                    counted["answered"] += 1
                time.sleep(0.001)
        return counted

    return action


def _connects_until(address: net.Address, stop: multiprocessing.synchronize.Event) -> Callable[[], Counted]:
    def action() -> Counted:
        counted: Counted = collections.Counter()
        while not stop.is_set():
            for name, port in (("open", OPEN), ("closed", CLOSED)):
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                    client.settimeout(ECHO_S if name == "open" else 0.05)
                    try:
                        client.connect((str(address), port))
                    except OSError:
                        counted[f"{name}: refused"] += 1
                    else:
                        counted[f"{name}: connected"] += 1
            time.sleep(0.005)
        return counted

    return action


def _receives_until(port: int, stop: multiprocessing.synchronize.Event) -> Callable[[], int]:
    """Count the datagrams that come to a port; it listens for connections as well, so that none is refused for it."""

    def action() -> int:
        count = 0
        with (
            socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True),
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server,
        ):
            server.bind(("::", port))
            server.settimeout(0.1)
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    server.recv(1 << 16)
                    count += 1
        return count

    return action
