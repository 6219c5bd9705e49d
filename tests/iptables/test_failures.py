"""Writes that fail, agents that die in between, and locks that are held: the old state or the new, never neither."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import pathlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from agent import desired, errors
from agent.datapath.iptables import changes, commands, sets
from agent.datapath.iptables import text as text_
from agent.datapath.iptables.variant import Variant
from agent.model import net
from tests.bpf import node as node_
from tests.bpf import states, traffic
from tests.iptables import conftest

pytestmark = pytest.mark.root

PORT, OTHER = 8080, 9090
FLIPS = 100
ROUND_SECONDS = 10.0
"""Less than a guest's child may live."""
BROKEN = "-A NW-FORWARD -p tcp -m tcp --dport 99999 -j DROP\n"


def egress(rig: conftest.Rig, port: int) -> desired.DesiredState:
    """Return a state in which pod 0 reaches just one port of pod 1."""
    return states.pods(rig.node, egress={(257, states.TCP, port, 16): states.ALLOW})


@pytest.fixture
def served(rig: conftest.Rig) -> Iterator[conftest.Rig]:
    """Return the node with pod 1 listening at both ports."""
    second = rig.node.pods[1]
    with second.started(traffic.listens(PORT)) as ready, second.started(traffic.listens(OTHER)) as also:
        ready(), also()
        yield rig


