"""However long a file takes, the event loop goes on; and whoever stops meanwhile closes nothing under the reader."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import threading

import pytest

from agent.sources import inotify, manifests, tree

TIMEOUT_S = 20.0
PAUSE_S = 0.02


@pytest.fixture
def source(tmp_path: pathlib.Path) -> manifests.ManifestSource:
    (tmp_path / "manifests").mkdir()
    return manifests.ManifestSource(directory=tmp_path / "manifests", state_directory=tmp_path / "state")


def test_the_loop_runs_while_a_file_is_read(source: manifests.ManifestSource, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is at an end only when the loop has run."""
    reading, ran = threading.Event(), threading.Event()
    contents = tree.contents

    def slow(*arguments: object) -> object:
        reading.set()
        assert ran.wait(TIMEOUT_S), "the event loop waits for the file"
        return contents(*arguments)  # type: ignore[arg-type]  # as it was called

    monkeypatch.setattr(tree, "contents", slow)

    async def other() -> None:
        assert await asyncio.to_thread(reading.wait, TIMEOUT_S)
        ran.set()

    async def watch() -> None:
        async with asyncio.TaskGroup() as group, contextlib.aclosing(source.watch()) as updates:
            group.create_task(other())
            await anext(updates)

    asyncio.run(watch())


def test_who_stops_while_a_file_is_read_leaves_the_watches_open_until_it_is(
    source: manifests.ManifestSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A descriptor that is closed meanwhile is somebody else's next."""
    reading, end, order = threading.Event(), threading.Event(), list[str]()
    contents, close = tree.contents, inotify.Inotify.close

    def slow(*arguments: object) -> object:
        reading.set()
        end.wait(TIMEOUT_S)
        order.append("read")
        return contents(*arguments)  # type: ignore[arg-type]  # as it was called

    def closed(watches: inotify.Inotify) -> None:
        order.append("closed")
        close(watches)

    monkeypatch.setattr(tree, "contents", slow)
    monkeypatch.setattr(inotify.Inotify, "close", closed)

    async def watch() -> None:
        async with contextlib.aclosing(source.watch()) as updates:
            await anext(updates)

    async def stop() -> None:
        task = asyncio.create_task(watch())
        assert await asyncio.to_thread(reading.wait, TIMEOUT_S)
        task.cancel()
        await asyncio.sleep(PAUSE_S)
        end.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(stop())
    assert order == ["read", "closed"]
