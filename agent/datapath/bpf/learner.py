"""The DNS learner of one node: its programs at every pod's veth, whom they believe, and for which names they learn.

The problem: what an answer opens must be learned from the moment a policy counts, whoever asked when, and go on while
the agent is away; and what policies do not let a pod ask for must not get past its veth. The rules:

 - programs are loaded over pinned maps and pinned with the build's others; where the kernel refuses them nothing is
   learned, and whoever opened it says so;
 - both hooks are at the veth of every pod, with or without a policy by name: history has to know what a pod was told
   before there was one (requirement F26);
 - names are written as `fqdn_plan` says: `stage` before the flip, `mend` after it, and what is learned in between
   counts for both;
 - rows of what was learned are never deleted but with their endpoint: the kernel may be renewing that very row, and
   the ring of places bounds them. What has expired is not looked at, and its place is taken in turn (requirement F21).

One caller, but for `known` and `counters`.
"""

from __future__ import annotations

import pathlib
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from agent import errors
from agent.datapath import base
from agent.datapath.bpf import dns_loader, fqdn_layout, fqdn_maps, fqdn_plan, grace, rows, syscalls, tc
from agent.fqdn import classes as classes_
from agent.fqdn import dfa, history
from agent.model import endpoint, fqdn, net

PREFIX = "dns_"
"""Of its counters' names, beside those of the programs that enforce."""
HOOKS: Mapping[tc.Hook, str] = {tc.DNS_QUERY: dns_loader.QUERY, tc.DNS_ANSWER: dns_loader.ANSWER}


