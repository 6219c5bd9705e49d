"""Enforcement by BPF on one node: the datapath contract over maps, programs and links.

    pins   <bpffs>/nodewall/<node>/v<ABI>/   maps by name, `programs/<fingerprint>/`, `links/`

The problem: an agent starts on a node where an earlier one, perhaps of another version, perhaps killed
in the middle of something, has left a policy in force. The rule: look at what is there and bring it
into line, step by step, each step leaving old or new in force: maps are adopted, programs are loaded
only when their fingerprint differs, the new are attached before the old go, and only then is anything
believed (`selftest`). Runs inside the node's network namespace.

Without the packet layer the maps are the same and hold the same, so that a node moves from one mode to the other by
adopting them; the packet programs that another mode left judge by them until `remove_packet_layer`.

It must not compile anything (`socket_loader` is another process) and must not keep the last policy from
being in force: nothing here deletes a row before the next generation counts.
"""

from __future__ import annotations

import contextlib
import functools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from agent import desired as desired_
from agent.datapath import base, bridges, plan, probe
from agent.datapath.bpf import (
    artifacts,
    conntrack,
    fqdn_maps,
    grace,
    ipvs,
    layout,
    leftovers,
    links,
    loaded,
    maps,
    names_filter,
    packet_loader,
    rest,
    selftest,
    socket_loader,
    syscalls,
    tc,
    veths,
)
from agent.datapath.bpf import learner as learner_
from agent.fqdn import history
from agent.model import endpoint, fqdn, net, verdict

MODE = "socket+nfbpf"
SOCKET_MODE = "socket"
SECOND_NS = 1_000_000_000
ROOT = "nodewall"
PACKET_PROGRAMS = tuple(hook.program for hook in links.HOOKS)
SOCKET_PROGRAMS = tuple(socket_loader.ATTACH_TYPES)
EVERY_LAYER = frozenset(verdict.Layer)
LIFETIMES = history.Lifetimes()


