"""Two datapaths as one: in which order they are written, what is reported, and what a failure of one leaves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from agent import desired, errors
from agent.datapath import base, layered, memory
from agent.model import endpoint

STATE = desired.DesiredState()


class Layer(memory.MemoryDatapath):
    """Writes down what it is asked, and refuses what it is told to."""

    def __init__(self, name: str, calls: list[str], *, generation: int = 0) -> None:
        """Share `calls` with the other layer."""
        super().__init__()
        self.name = name
        self.calls = calls
        self.generation = generation
        self.refuses: set[str] = set()
        self.learns = False

    def _called(self, what: str) -> None:
        self.calls.append(f"{what} {self.name}")
        if what in self.refuses:
            raise errors.ApplyFailed(f"{self.name} is stuck")

    def open(self) -> base.EngineReport:
        self._called("open")
        return base.EngineReport(
            mode=self.name,
            reasons=(f"a word of {self.name}",),
            proved=(f"{self.name} denies",),
            variant=self.name[:1],
            learns_names=self.learns,
        )

    def learn_names(self, desired: desired.DesiredState) -> frozenset[int]:
        assert desired is STATE
        return frozenset({self.generation})

    def apply(self, desired: desired.DesiredState) -> base.Applied:
        assert desired is STATE
        self._called("apply")
        self.generation += 1
        return base.Applied(generation=self.generation, written=self.generation, flipped=2, seconds=0.5)

    def settle(self) -> None:
        self._called("settle")

    def attach_links(self, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        self._called(f"attach {len(sandboxes)} to")

    def repair(self) -> Sequence[str]:
        self._called("repair")
        return (f"a rule of {self.name}",)

    def counters(self) -> Mapping[str, int]:
        return {"events_lost": self.generation, self.name: 0}

    def usage(self) -> Mapping[str, base.Usage]:
        return {self.name: base.Usage(self.generation, 8)}

    def missing(self) -> Sequence[str]:
        return (f"a pin of {self.name}",)

    def close(self) -> None:
        self._called("close")

    def uninstall(self) -> None:
        self._called("uninstall")


class Pair:
    """Both layers, and what came of them."""

    def __init__(self) -> None:
        """Start where the generations differ."""
        self.calls: list[str] = []
        self.told: list[tuple[int, int]] = []
        self.refuses = False
        """To have packets ask for names."""
        self.socket = Layer("socket", self.calls, generation=40)
        self.packet = Layer("iptables", self.calls, generation=6)
        self.both = layered.LayeredDatapath(
            socket=self.socket,
            packet=self.packet,
            tell=lambda *numbers: self.told.append(numbers),
            join=self._join,
        )

    def _join(self) -> None:
        self.calls.append("join")
        if self.refuses:
            raise errors.DatapathError("there is no xt_bpf")


@pytest.fixture
def pair() -> Pair:
    return Pair()


def test_both_are_opened_and_report_as_one_mode(pair: Pair) -> None:
    report = pair.both.open()
    assert report.mode == "socket+iptables"
    assert report.reasons == ("a word of socket", "a word of iptables")
    assert report.proved == ("socket denies", "iptables denies")
    assert report.variant == "i"


@pytest.mark.parametrize("failing", ["socket", "packet"])
def test_where_one_does_not_open_neither_stays_open(pair: Pair, failing: str) -> None:
    getattr(pair, failing).refuses = {"open"}
    with pytest.raises(errors.ApplyFailed):
        pair.both.open()
    opened = {call.removeprefix("open ") for call in pair.calls if call.startswith("open ")}
    closed = {call.removeprefix("close ") for call in pair.calls if call.startswith("close ")}
    assert opened <= closed


def test_the_packet_layer_is_written_first_and_one_number_names_the_state(pair: Pair) -> None:
    applied = pair.both.apply(STATE)
    assert pair.calls == ["apply iptables", "apply socket"]
    assert applied == base.Applied(generation=41, written=48, flipped=2, seconds=1.0)
    assert pair.told == [(7, 41)]


def test_what_the_packet_layer_refuses_leaves_the_socket_layer_with_the_old_policy(pair: Pair) -> None:
    pair.packet.refuses = {"apply"}
    with pytest.raises(errors.ApplyFailed, match="iptables is stuck"):
        pair.both.apply(STATE)
    assert pair.calls == ["apply iptables"]
    assert not pair.told


def test_what_the_socket_layer_refuses_is_said_and_the_next_apply_writes_both(pair: Pair) -> None:
    pair.socket.refuses = {"apply"}
    with pytest.raises(errors.ApplyFailed, match=r"packet layer enforces the new policy.*what either denies is denied"):
        pair.both.apply(STATE)
    assert not pair.told, "nothing may be reported that only one enforces"
    pair.socket.refuses = set()
    assert pair.both.apply(STATE).generation == 41
    assert pair.told == [(8, 41)]


def test_both_are_settled_closed_and_removed_also_where_the_first_fails(pair: Pair) -> None:
    for what in ("settle", "close", "uninstall"):
        pair.packet.refuses = {what}
        with pytest.raises(errors.ApplyFailed):
            getattr(pair.both, what)()
        assert pair.calls[-2:] == [f"{what} iptables", f"{what} socket"]


def test_sources_are_checked_and_names_are_learned_at_the_veths(pair: Pair) -> None:
    pair.both.attach_links(())
    assert pair.calls == ["attach 0 to iptables", "attach 0 to socket"]


def test_names_are_learned_where_the_packet_layer_asks_for_them(pair: Pair) -> None:
    pair.socket.learns = True
    assert pair.both.open().learns_names
    assert pair.calls[-1] == "join"
    assert pair.both.learn_names(STATE) == {pair.socket.generation}


def test_where_it_cannot_ask_names_are_denied_and_it_is_said_why(pair: Pair) -> None:
    pair.socket.learns = True
    pair.refuses = True
    report = pair.both.open()
    assert not report.learns_names
    assert report.reasons == (
        "a word of socket",
        "addresses that are learned by their names are not open to packets: there is no xt_bpf",
        "a word of iptables",
    )


def test_where_nothing_is_learned_nothing_is_asked(pair: Pair) -> None:
    assert not pair.both.open().learns_names
    assert "join" not in pair.calls


def test_repairs_of_both_are_told_and_counters_added_up(pair: Pair) -> None:
    assert pair.both.repair() == ("a rule of iptables", "a rule of socket")
    assert pair.both.counters() == {"events_lost": 46, "socket": 0, "iptables": 0}


def test_what_both_use_and_what_either_lacks_is_told(pair: Pair) -> None:
    assert pair.both.usage() == {"socket": base.Usage(40, 8), "iptables": base.Usage(6, 8)}
    assert pair.both.missing() == ("a pin of iptables", "a pin of socket")
