"""A connection and a pause that follow a script: no thread, no time, no network."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from agent.sources.kubernetes import api, connection, deltas, reflector


def pod(name: str, version: int, **labels: str) -> dict[str, Any]:
    return {"metadata": {"namespace": "x", "name": name, "resourceVersion": str(version), "labels": labels}}


def page(*items: dict[str, Any], version: int, continue_: str = "") -> bytes:
    """Return a page of a list."""
    meta = {"resourceVersion": str(version)} | ({"continue": continue_} if continue_ else {})
    return json.dumps({"kind": "PodList", "metadata": meta, "items": items}).encode()


def event(type_: str, object_: dict[str, Any]) -> bytes:
    """Return a line of a watch."""
    return json.dumps({"type": type_, "object": object_}).encode()


def bookmark(version: int) -> bytes:
    return event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version)}})


def error(code: int, message: str = "") -> bytes:
    return event("ERROR", {"kind": "Status", "code": code, "reason": "Expired", "message": message})


class Clock:
    """Time that passes only when something takes it."""

    def __init__(self) -> None:
        """Start at 0."""
        self.now_ns = 0

    def unix_ns(self) -> int:
        return self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns

    def take(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)


class Pause:
    """Notes every wait; the end comes when the script is at its end."""

    def __init__(self, clock: Clock) -> None:
        """Start with no wait."""
        self._clock = clock
        self.waits: list[float] = []
        self.firm = False
        self.stopped = False

    def wait(self, seconds: float, *, firm: bool) -> None:
        self.firm = firm
        self.waits.append(round(seconds, 3))
        self._clock.take(seconds)


Answer = bytes | Exception
Watch = Exception | Sequence[bytes | Exception | float]
"""What a watch says: a line, what it breaks with, or seconds that pass in silence; or what it fails with at once."""


class Connection:
    """Answers each request by the next line of its script; asked beyond its end it stops the reflector."""

    def __init__(self, *, pages: Sequence[Answer], watches: Sequence[Watch], clock: Clock, pause: Pause) -> None:
        """Take the script."""
        self._pages, self._watches = list(pages), list(watches)
        self._clock, self._pause = clock, pause
        self.asked: list[str] = []
        self.deadline_ns = 0
        self.closed = False

    def page(self, *, limit: int, continue_: str) -> bytes:
        assert limit
        self.asked.append(f"list {continue_}".rstrip())
        if not self._pages:
            self._pause.stopped = True
            raise connection.Failed("the script is at its end")
        answer = self._pages.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @contextlib.contextmanager
    def watch(self, *, version: str) -> Generator[Iterator[bytes], None, None]:
        self.asked.append(f"watch {version}")
        if not self._watches:
            self._pause.stopped = True
            raise connection.Failed("the script is at its end")
        said = self._watches.pop(0)
        if isinstance(said, Exception):
            raise said
        yield self._lines(said)

    def _lines(self, said: Sequence[bytes | Exception | float]) -> Iterator[bytes]:
        for one in said:
            if isinstance(one, Exception):
                raise one
            if isinstance(one, bytes):
                yield one
            else:
                self._clock.take(one)

    def abort(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.closed = True


class Run:
    """What a reflector did with a script."""

    def __init__(
        self,
        *,
        pages: Sequence[Answer] = (),
        watches: Sequence[Watch] = (),
        resource: api.Resource = api.Resource.PODS,
    ) -> None:
        """Run it to the end of the script."""
        clock = Clock()
        pause = Pause(clock)
        self.connection = Connection(pages=pages, watches=watches, clock=clock, pause=pause)
        self.told: list[deltas.Delta] = []
        self.reflector = reflector.Reflector(
            resource,
            connection_=self.connection,
            put=self.told.append,
            pause=pause,
            clock=clock,
            chance=lambda: 0.5,
        )
        self.reflector.run()
        self.waits = pause.waits
        self.firm = pause.firm
        """Whether the last wait could not be cut short."""

    @property
    def asked(self) -> list[str]:
        """The requests, without the one at which the script ended."""
        return self.connection.asked[:-1]

    @property
    def lost(self) -> list[str]:
        return [one.reason for one in self.told if isinstance(one, deltas.Lost)]

    @property
    def changes(self) -> list[tuple[str, str]]:
        """What was told of pods: name, and its version or -."""
        changed = (one for one in self.told if isinstance(one, deltas.Changed))
        return [(one.key[1], one.entry.version if one.entry is not None else "-") for one in changed]
