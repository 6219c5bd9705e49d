"""The choice of the engine: the best that opens, with a reason for each that does not; a forced one or none."""

from __future__ import annotations

import dataclasses

import pytest

from agent import desired, errors
from agent.datapath import base, engines, memory

NO_NETFILTER = errors.NotSupported(
    feature="the packet layer (BPF netfilter programs) on kernel 6.1.0", needs="Linux 6.4 or newer"
)
NO_BPF = errors.ProgramRejected(program="socket.bpf.c", log="line one\nline two")
NO_SETS = errors.NotSupported(feature="ipset", needs="a kernel with CONFIG_IP_SET (module ip_set)")


class Candidate(memory.MemoryDatapath):
    """An engine of a machine that has some things and lacks others."""

    def __init__(self, engine: engines.Engine, refusal: Exception | None) -> None:
        """Refuse to open with `refusal`."""
        super().__init__()
        self.engine = engine
        self.refusal = refusal
        self.closed = False

    def open(self) -> base.EngineReport:
        if self.refusal is not None:
            raise self.refusal
        return base.EngineReport(mode=self.engine.value, reasons=("no br_netfilter",), variant="nft")

    def close(self) -> None:
        self.closed = True


class Machine:
    """Makes candidates, and remembers them."""

    def __init__(self, **refusals: Exception) -> None:
        """`refusals` by the engine's name in the enumeration."""
        self.refusals = {engines.Engine[name]: refusal for name, refusal in refusals.items()}
        self.made: list[Candidate] = []

    def make(self, engine: engines.Engine) -> engines.Made:
        candidate = Candidate(engine, self.refusals.get(engine))
        self.made.append(candidate)
        return engines.Made(datapath=candidate, reasons=("nft is kube-proxy's",))


def test_auto_takes_the_best_and_asks_no_other() -> None:
    machine = Machine()
    running = engines.first_that_runs(engines.Engine.AUTO, machine.make)
    assert running.engine is engines.Engine.NFBPF
    assert running.report.reasons == ("nft is kube-proxy's", "no br_netfilter")
    assert len(machine.made) == 1
    assert running.datapath is machine.made[0]
    assert not machine.made[0].closed


def test_auto_falls_back_one_by_one_and_says_in_a_line_each_what_was_missing() -> None:
    machine = Machine(NFBPF=NO_NETFILTER, SOCKET_IPTABLES=NO_BPF)
    running = engines.first_that_runs(engines.Engine.AUTO, machine.make)
    assert running.engine is engines.Engine.IPTABLES
    assert running.report.mode == "iptables"
    assert running.report.variant == "nft"
    first, second, *rest = running.report.reasons
    assert first.startswith("nfbpf does not run here: the packet layer")
    assert "6.1.0" in first
    assert "Linux 6.4 or newer" in first
    assert second == "socket+iptables does not run here: program socket.bpf.c was rejected: line one line two"
    assert rest == ["nft is kube-proxy's", "no br_netfilter"]
    assert [candidate.closed for candidate in machine.made] == [True, True, False]


def test_where_nothing_runs_every_reason_is_given_in_one_line() -> None:
    machine = Machine(NFBPF=NO_NETFILTER, SOCKET_IPTABLES=NO_BPF, IPTABLES=NO_SETS)
    with pytest.raises(errors.DatapathError, match=r"no engine runs here: nfbpf .* iptables .*CONFIG_IP_SET") as raised:
        engines.first_that_runs(engines.Engine.AUTO, machine.make)
    assert "\n" not in str(raised.value)
    assert all(candidate.closed for candidate in machine.made)


@pytest.mark.parametrize("engine", engines.BEST_FIRST)
def test_an_engine_that_was_asked_for_is_not_replaced_by_another(engine: engines.Engine) -> None:
    machine = Machine(**{engine.name: NO_NETFILTER})
    with pytest.raises(errors.NotSupported, match=r"6\.1\.0") as raised:
        engines.first_that_runs(engine, machine.make)
    assert raised.value is NO_NETFILTER
    assert [candidate.engine for candidate in machine.made] == [engine]
    assert machine.made[0].closed


def test_an_engine_that_was_asked_for_below_the_best_says_so() -> None:
    running = engines.first_that_runs(engines.Engine.IPTABLES, Machine().make)
    assert running.report.reasons[0] == "iptables was asked for"
    assert "asked" not in "".join(engines.first_that_runs(engines.Engine.NFBPF, Machine().make).report.reasons)


def test_what_the_operating_system_refuses_is_an_engine_that_does_not_run() -> None:
    machine = Machine(NFBPF=PermissionError(1, "Operation not permitted", "/sys/fs/bpf/nodewall"))
    running = engines.first_that_runs(engines.Engine.AUTO, machine.make)
    assert running.engine is engines.Engine.SOCKET_IPTABLES
    assert "opening the engine nfbpf" in running.report.reasons[0]
    assert "/sys/fs/bpf/nodewall" in running.report.reasons[0]


def test_the_counters_of_several_are_added_up() -> None:
    assert engines.added_up({"events_lost": 1, "a": 2}, {}, {"events_lost": 3}) == {"events_lost": 4, "a": 2}


def test_an_engine_without_verdicts_has_no_reader() -> None:
    running = engines.first_that_runs(engines.Engine.MEMORY, Machine().make)
    assert running.open_source(pytest.fail) is None
    assert running.datapath.apply(desired.DesiredState()).generation == 0


def test_verdicts_that_cannot_be_heard_are_told_of_and_keep_nothing_from_being_enforced() -> None:
    running = engines.first_that_runs(engines.Engine.MEMORY, Machine().make)
    heard = engines.Source(reader=Silent(), counters=lambda: {"events_lost": 3})

    def taken() -> engines.Source:
        raise errors.DatapathError("the group is taken")

    told: list[str] = []
    partly = dataclasses.replace(running, sources=(taken, lambda: heard))
    assert partly.open_source(told.append) is heard
    assert told == ["a part of the verdicts is not told: the group is taken"]
    assert dataclasses.replace(running, sources=(taken,)).open_source(told.append) is None


class Silent:
    """A reader of nothing."""

    fd = -1

    def read(self) -> list[object]:
        return []

    def close(self) -> None:
        """Do nothing."""
