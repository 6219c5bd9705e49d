"""Which engine enforces on this node: the best that proves itself.

    socket+nfbpf      BPF at connect() and at netfilter's hooks          Linux 6.4 and later
    socket+iptables   BPF at connect(), packets by iptables and ipset    Linux 5.10 and later
    iptables          packets by iptables and ipset                      any kernel, no BPF at all

The problem: what a kernel can do is known only by doing it; versions lie where distributions take features back or
switch them off. The rule: `auto` opens each in this order, and opening proves it; an engine that cannot is left for
the next one, with the reason in words. An engine that was asked for by name is not replaced by another: its error is
the agent's. Opening is step 1 of `migration`: nothing is wider or narrower for it, whichever engine it ends with.

This module and the daemon are the only ones that name datapaths, and nothing else knows which engine may have left
what behind (the predecessors below, and `uninstall`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from agent import clock, errors
from agent.datapath import base, bridges, layered, lookups, memory, merged, migration, privileges
from agent.fqdn import history
from agent.model import fqdn, net, verdict

if TYPE_CHECKING:
    from agent.datapath.bpf import datapath as bpf_
    from agent.datapath.iptables import datapath as iptables_

Tell: TypeAlias = Callable[[str], object]


class Engine(enum.Enum):
    """What enforces; the value is what `--engine` takes."""

    AUTO = "auto"
    NFBPF = "nfbpf"
    """BPF at connect() and at netfilter's hooks."""
    SOCKET_IPTABLES = "socket+iptables"
    """BPF at connect(), iptables for packets."""
    IPTABLES = "iptables"
    MEMORY = "memory"
    """Enforces nothing: for tests of everything else."""


BEST_FIRST = (Engine.NFBPF, Engine.SOCKET_IPTABLES, Engine.IPTABLES)


