"""Learns names where BPF cannot: holds DNS answers back until the sets have what they say.

The problem: an address must be allowed before the pod hears of it. The rule: a thread reads the queue that the rules of
`names_rules` send DNS packets to, adds what an answer teaches to the sets of the endpoint (`names_sets`), and only then
lets the packet go; one by one, so that a question is known before its answer. Whatever goes wrong, the packet goes on,
and nothing is learned: DNS never depends on us. Where the thread dies the queue dies with it, and packets pass by.

Every class of every answer is remembered (`names_book`), sets are there for those pairs of endpoint and class alone
that some rule names; `stage` makes them, filled, before the rules, `mend` destroys others after the rules are gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence

from agent import desired as desired_
from agent import errors
from agent.datapath.iptables import names_book, names_pairs, names_queue, names_reader, names_ring, names_sets
from agent.fqdn import classes as classes_
from agent.fqdn import history
from agent.model import fqdn, net

PREFIX = "dns_"
AT_ONCE = 100
"""Entries that are written while the thread waits: some milliseconds' worth."""
LOOK_MS = 1000
SETS_MAX = 60_000
"""Fewer than a network namespace can have."""

Clock = Callable[[], int]
"""Returns CLOCK_BOOTTIME in ns."""


class Learner:
    """One queue, its thread, and the sets; `open` comes first. One caller, but for `known`, `classes`, `counters`."""

    def __init__(self, lifetimes: history.Lifetimes, boot_ns: Clock) -> None:
        """Touch nothing yet."""
        self._lifetimes = lifetimes
        self._boot_ns = boot_ns
        self._reader = names_reader.Reader()
        self._book = names_book.Book()
        self._lock = threading.Lock()
        """Of book and sets, which the caller and the thread write."""
        self._pairs: frozenset[names_pairs.Pair] = frozenset()
        self._sets: names_sets.NameSets | None = None
        self._queue: names_queue.Queue | None = None
        self._thread: threading.Thread | None = None
        self._wake_fd = -1
        self._live, self._staged = classes_.Classes(), classes_.Classes()
        self._counted = {"not_learned": 0, "died": 0}
        self.ring = names_ring.Ring()

    def open(self, number: int = names_queue.QUEUE) -> None:
        """Take over what is learned, and begin to hold packets. Raises NotSupported, DatapathError."""
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self._sets = names_sets.NameSets()
            now_ns = self._boot_ns()
            found = self._sets.read(now_ns)
            self._pairs = found.pairs
            self._book.learn(_entries(found.learned), now_ns)
            self._queue = names_queue.Queue(number)
            self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            self._thread = threading.Thread(target=self._run, name="names", daemon=True)
            self._thread.start()
            undo.pop_all()

    def close(self) -> None:
        """Hold nothing any more; what is learned stays. Safe to repeat."""
        if self._thread is not None and self._thread.is_alive():
            os.eventfd_write(self._wake_fd, 1)
            self._thread.join()
        self._thread = None
        if self._queue is not None:
            self._queue.close()
        if self._sets is not None:
            self._sets.close()
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
        self._queue, self._sets, self._wake_fd = None, None, -1

    def stage(self, state: desired_.DesiredState) -> frozenset[int]:
        """Learn for the names of `state`, too; return the classes of which some name has taught nothing yet.

        Afterwards every set is there that its rules name. Raises MapFull, ApplyFailed.
        """
        same = state.names == self._staged
        self._staged = state.names
        self._reader.names = names_reader.Names(
            endpoints={address: one.id for one in state.endpoints.values() for address in one.addresses},
            resolvers=state.resolvers,
            classes=(self._live,) if state.names == self._live else (self._live, state.names),
            lifetimes=self._lifetimes,
        )
        self._make(names_pairs.pairs_of(state) - self._pairs)
        return frozenset() if same else frozenset(state.names.contents)

    def mend(self, state: desired_.DesiredState) -> None:
        """Learn for the names of `state` alone, now that its rules count; destroy what they do not name."""
        self._live = state.names
        names = self._reader.names
        self._reader.names = names_reader.Names(
            endpoints=names.endpoints, resolvers=names.resolvers, classes=(self._live,), lifetimes=self._lifetimes
        )
        with self._lock:
            useless = self._pairs - names_pairs.pairs_of(state)
            self._pairs -= useless
            self._pairs |= self._opened().destroy(useless)
            self._book.keep_only(state.endpoints)

    def replay(self, learned: fqdn.LearnedAddresses) -> int:
        """Learn these as if DNS had just told them; everything finds room. Raises ApplyFailed."""
        entries = list(_entries(learned))
        for begin in range(0, len(entries), AT_ONCE):
            self._learn(entries[begin : begin + AT_ONCE])
        return 0

    def known(self) -> fqdn.Known:
        """Return what is learned, expired or not; of any of it a connection may have been opened."""
        addresses: dict[fqdn.Place, tuple[fqdn.Learned, ...]] = {}
        for endpoint in self._book.endpoints():
            with self._lock:  # anew for each, for a packet may be waiting
                addresses.update(self._book.known(endpoint))
        return fqdn.Known(addresses=addresses, used=frozenset(addresses))

    def classes(self, endpoint: int, address: net.Address) -> Mapping[int, int]:
        """Return the classes by which an endpoint learned an address, until when; any thread may ask."""
        with self._lock:
            return self._book.classes(endpoint, address)

    def classes_of(self, endpoint: int, address: net.Address) -> Sequence[int]:
        """Return those of them that have not expired, as verdicts are explained by; any thread may ask."""
        now_ns = self._boot_ns()
        return [number for number, expires_ns in self.classes(endpoint, address).items() if expires_ns > now_ns]

    def counters(self) -> Mapping[str, int]:
        """Return what was read, learned and lost, each name with PREFIX; any thread may ask."""
        counted = self._reader.counters() | self._counted
        counted |= {"evicted": self._book.evicted, "class_evicted": self._book.class_evicted}
        counted |= {"answers_lost": self.ring.lost, "overruns": self._queue.overruns if self._queue else 0}
        return {f"{PREFIX}{name}": count for name, count in counted.items()}

    @property
    def alive(self) -> bool:
        """Whether packets are held and read."""
        return self._thread is not None and self._thread.is_alive()

    def _make(self, new: frozenset[names_pairs.Pair]) -> None:
        """Make sets, and fill them with what is known."""
        if 2 * len(self._pairs | new) > SETS_MAX:
            raise errors.MapFull(table="sets of names", rows=2 * len(self._pairs | new), capacity=SETS_MAX)
        ordered = sorted(new, key=lambda pair: (pair.endpoint, pair.class_number, pair.family.value))
        for begin in range(0, len(ordered), AT_ONCE):
            some = ordered[begin : begin + AT_ONCE]
            with self._lock:
                self._opened().create(some)
                self._pairs |= frozenset(some)
                entries = [
                    entry
                    for pair in some
                    for entry in self._book.of(pair.endpoint, pair.class_number)
                    if net.family_of(entry.address) is pair.family
                ]
                self._opened().add(entries, self._boot_ns())

    def _learn(self, entries: Iterable[names_book.Entry]) -> None:
        """Note entries, and have the sets say so. Raises ApplyFailed."""
        now_ns = self._boot_ns()
        with self._lock:
            change = self._book.learn(entries, now_ns)
            self._opened().remove(self._with_sets(change.removed))
            self._opened().add(self._with_sets(change.added), now_ns)

    def _with_sets(self, entries: Iterable[names_book.Entry]) -> list[names_book.Entry]:
        """Return the entries that have a set."""
        return [entry for entry in entries if names_pairs.pair_for(entry) in self._pairs]

    def _run(self) -> None:
        """Read until told to stop; an error that is nobody's fault ends the queue, and packets pass by it."""
        queue = self._queue
        assert queue is not None  # noqa: S101 - `open` has made it
        poll = select.poll()
        for fd in (queue.fd, self._wake_fd):
            poll.register(fd, select.POLLIN)
        try:
            while True:
                while (held := queue.read()) is not None:
                    self._take(queue, held)
                if self._wake_fd in {fd for fd, _ in poll.poll(LOOK_MS)}:
                    return
        except errors.DatapathError:
            self._counted["died"] += 1
        finally:
            queue.close()

    def _take(self, queue: names_queue.Queue, several: Sequence[names_queue.Held]) -> None:
        for held in several:
            try:
                if held.family is not None:
                    reading = self._reader.read(held.family, held.payload, self._boot_ns())
                    if reading.entries:
                        self._learn(reading.entries)
                    self.ring.put(reading.told)
            except Exception:  # noqa: BLE001 - a fault of ours must not end what all other pods learn by
                self._counted["not_learned"] += 1
            finally:
                queue.let_go(held.number)

    def _opened(self) -> names_sets.NameSets:
        if self._sets is None:
            raise errors.DatapathError("the learner of names is not open")
        return self._sets


def _entries(learned: fqdn.LearnedAddresses) -> Iterable[names_book.Entry]:
    return (
        names_book.Entry(endpoint, one.class_number, address, one.expires_ns)
        for (endpoint, address), several in learned.items()
        for one in several
    )