class BPFDatapath(base.Datapath):
    """Keeps `base.Datapath`. One caller; `open` comes before everything but `uninstall`."""

    def __init__(
        self,
        *,
        node: str,
        bpffs: pathlib.Path,
        cgroup_root: pathlib.Path | None,
        layers: frozenset[verdict.Layer] = EVERY_LAYER,
        verdict_rate: int = 0,
        lifetimes: history.Lifetimes = LIFETIMES,
        reject: fqdn.Reject = fqdn.Reject.REFUSED,
    ) -> None:
        """Enforce for `node` below the cgroup `cgroup_root`, with pins on `bpffs`; nothing is touched yet.

        `cgroup_root` may also be a directory below which cgroup v2 is mounted, or None: anywhere. `layers` always has
        SOCKET; without PACKET another datapath judges packets. Of events of one kind `verdict_rate` a second are told,
        once a burst of ten seconds' worth is spent; 0: all. `lifetimes` is how long what DNS said is good for, `reject`
        what a pod gets that asks for a name which it may not ask for.
        """
        assert verdict.Layer.SOCKET in layers  # noqa: S101 - a packet layer alone is no mode
        self._layers = layers
        # bpffs keeps dots for itself; no node name has an underscore (RFC 1123).
        self._home = bpffs / ROOT / node.replace(".", "_")
        self._bpffs = bpffs
        self._pins = self._home / f"v{layout.ABI}"
        self._cgroup_root = cgroup_root
        self._maps = maps.Maps(self._pins)
        self._links = links.Links(self._pins / "links")
        self._veths = veths.Veths(self._pins, self._links, lifetimes, reject, judges_packets=self._judges_packets)
        self._realized: plan.Tables | None = None
        self._left: rest.Rest | None = None
        """What `settle` has to do."""
        self._known = plan.Tables()
        """What the maps held when that was last known, for `usage`."""
        self._verdict_interval_ns = SECOND_NS // verdict_rate if verdict_rate else 0
        self._forgotten = 0
        """Events kept back whose number fell out of the map, as last seen."""
        self._alone = False
        """Whether what other versions of this datapath left is gone."""

    @property
    def _judges_packets(self) -> bool:
        return verdict.Layer.PACKET in self._layers

    def open(self) -> base.EngineReport:
        """Adopt or load, attach, prove. Raises NotSupported, ProgramRejected or DatapathError."""
        probe.require_bpffs(self._bpffs)
        cgroup_root = probe.cgroup_root(self._cgroup_root)
        if self._judges_packets:
            packet_loader.require_netfilter()
        for directory in (self._pins / "links", self._pins / "programs"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._maps.open()
        self._maps.store_verdict_interval(self._verdict_interval_ns)
        programs = self._load_programs()
        if self._judges_packets:
            conntrack.hold()
        self._attach(programs, cgroup_root)
        found = selftest.SelfTest(self._maps, programs, cgroup_root).run(self._layers)
        self._remove_other_builds(programs)
        self._realized = self._known = self._maps.tables()
        reasons = (*found.reasons, *self._veths.open(programs))
        if self._judges_packets:
            reasons += (*bridges.unfiltered(), *ipvs.unfiltered())
        return base.EngineReport(
            mode=MODE if self._judges_packets else SOCKET_MODE,
            reasons=reasons,
            proved=found.proved,
            unproved=found.unproved,
            learns_names=self._veths.learner is not None,
            filters_queries=self._veths.learner is not None,
        )

    def apply(self, desired: desired_.DesiredState) -> base.Applied:
        """Bring the maps into line up to the flip. Raises MapFull or ApplyFailed; the generation turns last or never.

        A packet that a program judged right before the flip may still be under way in any case, so nothing would be
        gained by waiting for the program.
        """
        begun = time.perf_counter()
        self.learn_names(desired)
        realized = self._realized or self._maps.tables()
        todo = plan.plan(realized, desired, unread=self._veths.unread(desired.endpoints.values()))
        self._realized = None  # what the maps hold is unknown until every step is made
        at_once = [step for step in todo.steps if step.name != plan.MEND]
        for step in at_once:
            self._write(step)
        self._left = rest.Rest(
            steps=todo.steps[len(at_once) :],
            grace=todo.flipped,
            result=todo.result,
            endpoints=frozenset(desired.endpoints),
            filters=bool(desired.filters),
        )
        self._known = todo.result
        self._remove_other_versions()
        if not todo.flipped:
            self.settle()
        return base.Applied(
            generation=todo.generation,
            written=todo.written,
            flipped=len(desired.endpoints) if todo.flipped else 0,
            seconds=time.perf_counter() - begun,
        )

    def settle(self) -> None:
        """Wait until no program reads the old generation, and remove it. Raises ApplyFailed."""
        left, self._left = self._left, None
        if left is None:
            return
        if left.grace:
            grace.wait()
        if self._veths.learner is not None:
            self._veths.learner.mend(left.endpoints)  # while what names were until now is still in filters
            self._veths.learner.use_filters(used=left.filters)
        for step in left.steps:
            self._make(step)
        self._realized = left.result

    def learn_names(self, desired: desired_.DesiredState) -> frozenset[int]:
        """Write whom answers are believed from, and the names of `desired` beside those that count."""
        self.settle()
        if self._veths.learner is None:
            return frozenset()
        self._veths.learner.trust(desired.resolvers)
        if desired.filters:
            self._veths.learner.use_filters(used=True)
        return self._veths.learner.stage(desired.names, live=self._maps.generation & 1)

    def replay(self, learned: fqdn.LearnedAddresses) -> int:
        """Learn these too."""
        return self._veths.learner.replay(learned) if self._veths.learner is not None else 0

    def known(self) -> fqdn.Known:
        """Read what is learned."""
        return self._veths.learner.known() if self._veths.learner is not None else fqdn.Known()

    def attach_links(self, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        """Check sources at the veth of each pod that hangs on a bridge, learn names at each; let go of those gone.

        Does nothing where `open` has reported that this kernel cannot, and without the packet layer checks no sources.
        Raises DatapathError.
        """
        self._veths.attach(sandboxes)

    def repair(self) -> Sequence[str]:
        """Have programs at veths back that others took away. Raises DatapathError."""
        return self._veths.repair()

    def tables(self) -> plan.Tables:
        """Read what the maps hold, once settled. Raises DatapathError."""
        self.settle()
        return self._maps.tables()

    def counters(self) -> Mapping[str, int]:
        """Return the datapath's counters by name; they only grow while the maps live.

        `events_forgotten` is worked out here: events that were kept back, not told of, and are not in the map any more.
        """
        before = self._maps.counters()
        if before["events_suppressed"] - before["events_repeated"] > self._forgotten:
            untold = self._maps.untold()
            told = self._maps.counters()["events_repeated"]  # after the map: what was told meanwhile is counted once
            self._forgotten = max(self._forgotten, before["events_suppressed"] - told - untold)
        return {
            **before,
            "events_forgotten": self._forgotten,
            **(self._veths.learner.counters() if self._veths.learner is not None else {}),
        }

    def usage(self) -> Mapping[str, base.Usage]:
        """Return how full each map is."""
        learner = self._veths.learner
        return {**layout.usage(self._known), **(learner.usage() if learner is not None else {})}

    def missing(self) -> Sequence[str]:
        """Return each map that has lost its pin, and each link, which has then let go of its hook."""
        names = (*SOCKET_PROGRAMS, *(PACKET_PROGRAMS if self._judges_packets else ()))
        linked = [self._pins / "links" / name for name in names]
        gone = [pin for pin in linked if not pin.exists() and not pin.with_name(pin.name + links.NEXT).exists()]
        learner = self._veths.learner
        shapes = (*maps.shapes(), *(fqdn_maps.shapes() if learner is not None else ()))
        pinned = dict.fromkeys(self._pins / shape.name for shape in shapes)
        if (asked := self.names_programs) is not None:
            pinned |= dict.fromkeys(asked / name for name in names_filter.PROGRAMS)
        gone += [pin for pin in pinned if not pin.exists()]
        return (*(f"the pin {pin} is gone" for pin in gone), *(learner.unattached if learner is not None else ()))

    def loaded(self) -> loaded.LoadedMaps:
        """Open the pins anew, beside whatever is written. Raises DatapathError."""
        return loaded.LoadedMaps(self._pins, self._layers, self.reads, self._veths.is_attached)

    @property
    def events_path(self) -> pathlib.Path:
        """The pinned ring buffer of verdicts, for `events.EventReader`."""
        return self._pins / "events"

    @property
    def answers_path(self) -> pathlib.Path:
        """The pinned ring buffer of DNS answers, for `fqdn_answers.AnswerReader`."""
        return self._pins / "fqdn_answers"

    @property
    def names_programs(self) -> pathlib.Path | None:
        """Where the programs of `names_filter` are pinned; None: without the packet layer nothing is learned here."""
        return self._program_directory() if self._veths.learner is not None and not self._judges_packets else None

    def reads(self, ifindex: int) -> bool:
        """Tell whether what is asked for behind a veth is read, as far as is known; any thread may ask."""
        return self._veths.reads(ifindex)

    def learned(self, endpoint: int, address: net.Address) -> Sequence[int]:
        """Return the classes of the names for which DNS gave an endpoint an address; any thread may ask.

        Raises DatapathError.
        """
        return learner_.learned(self._pins, endpoint, address)

    def close(self) -> None:
        """Let go of descriptors; enforcement stays."""
        self._maps.close()
        self._veths.close()
        self._realized = self._left = None

    def remove_packet_layer(self) -> bool:
        """Detach and unpin the packet programs of every version, and let conntrack go; tell whether there were any.

        For the mode that judges packets by other means, once those are in force; the socket layer and the maps stay,
        and the learner, if it runs here.
        """
        kept = frozenset(learner_.HOOKS if self._veths.learner is not None else ())
        left = list(leftovers.packet_pins(self._versions(), PACKET_PROGRAMS, kept))
        for pin in left:
            links.remove(pin)
        filters = tc.remove_filters(*(hook for hook in tc.HOOKS if hook not in kept))
        return conntrack.release() or filters or bool(left)

    @property
    def installed(self) -> bool:
        """Whether any version has left pins here."""
        return self._home.is_dir()

    def uninstall(self) -> None:
        """Remove links, filters, programs, maps, pins of every version, and the nftables table; safe to repeat."""
        self.close()
        tc.remove_filters(*tc.HOOKS)
        for version in self._versions():
            leftovers.remove_tree(version / "links")
            leftovers.remove_tree(version)
        for directory in (self._home, self._home.parent):
            with contextlib.suppress(OSError):  # other nodes' pins may be beside ours
                directory.rmdir()
        conntrack.release()

    def _program_directory(self) -> pathlib.Path:
        return self._pins / "programs" / artifacts.find().fingerprint()

    def _versions(self) -> list[pathlib.Path]:
        return sorted(self._home.iterdir()) if self._home.is_dir() else []

    def _load_programs(self) -> pathlib.Path:
        """Return the directory of this build's pinned programs; the objects of which some are missing are loaded."""
        directory = self._program_directory()
        directory.mkdir(mode=0o700, exist_ok=True)
        for names, load in self._objects(directory):
            if not all((directory / name).exists() for name in names):
                for name in names:
                    (directory / name).unlink(missing_ok=True)
                load()
        return directory

    def _objects(self, directory: pathlib.Path) -> Iterator[tuple[tuple[str, ...], Callable[[], object]]]:
        """Yield the programs of each object, and what loads them into `directory`."""
        found = artifacts.find()
        if self._judges_packets:
            for names, path, kind in (
                (PACKET_PROGRAMS, found.packet_object, packet_loader.ProgramType.NETFILTER),
                ((veths.SOURCE_CHECK,), found.tc_object, packet_loader.ProgramType.SCHED_CLS),
            ):
                load = functools.partial(packet_loader.load, path, kind=kind)
                yield names, functools.partial(load, map_pins=self._pins, program_pins=directory)
        yield SOCKET_PROGRAMS, functools.partial(socket_loader.load, map_pins=self._pins, program_pins=directory)

    def _attach(self, programs: pathlib.Path, cgroup_root: pathlib.Path) -> None:
        """Attach everything, the packet layer first: it is the one that holds alone."""
        if self._judges_packets:
            self._attach_packet_layer(programs)
        for name, attach_type in socket_loader.ATTACH_TYPES.items():
            with syscalls.owned(syscalls.open_pin(programs / name)) as program:
                self._links.attach_cgroup(name, program, cgroup_root, attach_type)

    def _attach_packet_layer(self, programs: pathlib.Path) -> None:
        for hook in links.HOOKS:
            with syscalls.owned(syscalls.open_pin(programs / hook.program)) as program:
                self._links.attach_netfilter(hook, program)

    @staticmethod
    def _remove_other_builds(programs: pathlib.Path) -> None:
        """Unpin other builds' programs, now that ours are attached; their links went with the replacement."""
        for directory in programs.parent.iterdir():
            if directory != programs:
                leftovers.remove_tree(directory)

    def _remove_other_versions(self) -> None:
        """Remove what versions with other maps left, now that ours hold a policy."""
        if self._alone:
            return
        for version in self._versions():
            if version != self._pins:
                leftovers.remove_tree(version)
        if self._judges_packets:
            names_filter.remove(self._program_directory())  # of an engine before this one
        self._alone = True

    def _make(self, step: plan.Step) -> None:
        self._write(step)
        if step.grace:
            grace.wait()

    def _write(self, step: plan.Step) -> None:
        for table, content in step.upserts.items():
            self._maps.upsert(table, content)
        for table, keys in step.deletes.items():
            self._maps.delete(table, keys)
        if step.drop_silently is not None:
            self._maps.store_drop_silently(drop_silently=step.drop_silently)
        if step.flip_to is not None:
            self._maps.store_generation(step.flip_to)