class Learner:
    """Keeps what one node learns names by."""

    def __init__(self, pins: pathlib.Path, lifetimes: history.Lifetimes, reject: fqdn.Reject) -> None:
        """Use the pins below `pins`; nothing is touched yet."""
        self._pins = pins
        self._lifetimes = lifetimes
        self._reject = reject
        self._maps = fqdn_maps.FqdnMaps(pins)
        self._attachments: tc.Attachments | None = None
        self._programs = pathlib.Path()
        self._attached: dict[tuple[tc.Hook, int], tuple[str, int]] = {}
        """Pod and network namespace, by where their programs are: an interface's number can be another's later."""
        self._unattached: tuple[str, ...] = ()
        self._resolvers: frozenset[net.Address] | None = None
        self._names: fqdn_plan.Names | None = None
        """What the maps hold; None: unknown."""
        self._automata: dict[int, dfa.Dfa[int]] = {}
        """By where they begin, those that this agent wrote."""
        self._wanted: classes_.Classes | None = None
        self._staged_slot: int | None = None
        """The slot that was written last, if the other one differs."""
        self._unheard: frozenset[int] = frozenset()
        """Classes that are staged, and by which some name was not learned before."""
        self._filters_used: bool | None = None
        """As last written; None: not yet."""
        self._remembered: frozenset[int] | None = None
        """The endpoints that there were when others' addresses were last forgotten."""

    def open(self, programs: pathlib.Path) -> dns_loader.Loaded | None:
        """Open the maps and have the programs in `programs`; return how they were loaded, None: they were there.

        Raises NotSupported, ProgramRejected, DatapathError; then nothing is open.
        """
        self._maps.open()
        self._maps.store_ttl(min_ttl_s=self._lifetimes.min_ttl_s, grace_s=self._lifetimes.grace_s)
        self._maps.store_reject(self._reject)
        pins = [programs / name for name in dns_loader.PROGRAMS]
        if all(pin.exists() for pin in pins):
            return None
        for pin in pins:
            pin.unlink(missing_ok=True)
        try:
            return dns_loader.load(map_pins=self._pins, program_pins=programs)
        except errors.DatapathError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of every descriptor; learning goes on."""
        self._maps.close()
        self._names = self._wanted = self._resolvers = self._staged_slot = None
        self._filters_used = self._remembered = None
        self._automata.clear()

    def use(self, attachments: tc.Attachments, programs: pathlib.Path) -> None:
        """Attach these from now on, in this way; what an agent before this one attached gets this build's programs.

        Raises DatapathError.
        """
        self._attachments, self._programs = attachments, programs
        self._names = self._maps.names()
        for hook, name in HOOKS.items():
            with syscalls.owned(syscalls.open_pin(programs / name)) as program:
                for ifindex in attachments.attached(hook):
                    attachments.attach(hook, program, ifindex)

    def attach(self, sandboxes: Iterable[endpoint.Sandbox]) -> None:
        """Be at the veth of each pod, and let go of those that are gone.

        One that cannot be attached to is told of (`unattached`) and keeps no other from being; raises DatapathError
        where there is nothing to attach.
        """
        assert self._attachments is not None, "use() comes first"  # noqa: S101 - a programming error
        wanted = {one.veth_ifindex: one for one in sandboxes if one.veth_ifindex}
        failed: list[str] = []
        for hook, name in HOOKS.items():
            new = {
                ifindex: pod
                for ifindex, pod in wanted.items()
                if self._attached.get((hook, ifindex)) != (pod.uid, pod.netns_cookie)
            }
            if new:
                with syscalls.owned(syscalls.open_pin(self._programs / name)) as program:
                    failed += self._attach(hook, program, new)
            for ifindex in self._attachments.attached(hook) - wanted.keys():
                self._attachments.detach(hook, ifindex)
                self._attached.pop((hook, ifindex), None)
        self._unattached = tuple(failed)

    def _attach(self, hook: tc.Hook, program: int, pods: Mapping[int, endpoint.Sandbox]) -> Iterator[str]:
        """Attach to each; yield what is to be said of those where that is refused."""
        assert self._attachments is not None, "use() comes first"  # noqa: S101 - a programming error
        for ifindex, pod in pods.items():
            try:
                self._attachments.attach(hook, program, ifindex)
            except errors.DatapathError as error:
                yield f"no names are learned for pod {pod.namespace}/{pod.pod}: {error}"
            else:
                self._attached[hook, ifindex] = (pod.uid, pod.netns_cookie)

    @property
    def unattached(self) -> tuple[str, ...]:
        """Pods that nothing is learned for, one line each; any thread may ask."""
        return self._unattached

    def use_filters(self, *, used: bool) -> None:
        """Have filters looked for, which costs every packet of a pod: said before one counts, and when none does."""
        if used is not self._filters_used:
            self._maps.store_filters(used=used)
            self._filters_used = used

    @property
    def reading(self) -> frozenset[int]:
        """The veths at which what pods ask for is read, by their numbers; any thread may ask."""
        return frozenset(ifindex for hook, ifindex in tuple(self._attached) if hook == tc.DNS_QUERY)

    def trust(self, resolvers: frozenset[net.Address]) -> None:
        """Believe these resolvers and no other. Raises MapFull, ApplyFailed."""
        if resolvers == self._resolvers:
            return
        if len(resolvers) > fqdn_maps.RESOLVERS:
            raise errors.MapFull(table="fqdn_resolvers", rows=len(resolvers), capacity=fqdn_maps.RESOLVERS)
        self._maps.trust(resolvers)
        self._resolvers = resolvers

    def stage(self, wanted: classes_.Classes, *, live: int) -> frozenset[int]:
        """Have answers learned for `wanted` beside what counts in the slot `live`; may be repeated.

        Returns the classes of which some name has taught nothing yet. Raises MapFull with nothing changed, ApplyFailed.
        """
        if self._names is not None and self._staged_slot in {None, 1 - live} and wanted == self._wanted:
            return self._unheard
        have = self._names or self._maps.names()
        idle = 1 - live
        merged = fqdn_plan.staged(have.rows, wanted.rows, idle=idle)
        if len(merged) > fqdn_maps.NAMES:
            raise errors.MapFull(table="fqdn_names", rows=len(merged), capacity=fqdn_maps.NAMES)
        unheard = fqdn_plan.unheard(merged, idle=idle) | self._accepted_anew(wanted.automaton, have.starts[live])
        self._names = None  # unknown until all is written
        self._maps.count(wanted.contents)
        self._write(fqdn_plan.missing(have.rows, merged))
        start = self._stage_automaton(wanted.automaton, live_start=have.starts[live], idle=idle)
        starts = (have.starts[0], start) if idle else (start, have.starts[1])
        self._names, self._wanted, self._staged_slot = fqdn_plan.Names(rows=merged, starts=starts), wanted, idle
        self._unheard = unheard
        return self._unheard

    def mend(self, endpoints: Collection[int]) -> None:
        """Learn for what was staged alone, now that it counts and no program reads what was before; forget others.

        `endpoints` are all there are. Raises ApplyFailed.
        """
        staged, slot, wanted = self._names, self._staged_slot, self._wanted
        if staged is not None and slot is not None and wanted is not None:
            rest = fqdn_plan.at_rest(wanted.rows)
            self._names = None
            self._write(fqdn_plan.missing(staged.rows, rest))
            self._maps.delete_names([fqdn_layout.encode_key(key) for key in staged.rows.keys() - rest.keys()])
            start = staged.starts[slot]
            self._maps.store_automaton(1 - slot, start)
            self._maps.count_only(wanted.contents)
            self._names, self._staged_slot = fqdn_plan.Names(rows=rest, starts=(start, start)), None
        self._unheard = frozenset()
        if frozenset(endpoints) != self._remembered:
            self._maps.forget(*self._maps.endpoints().difference(endpoints))
            self._remembered = frozenset(endpoints)

    def replay(self, learned: fqdn.LearnedAddresses) -> int:
        """Learn these too, by the kernel's own program; return how many found no room. Raises ApplyFailed."""
        content = [
            fqdn_layout.Learned(endpoint=endpoint_, address=address, class_=one.class_number, expires_ns=one.expires_ns)
            for (endpoint_, address), several in learned.items()
            for one in several
        ]
        if not content:
            return 0
        try:
            with syscalls.owned(syscalls.open_pin(self._programs / dns_loader.REPLAY)) as program:
                return fqdn_maps.replay(program, content)
        except OSError as error:
            raise errors.ApplyFailed(f"replaying {len(content)} learned addresses: {error.strerror}") from error

    def known(self) -> fqdn.Known:
        """Read what is learned, by pins opened anew; any thread may ask. Raises DatapathError."""
        try:
            with syscalls.owned(syscalls.open_pin(self._pins / "fqdn_learned")) as descriptor:
                return known(list(rows.dump(descriptor)))
        except OSError as error:
            raise errors.DatapathError(f"reading what is learned in {self._pins}: {error.strerror}") from error

    def counters(self) -> Mapping[str, int]:
        """Return its counters, each name with PREFIX; any thread may ask."""
        return {f"{PREFIX}{name}": count for name, count in self._maps.counters().items()}

    def usage(self) -> Mapping[str, base.Usage]:
        """Return how full the trie is, as last written."""
        names = self._names
        return {"fqdn_names": base.Usage(len(names.rows), fqdn_maps.NAMES)} if names is not None else {}

    def _write(self, content: Mapping[bytes, fqdn_plan.Pair]) -> None:
        if content:
            self._maps.write_names(
                {fqdn_layout.encode_key(key): fqdn_layout.encode_pair(pair) for key, pair in content.items()}
            )

    def _accepted_anew(self, wanted: dfa.Dfa[int], live_start: int) -> frozenset[int]:
        """Return the classes that an automaton gives, if it is not the live one: any name may have another then."""
        live = self._automata.get(live_start)
        if live is not None and live.states == wanted.states:
            return frozenset()
        return frozenset(state.accept for state in wanted.states) - {classes_.NONE}

    def _stage_automaton(self, wanted: dfa.Dfa[int], *, live_start: int, idle: int) -> int:
        """Have an automaton count in the idle slot; return where it begins."""
        live = self._automata.get(live_start)
        if live is not None and live.states == wanted.states:
            start = live_start
        else:
            start = fqdn_plan.start_of(wanted, live=live_start)
            if start != fqdn_plan.NO_AUTOMATON:
                self._maps.store_automaton(idle, live_start)
                grace.wait()  # then nobody walks the other half any more
                self._automata.pop(start, None)
                self._maps.write_states(start - dfa.START, _states(fqdn_plan.shifted(wanted, start)))
            self._automata[start] = wanted
        self._maps.store_automaton(idle, start)
        return start