class Iptables(enum.Enum):
    """Which iptables; the value is what `--iptables` takes."""

    AUTO = "auto"
    """The one the node's kube-proxy uses."""
    LEGACY = "legacy"
    NFT = "nft"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where the engines of a node have their things, and how much they tell."""

    node: str
    bpffs: pathlib.Path
    cgroup_root: pathlib.Path | None
    """Where cgroup v2 is, or is mounted below; None: anywhere, if the machine has it."""
    verdict_rate: int = 0
    """Verdicts of one kind that are told in a second, once a burst is spent; 0: all."""
    lifetimes: history.Lifetimes = dataclasses.field(default_factory=history.Lifetimes)
    """How long what DNS says is good for."""
    reject: fqdn.Reject = fqdn.Reject.REFUSED
    """What a pod gets that asks for a name which it may not ask for."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where verdicts come from."""

    reader: merged.Reader[Any]
    counters: Callable[[], Mapping[str, int]] = dict
    """What it counts, by the names a datapath's counters have; any thread may ask."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An engine that is not open yet."""

    datapath: base.Datapath
    sources: tuple[Callable[[], Source], ...] = ()
    """What opens each of its sources of verdicts, once the datapath is open."""
    answers: Callable[[], base.Answers] | None = None
    """What opens the DNS answers that it learns from, likewise, and if it learns any names."""
    reasons: tuple[str, ...] = ()
    """What is to be said of it, besides what opening it says."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """An engine that has proved itself."""

    engine: Engine
    datapath: base.Datapath
    report: base.EngineReport
    sources: tuple[Callable[[], Source], ...]
    answers: Callable[[], base.Answers] | None = None

    def open_answers(self, tell: Tell) -> base.Answers | None:
        """Open the DNS answers that it learns from; None: it learns no names, or they cannot be read, which is told."""
        if self.answers is None or not self.report.learns_names:
            return None
        try:
            return self.answers()
        except (errors.DatapathError, OSError) as error:
            tell(f"what DNS answered is learned but not remembered: {error}")
            return None

    def open_source(self, tell: Tell) -> Source | None:
        """Open its verdicts, all as one source; None: it has none.

        One that cannot be opened, such as a log group that another process listens to, is told of and left out: what is
        enforced does not depend on who hears of it.
        """
        opened: list[Source] = []
        for open_one in self.sources:
            try:
                opened.append(open_one())
            except (errors.DatapathError, OSError) as error:
                tell(f"a part of the verdicts is not told: {error}")
        if len(opened) < 2:  # noqa: PLR2004 - one needs no merging
            return next(iter(opened), None)
        reader = merged.Merged([one.reader for one in opened])
        return Source(reader=reader, counters=lambda: added_up(*(one.counters() for one in opened)))

    def counters(self, source: Source | None) -> Mapping[str, int]:
        """Add up what the datapath counts and what its source of verdicts does; any thread may ask."""
        return added_up(self.datapath.counters(), source.counters() if source is not None else {})


def added_up(*counters: Mapping[str, int]) -> Mapping[str, int]:
    """Add up what several count."""
    names = dict.fromkeys(name for each in counters for name in each)
    return {name: sum(each.get(name, 0) for each in counters) for name in names}


def start(wanted: Engine, iptables: Iptables, home: Home, *, tell: Tell) -> Running:
    """Open the engine that is wanted; `tell` is given what its first apply removes of other engines.

    Raises DatapathError saying why it does not run here, or why none does.
    """
    return first_that_runs(wanted, lambda engine: _make(engine, iptables, home, tell))


def first_that_runs(wanted: Engine, make: Callable[[Engine], Made]) -> Running:
    """Return the engine that is wanted, or of all the best, opened. Raises as `start`."""
    refused: list[str] = []
    for engine in BEST_FIRST if wanted is Engine.AUTO else (wanted,):
        try:
            made, report = _opened(engine, make)
        except errors.DatapathError as error:
            if wanted is not Engine.AUTO:
                raise
            refused.append(f"{engine.value} does not run here: {' '.join(str(error).split())}")
            continue
        forced = (f"{engine.value} was asked for",) if wanted in {Engine.SOCKET_IPTABLES, Engine.IPTABLES} else ()
        reasons = (*forced, *refused, *made.reasons, *report.reasons)
        report = dataclasses.replace(report, reasons=reasons)
        return Running(engine=engine, datapath=made.datapath, report=report, sources=made.sources, answers=made.answers)
    raise errors.DatapathError(f"no engine runs here: {'; '.join(refused)}")


def _opened(engine: Engine, make: Callable[[Engine], Made]) -> tuple[Made, base.EngineReport]:
    """Make and open one; what fails is closed again. Raises DatapathError."""
    with contextlib.ExitStack() as undo:
        try:
            made = make(engine)
            undo.callback(made.datapath.close)
            report = made.datapath.open()
        except OSError as error:
            raise errors.DatapathError(f"opening the engine {engine.value}: {error}") from error
        undo.pop_all()
        return made, report


def _make(engine: Engine, iptables: Iptables, home: Home, tell: Tell) -> Made:
    """Make one, not open. Modules are imported only where they are wanted, for each costs time and memory."""
    match engine:
        case Engine.MEMORY:
            return Made(datapath=memory.MemoryDatapath())
        case Engine.NFBPF:
            return _nfbpf(home, tell)
        case Engine.SOCKET_IPTABLES | Engine.IPTABLES:
            return _iptables(engine, iptables, home, tell)
        case Engine.AUTO:
            raise AssertionError("auto is a choice among engines")


def _nfbpf(home: Home, tell: Tell) -> Made:
    from agent.datapath.bpf import datapath, events, fqdn_answers  # noqa: PLC0415 - see `_make`
    from agent.datapath.iptables import removal  # noqa: PLC0415 - likewise

    privileges.require("enforcing with BPF", privileges.BPF)
    bpf = datapath.BPFDatapath(
        node=home.node,
        bpffs=home.bpffs,
        cgroup_root=home.cgroup_root,
        verdict_rate=home.verdict_rate,
        lifetimes=home.lifetimes,
        reject=home.reject,
    )
    predecessor = migration.Predecessor("the iptables engine", remove=removal.everything)
    return Made(
        datapath=migration.MigratingDatapath(bpf, lambda _: (predecessor,), tell=tell),
        sources=(lambda: Source(reader=events.EventReader(bpf.events_path)),),
        answers=lambda: fqdn_answers.AnswerReader(bpf.answers_path),
    )


def _iptables(engine: Engine, iptables: Iptables, home: Home, tell: Tell) -> Made:
    from agent.datapath.bpf import datapath as bpf_  # noqa: PLC0415 - likewise
    from agent.datapath.bpf import events, fqdn_answers, ipvs  # noqa: PLC0415 - see `_make`
    from agent.datapath.iptables import datapath, names_learner, variant  # noqa: PLC0415 - likewise

    privileges.require("enforcing with iptables", privileges.IPTABLES)
    which = None if iptables is Iptables.AUTO else variant.Variant(iptables.value)
    layers = frozenset({verdict.Layer.SOCKET})
    socket = bpf_.BPFDatapath(
        node=home.node,
        bpffs=home.bpffs,
        cgroup_root=home.cgroup_root,
        layers=layers,
        verdict_rate=home.verdict_rate,
        lifetimes=home.lifetimes,
        reject=home.reject,
    )
    alone = engine is Engine.IPTABLES
    learned, reads = _known(None if alone else socket)
    learner = names_learner.Learner(home.lifetimes, clock.SystemClock().boot_ns) if alone else None
    packet = datapath.IptablesDatapath(variant=which, learned=learned, reads=reads, learner=learner)
    answers: Callable[[], base.Answers] | None = (lambda: learner.ring) if learner is not None else None
    sources: list[Callable[[], Source]] = [functools.partial(_logged, packet, home.verdict_rate)]
    if engine is Engine.IPTABLES:
        enforcing: base.Datapath = packet
        predecessor = migration.Predecessor("the BPF engine", remove=functools.partial(_remove_bpf, socket))
    else:
        privileges.require("the socket layer (BPF)", privileges.BPF)
        join = functools.partial(_join, socket, packet)
        enforcing = layered.LayeredDatapath(socket=socket, packet=packet, tell=packet.moments.tell, join=join)
        answers = lambda: fqdn_answers.AnswerReader(socket.answers_path)  # noqa: E731 - as sources are
        predecessor = migration.Predecessor("the packet layer of the BPF engine", remove=socket.remove_packet_layer)
        sources.append(lambda: Source(reader=events.EventReader(socket.events_path)))
    return Made(
        datapath=migration.MigratingDatapath(
            enforcing, lambda report: (predecessor, *_other_variants(report.variant)), tell=tell
        ),
        sources=tuple(sources),
        answers=answers,
        reasons=(*bridges.unfiltered(), *ipvs.unfiltered()),
    )


def _join(socket: bpf_.BPFDatapath, packet: iptables_.IptablesDatapath) -> None:
    """Have the rules of `packet` ask the programs of `socket`. Raises NotSupported, DatapathError."""
    programs = socket.names_programs
    if programs is None:
        raise errors.DatapathError("nothing is learned")
    packet.ask(programs)


def _known(socket: bpf_.BPFDatapath | None) -> tuple[lookups.Ask, lookups.Reads]:
    """Return what tells what is learned, and where queries are read; None: nothing is, and nothing restricts any."""
    if socket is None:
        return lookups.nothing_learned, lookups.every_veth
    return functools.partial(_learned, socket), socket.reads


def _learned(socket: bpf_.BPFDatapath, endpoint: int, address: net.Address) -> Sequence[int]:
    """Ask what is learned; where that cannot be read, a verdict goes without the name's rule."""
    try:
        return socket.learned(endpoint, address)
    except errors.DatapathError:
        return ()