@pytest.mark.parametrize("broken", tuple(net.Family), ids=lambda family: family.name)
def test_a_transaction_that_fails_leaves_the_old_state_in_both_families(
    served: conftest.Rig, broken: net.Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.apply(egress(served, PORT))
    with monkeypatch.context() as patched:
        _break(patched, broken)
        with pytest.raises(errors.ApplyFailed, match="99999"):
            served.apply(egress(served, OTHER))
    assert _reached(served) == {PORT}
    served.apply(egress(served, OTHER))
    assert _reached(served) == {OTHER}
    assert served.datapath.repair() == ()


def test_a_set_that_cannot_be_filled_leaves_the_old_state(
    served: conftest.Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.apply(egress(served, PORT))
    with monkeypatch.context() as patched:
        patched.setattr(sets, "REVISIONS", dict.fromkeys(sets.REVISIONS, 99))
        state = states.pods(served.node, egress={(256, states.TCP, OTHER, 16): states.ALLOW})
        with pytest.raises(errors.DatapathError, match="set"):
            served.apply(state)
    assert _reached(served) == {PORT}
    served.apply(egress(served, OTHER))
    assert _reached(served) == {OTHER}


def test_more_than_a_set_can_hold_is_refused_before_anything_is_written(
    served: conftest.Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.apply(egress(served, PORT))
    before = _rules(served)
    monkeypatch.setattr(sets, "MOST_SETS", 3)
    with pytest.raises(errors.MapFull):
        served.apply(states.pods(served.node, egress={(256, states.UDP, OTHER, 16): states.ALLOW}))
    assert _rules(served) == before
    assert _reached(served) == {PORT}


@pytest.mark.parametrize("point", ["sets", "first family", "settle"])
def test_an_agent_that_dies_is_followed_by_one_that_converges(
    served: conftest.Rig, successor: Callable[[], conftest.Rig], point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.apply(egress(served, PORT))
    with monkeypatch.context() as patched, contextlib.suppress(_Killed):
        _die(patched, point)
        served.apply(egress(served, OTHER))
    left = _reached_by_family(served)
    assert all(ports in ({PORT}, {OTHER}) for ports in left.values())
    after = successor()
    assert _reached_by_family(served) == left, "opening changes nothing"
    after.apply(egress(served, OTHER))
    assert _reached(served) == {OTHER}
    assert after.datapath.repair() == ()
    after.apply(egress(served, PORT))
    after.apply(egress(served, OTHER))
    assert len([name for name in _headers() if name.startswith("NW4-N")]) <= 2, "no version is left behind"
    served.datapath.repair()


def test_a_successor_counts_on_from_the_generation_it_finds(
    served: conftest.Rig, successor: Callable[[], conftest.Rig]
) -> None:
    before = served.datapath.apply(egress(served, PORT)).generation
    after = successor()
    assert after.datapath.apply(egress(served, PORT)).generation == before + 1
    assert after.datapath.apply(egress(served, PORT)).written == 0


def test_a_lock_held_for_ten_seconds_loses_no_change(
    served: conftest.Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    if served.variant is Variant.NFT:
        pytest.skip("nftables has no lock")
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    monkeypatch.setattr(commands, "LOCK_SECONDS", 1)  # ten times as fast as on a node
    served.apply(egress(served, PORT))
    holder = threading.Thread(target=_hold, args=(commands.lock_file(), 1.6))
    holder.start()
    time.sleep(0.1)
    with pytest.raises(errors.ApplyFailed, match=r"lock .*which 'pytest|lock .*which 'python"):
        served.datapath.apply(egress(served, OTHER))
    assert _reached(served) == {PORT}
    served.datapath.apply(egress(served, OTHER))  # the reconciler tries again
    holder.join()
    assert _reached(served) == {OTHER}


@pytest.mark.slow
def test_a_hundred_flips_show_no_packet_anything_but_one_of_both_states(rig: conftest.Rig) -> None:
    """Port PORT is allowed by both states, OTHER by neither."""
    both = {(257, states.TCP, PORT, 16): states.ALLOW}
    state_a = states.pods(rig.node, egress=both)
    state_b = states.pods(rig.node, egress={**both, (257, states.TCP, 7070, 16): states.ALLOW})
    rig.apply(state_a)
    flips = attempts = 0
    while flips < FLIPS:
        stop = time.monotonic() + ROUND_SECONDS
        with _hammering(rig, stop) as outcome:
            while flips < FLIPS and time.monotonic() < stop:
                rig.apply(state_a if flips % 2 else state_b)
                flips += 1
            made, wrong = outcome()
        attempts += made
        assert wrong == []
    assert attempts > FLIPS


class _Killed(BaseException):
    """What stands for SIGKILL: nothing catches it."""


def _die(patched: pytest.MonkeyPatch, point: str) -> None:
    real = commands.restore
    done: list[net.Family] = []

    def restore(family: net.Family, variant: Variant, text: str) -> None:
        if point == "sets" or (point == "first family" and done):
            raise _Killed
        real(family, variant, text)
        done.append(family)

    def destroy(_sets: sets.Sets, _name: str) -> bool:
        raise _Killed

    patched.setattr(commands, "restore", restore)
    if point == "settle":
        patched.setattr(sets.Sets, "destroy", destroy)


def _break(patched: pytest.MonkeyPatch, broken: net.Family) -> None:
    """Put a rule that iptables does not take at the end of one family's filter table, once."""
    real = text_.transaction
    families: list[None] = []

    def transaction(tables: object) -> str:
        families.append(None)
        written = real(tables)  # type: ignore[arg-type]  # what the writer gives
        if len(families) == list(net.Family).index(broken) + 1:
            at = written.index("COMMIT", written.index("*filter"))
            return written[:at] + BROKEN + written[at:]
        return written

    patched.setattr(text_, "transaction", transaction)


def _reached(rig: conftest.Rig) -> set[int]:
    """Return the ports of pod 1 that pod 0 reaches, the same in both families."""
    four, six = _reached_by_family(rig).values()
    assert four == six
    return four


def _reached_by_family(rig: conftest.Rig) -> dict[net.Address, set[int]]:
    first, second = rig.node.pods
    return {
        address: {port for port in (PORT, OTHER) if first.run(traffic.connects(address, port)) == 0}
        for address in node_.addresses(second)
    }


def _rules(rig: conftest.Rig) -> list[str]:
    return [line for line in rig.saved().splitlines() if line.startswith("-A")]


def _headers() -> dict[str, sets.Header]:
    with contextlib.closing(sets.Sets()) as kernel:
        return kernel.headers("NW")


def _hold(path: pathlib.Path, seconds: float) -> None:
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        time.sleep(seconds)


@contextlib.contextmanager
def _hammering(rig: conftest.Rig, stop: float) -> Iterator[Callable[[], tuple[int, list[str]]]]:
    first, second = rig.node.pods
    with second.started(traffic.listens(PORT)) as ready, second.started(traffic.listens(OTHER)) as also:
        ready(), also()
        with first.started(lambda: _hammer(str(second.address4), stop)) as outcome:
            yield outcome


def _hammer(address: str, stop: float) -> tuple[int, list[str]]:
    """Connect to an allowed and a denied port in turn until `stop`."""
    import socket  # noqa: PLC0415 - in the child

    attempts, wrong = 0, []
    while time.monotonic() < stop - 0.5:
        for port, expected in ((PORT, 0), (OTHER, errno.ECONNREFUSED)):
            with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                client.settimeout(2)
                got = client.connect_ex((address, port))
            attempts += 1
            if got != expected:
                wrong.append(f"port {port}: {errno.errorcode.get(got, got)}")
    return attempts, wrong[:10]


def test_the_versions_of_a_set_are_three() -> None:
    assert changes.LETTERS == ("a", "b", "c")