def learned(pins: pathlib.Path, endpoint: int, address: net.Address) -> tuple[int, ...]:
    """Return the classes that count for what an endpoint begins with an address now. Raises DatapathError."""
    key = fqdn_layout.encode_learned_key(endpoint, address)
    try:
        with syscalls.owned(syscalls.open_pin(pins / "fqdn_learned")) as descriptor:
            return live(key, rows.lookup(descriptor, key, fqdn_layout.LEARNED_VALUE.size))
    except OSError as error:
        raise errors.DatapathError(f"reading what is learned in {pins}: {error.strerror}") from error


def live(key: bytes, value: bytes | None) -> tuple[int, ...]:
    """Return the classes in a row of `fqdn_learned` that have not expired, ascending."""
    if value is None:
        return ()
    now_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return tuple(sorted(one.class_ for one in fqdn_layout.decode_learned(key, value) if one.expires_ns > now_ns))


def known(content: Sequence[tuple[bytes, bytes]]) -> fqdn.Known:
    """Read rows of `fqdn_learned`."""
    addresses: dict[fqdn.Place, tuple[fqdn.Learned, ...]] = {}
    used: set[fqdn.Place] = set()
    for key, value in content:
        several = list(fqdn_layout.decode_learned(key, value))
        if several:
            place = several[0].endpoint, several[0].address
            addresses[place] = tuple(fqdn.Learned(one.class_, one.expires_ns) for one in several)
            if several[0].used_ns:
                used.add(place)
    return fqdn.Known(addresses=addresses, used=frozenset(used))


def _states(states: Sequence[dfa.State[int]]) -> list[fqdn_layout.DfaState]:
    return [fqdn_layout.DfaState(following=state.next, class_=state.accept) for state in states]