def _logged(packet: iptables_.IptablesDatapath, verdict_rate: int) -> Source:
    from agent.datapath.iptables import nflog, prefix  # noqa: PLC0415 - see `_make`

    reader = nflog.NflogReader(prefix.GROUP, packet.moments, clock=clock.SystemClock(), verdict_rate=verdict_rate)
    return Source(reader=reader, counters=reader.counters)


def _other_variants(chosen: str) -> Iterator[migration.Predecessor]:
    from agent.datapath.iptables import removal, variant  # noqa: PLC0415 - see `_make`

    for other in variant.Variant:
        if other.value != chosen:
            yield migration.Predecessor(
                f"what iptables-{other.value} had",
                prepare=functools.partial(removal.backstop, other),
                remove=functools.partial(removal.rules, other),
            )


def _remove_bpf(bpf: bpf_.BPFDatapath) -> bool:
    was_there = bpf.installed
    bpf.uninstall()
    return was_there


def uninstall(engine: Engine, home: Home) -> None:
    """Remove what any engine has left on the node, whichever it was. Raises NotSupported, DatapathError."""
    if engine is Engine.MEMORY:
        return
    from agent.datapath.bpf import datapath  # noqa: PLC0415 - see `_make`
    from agent.datapath.iptables import removal  # noqa: PLC0415 - likewise

    bpf = datapath.BPFDatapath(node=home.node, bpffs=home.bpffs, cgroup_root=home.cgroup_root)
    privileges.require("removing what enforces", (*privileges.IPTABLES, *(privileges.BPF if bpf.installed else ())))
    with contextlib.ExitStack() as removals:
        removals.callback(bpf.uninstall)
        removals.callback(removal.everything)
