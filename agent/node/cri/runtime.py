"""The thread that asks the container runtime; what it learns leaves it as one immutable value at a time.

It lists the sandboxes every second, and `EXPECTED_S` after somebody saw one come or go: containerd shows a sandbox when
its pause container runs. Between two lists it asks for one status after another. What it knows is whole each time, so
the queue it leaves that in holds one value, a newer one takes its place, and a reader who comes late misses nothing.
What to ask, and what follows from the answers, is `crosscheck`'s business.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import pathlib
import threading
from collections.abc import Callable, Iterator, Sequence

from agent import clock as clock_
from agent import errors
from agent.node import cni_cache, joining
from agent.node.cri import client, crosscheck

LIST_EVERY_S = 1.0
EXPECTED_S = 0.3
CLOSE_WAIT_S = 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What is known of the runtime, and whether it answers."""

    known: crosscheck.Known = dataclasses.field(default_factory=crosscheck.Known)
    error: str = ""
    """Why the last list failed; "" when it did not."""
    failures: int = 0
    """Questions without an answer, or with one that could not be read, since the start."""


class RuntimeWatch:
    """Keeps `sandboxes.Runtime`."""

    def __init__(self, socket: pathlib.Path, *, clock: clock_.Clock) -> None:
        """Take the runtime's socket; nothing is asked before `running`."""
        self._socket = socket
        self._clock = clock
        self._cached: tuple[cni_cache.Attachment, ...] = ()
        self._told: collections.deque[State] = collections.deque([State()], maxlen=1)
        self._woken = threading.Event()
        self._stopped = False
        self._expected_ns: int | None = None
        """When something is to be seen in a list, nanoseconds of the monotonic clock."""

    @property
    def state(self) -> State:
        """Return what is known now."""
        return self._told[-1]

    def view(self, cached: Sequence[cni_cache.Attachment]) -> joining.RuntimeView:
        """Take what the cache says now, and return what the runtime adds to it; in any thread."""
        self._cached = tuple(cached)
        return crosscheck.view(self.state.known, cached)

    def expect(self) -> None:
        """Take it that a sandbox comes or goes: list again a little later, once for all that come meanwhile."""
        if self._expected_ns is None:
            self._expected_ns = self._clock.monotonic_ns() + int(EXPECTED_S * 1e9)
            self._woken.set()

    @contextlib.contextmanager
    def running(self, changed: Callable[[], object]) -> Iterator[None]:
        """Ask inside the context; `changed` is called in the thread when `view` may have become another."""
        with client.Client(self._socket) as asked:
            thread = threading.Thread(target=self._run, args=(asked, changed), name="container runtime", daemon=True)
            thread.start()
            try:
                yield
            finally:
                self._stopped = True
                self._woken.set()
                asked.close()
                thread.join(CLOSE_WAIT_S)

    def _run(self, asked: client.Client, changed: Callable[[], object]) -> None:
        list_ns = 0
        while not self._stopped:
            before = self.state
            now_ns = self._clock.monotonic_ns()
            expected_ns = self._expected_ns
            due_ns = list_ns if expected_ns is None else min(list_ns, expected_ns)
            if now_ns >= due_ns:
                if expected_ns is not None and now_ns >= expected_ns:
                    self._expected_ns = None
                list_ns = now_ns + int(LIST_EVERY_S * 1e9)
                after = _listed(before, asked, self._cached)
            elif not before.error and (sandbox := crosscheck.question(before.known, self._cached)) is not None:
                after = _asked(before, asked, sandbox)
            else:
                self._woken.wait((due_ns - now_ns) / 1e9)
                self._woken.clear()
                continue
            self._told.append(after)
            if not self._stopped and _gist(after) != _gist(before):
                changed()


def _listed(state: State, asked: client.Client, cached: Sequence[cni_cache.Attachment]) -> State:
    try:
        answer = asked.list()
    except (errors.Unreachable, errors.InvalidAnswer) as error:
        return dataclasses.replace(state, error=str(error), failures=state.failures + 1)
    return dataclasses.replace(state, known=crosscheck.heard_list(state.known, answer, cached), error="")


def _asked(state: State, asked: client.Client, sandbox: str) -> State:
    try:
        status = asked.status(sandbox)
    except (errors.Unreachable, errors.InvalidAnswer) as error:
        known = crosscheck.heard_nothing(state.known, sandbox, str(error))
        return dataclasses.replace(state, known=known, failures=state.failures + 1)
    return dataclasses.replace(state, known=crosscheck.heard_status(state.known, sandbox, status))


def _gist(state: State) -> tuple[object, ...]:
    """Return what `view` follows from, and whether the runtime answers."""
    return state.known.listed, state.known.statuses, state.known.gone, state.known.failed, state.error
