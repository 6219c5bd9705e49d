"""Namespaces that a runtime binds, from the first event to the CNI result, with real inotify and real namespaces."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest

from agent.node import cni_cache, holds, joining, namespaces, netns, sandboxes
from agent.sources import inotify
from tests.node import test_cni_cache
from tests.node.cri import test_crosscheck
from tests.support import agents

NAMES = tuple(f"cni-01234567-89ab-cdef-0123-{index:012x}" for index in range(3))
OWN = pathlib.Path("/proc/self/ns/net")
MS_BIND, MNT_DETACH, CLONE_NEWNET = 4096, 2, 0x40000000


class Runtime:
    """Knows what it is told."""

    def __init__(self) -> None:
        """Know nothing."""
        self.says = joining.RuntimeView()
        self.expected = 0

    def view(self, cached: Sequence[cni_cache.Attachment]) -> joining.RuntimeView:
        del cached
        return self.says

    def expect(self) -> None:
        self.expected += 1


@dataclasses.dataclass
class Bound:
    """A directory in which a runtime binds network namespaces."""

    directory: pathlib.Path
    names: list[str] = dataclasses.field(default_factory=list)

    def bind(self, name: str) -> int:
        """Bind a new namespace; return its cookie."""
        (self.directory / name).touch()
        self.over(name)
        cookie = netns.cookie(self.directory / name)
        assert cookie
        return cookie

    def over(self, name: str) -> None:
        """Bind a new namespace over a file that is there."""
        libc = ctypes.CDLL(None, use_errno=True)
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            assert libc.unshare(CLONE_NEWNET) == 0
            target = os.fsencode(self.directory / name)
            assert libc.mount(b"/proc/thread-self/ns/net", target, None, MS_BIND, None) == 0
            self.names.append(name)
        finally:
            libc.setns(home, CLONE_NEWNET)
            os.close(home)

    def unbind(self, name: str) -> None:
        ctypes.CDLL(None).umount2(os.fsencode(self.directory / name), MNT_DETACH)
        (self.directory / name).unlink(missing_ok=True)


@pytest.fixture
def bound(tmp_path: pathlib.Path) -> Iterator[Bound]:
    for directory in ("netns", "cni"):
        (tmp_path / directory).mkdir()
    made = Bound(tmp_path / "netns")
    yield made
    for name in made.names:
        made.unbind(name)


@dataclasses.dataclass
class Watched:
    """A watch, and what may become of its clock and runtime."""

    watch: sandboxes.SandboxWatch
    readings: AsyncIterator[sandboxes.Reading]
    clock: agents.ManualClock
    runtime: Runtime
    results: pathlib.Path

    async def names(self) -> list[tuple[str, str, bool]]:
        """Return (namespace, pod, attached) of the next reading."""
        found = await anext(self.readings)
        return [(one.namespace, one.pod, one.attached) for one in found.sandboxes]

    def write(self, name: str, interface: str) -> pathlib.Path:
        """Write a CNI result of pod x/a."""
        inside = {"name": interface, "sandbox": f"/elsewhere/{name}"}
        netns_path = str(self.results.parent / "netns" / name)
        path = self.results / f"pods-{name}-{interface}"
        result = {"interfaces": [inside], "ips": [{"address": "10.9.0.2/24", "interface": 0}]}
        path.write_text(json.dumps(test_cni_cache.file(netns=netns_path, ifName=interface, result=result)))
        return path


@contextlib.asynccontextmanager
async def watching(directory: pathlib.Path) -> AsyncIterator[Watched]:
    manual, runtime = agents.ManualClock(), Runtime()
    results = directory.parent / "cni"
    with inotify.Inotify(concerns=lambda _name: True) as changes:
        watch = sandboxes.SandboxWatch(
            results, changes=changes, clock=manual, netns_dir=directory, runtime=runtime, dump_links=dict
        )
        async with asyncio.timeout(20):
            yield Watched(watch, watch.watch(), manual, runtime, results)


@pytest.mark.root
def test_a_namespace_is_held_from_its_first_event_on_and_until_it_is_explained(bound: Bound) -> None:
    """Rule A45."""

    async def scenario() -> None:
        async with watching(bound.directory) as watched:
            assert await watched.names() == []
            begun = time.monotonic()
            bound.bind(NAMES[0])
            assert await watched.names() == [("", NAMES[0], False)]
            print(f"known after {(time.monotonic() - begun) * 1e3:.1f} ms")
            loopback = watched.write(NAMES[0], "lo")
            assert await watched.names() == [("x", "a", False)]
            eth0 = watched.write(NAMES[0], "eth0")
            assert await watched.names() == [("x", "a", True)]
            eth0.unlink()
            loopback.unlink()
            while (told := await watched.names()) != [("x", "a", False)]:
                assert told
            bound.unbind(NAMES[0])
            assert await watched.names() == []
            assert watched.runtime.expected >= 4

    asyncio.run(scenario())


@pytest.mark.root
def test_a_file_that_becomes_a_namespace_without_any_event_is_found(bound: Bound) -> None:
    async def scenario() -> None:
        async with watching(bound.directory) as watched:
            assert await watched.names() == []
            waiting = asyncio.ensure_future(watched.names())
            (bound.directory / NAMES[0]).touch()
            await asyncio.sleep(0.1)
            assert not waiting.done()
            bound.over(NAMES[0])
            assert await waiting == [("", NAMES[0], False)]

    asyncio.run(scenario())


@pytest.mark.root
def test_the_limit_passes_without_any_event(bound: Bound) -> None:
    async def scenario() -> None:
        async with watching(bound.directory) as watched:
            assert await watched.names() == []
            bound.bind(NAMES[0])
            assert await watched.names() == [("", NAMES[0], False)]
            watched.clock.pass_s(holds.HOLD_LIMIT_S)
            watched.watch.kick()  # a clock that is moved by hand wakes nobody
            reading = await anext(watched.readings)
            assert reading.sandboxes == ()
            assert [problem.ref.name for problem in reading.problems] == [NAMES[0]]

    asyncio.run(scenario())


@pytest.mark.root
def test_names_that_no_runtime_makes_are_not_even_opened(bound: Bound, monkeypatch: pytest.MonkeyPatch) -> None:
    bound.bind("somebodys")
    bound.bind("netns-01234567-89ab-cdef-0123-456789abcdef")
    cookie = bound.bind(NAMES[0])
    (bound.directory / NAMES[1]).touch()
    opened: list[str] = []
    ask = netns.cookie

    def noting(path: pathlib.Path) -> int | None:
        opened.append(path.name)
        return ask(path)

    monkeypatch.setattr(netns, "cookie", noting)
    assert namespaces.look(bound.directory, {}) == {NAMES[0]: cookie, NAMES[1]: None}
    assert opened == [NAMES[0], NAMES[1]]
    assert namespaces.look(bound.directory / "none", {}) == {}


def test_a_namespace_that_was_looked_at_is_not_kept_alive() -> None:
    before = set(pathlib.Path("/proc/self/fd").iterdir())
    assert netns.cookie(OWN)
    assert set(pathlib.Path("/proc/self/fd").iterdir()) <= before


def test_a_directory_that_is_not_there_is_told_of_and_watched_when_it_comes(tmp_path: pathlib.Path) -> None:
    (tmp_path / "cni").mkdir()

    async def scenario() -> None:
        async with watching(tmp_path / "netns") as watched:
            assert (await anext(watched.readings)).missing == {tmp_path / "netns"}
            (tmp_path / "netns").mkdir()
            assert (await anext(watched.readings)).missing == frozenset()

    asyncio.run(scenario())


@pytest.mark.root
def test_what_the_runtime_says_counts_where_the_cache_says_nothing(bound: Bound) -> None:
    async def scenario() -> None:
        async with watching(bound.directory) as watched:
            assert await watched.names() == []
            bound.bind(NAMES[0])
            assert await watched.names() == [("", NAMES[0], False)]
            found = dataclasses.replace(test_crosscheck.CACHED, netns=bound.directory / NAMES[0])
            watched.runtime.says = joining.RuntimeView(attachments=(found,))
            watched.watch.kick()
            assert await watched.names() == [("x", "a", True)]

    asyncio.run(scenario())


@pytest.mark.root
def test_an_overflow_of_the_queue_is_one_more_reason_to_read_everything(bound: Bound) -> None:
    """IN_Q_OVERFLOW names no directory: what was lost is found by looking."""
    most = int(pathlib.Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    async def scenario() -> None:
        async with watching(bound.directory) as watched:
            assert await watched.names() == []
            filler = bound.directory / "filler"
            for _ in range(most // 2 + 2):  # made and removed, alternately: equal events would be merged
                filler.touch()
                filler.unlink()
            cookies = {bound.bind(name) for name in NAMES}
            while len(told := (await anext(watched.readings)).sandboxes) < len(NAMES):
                pass
            assert {one.netns_cookie for one in told} == cookies

    asyncio.run(scenario())
