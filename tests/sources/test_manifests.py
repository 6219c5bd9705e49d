"""Manifests in files: what is read, what stays in force, and how soon changes show."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pathlib
from collections.abc import AsyncIterator, Callable

import pytest

from agent import errors
from agent.sources import manifests, tree

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: x}}
spec: {{podSelector: {{}}}}
"""
BROKEN = "a: [\n"
TIMEOUT_S = 10.0


def _policy(name: str) -> str:
    return POLICY.format(name=name)


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    found = tmp_path / "manifests"
    found.mkdir()
    return found


@pytest.fixture
def source(directory: pathlib.Path, tmp_path: pathlib.Path) -> manifests.ManifestSource:
    return manifests.ManifestSource(directory=directory, state_directory=tmp_path / "state")


def _names(update: manifests.Update) -> set[str]:
    return {ref.name for ref in update.snapshot.policies}


def test_files_and_directories_are_loaded_offline(directory: pathlib.Path) -> None:
    (directory / "a.yaml").write_text(f"{_policy('a')}---\n{_policy('b')}")
    (directory / "sub").mkdir()
    (directory / "sub" / "c.yml").write_text(_policy("c"))
    (directory / "d.json").write_text('{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}')
    (directory / "README.md").write_text(BROKEN)
    (directory / ".e.yaml").write_text(BROKEN)
    found = manifests.load([directory, directory / "a.yaml"])
    assert {ref.name for ref in found.policies} == {"a", "b", "c"}
    assert list(found.nodes) == ["n"]
    assert found.problems == ()


def test_offline_a_file_that_is_not_yaml_is_an_error_with_file_and_line(directory: pathlib.Path) -> None:
    (directory / "a.yaml").write_text(f"x: 1\n{BROKEN}")
    with pytest.raises(errors.InvalidResource, match=r"a\.yaml:3: "):
        manifests.load([directory])


def test_offline_a_path_that_is_not_there_is_an_error(directory: pathlib.Path) -> None:
    with pytest.raises(errors.InvalidInput):
        manifests.load([directory / "none.yaml"])
    (directory / "dangling.yaml").symlink_to("nowhere")
    with pytest.raises(errors.InvalidResource, match="leads nowhere"):
        manifests.load([directory])


def test_a_document_without_a_name_is_named_by_file_and_line(directory: pathlib.Path) -> None:
    (directory / "a.yaml").write_text(f"{_policy('a')}---\nkind: 1\n")
    (problem,) = manifests.load([directory]).problems
    assert problem.ref.name == f"{directory}/a.yaml:6"


def test_a_key_given_twice_never_widens_a50(directory: pathlib.Path) -> None:
    text = _policy("a").replace("podSelector: {}", "podSelector: {}, policyTypes: [Egress], policyTypes: [Ingress]")
    (directory / "a.yaml").write_text(text)
    found = manifests.load([directory])
    (policy,) = found.policies.values()
    assert len(policy.directions) == 2
    assert [problem.path for problem in found.problems] == ["spec.policyTypes"]


def test_the_digest_is_over_paths_and_bytes(directory: pathlib.Path) -> None:
    (directory / "b").mkdir()
    (directory / "b" / "1.yaml").write_bytes(b"two")
    (directory / "a.yaml").write_bytes(b"one")
    (directory / "notes.txt").write_bytes(b"x")
    assert manifests.digest(directory) == hashlib.sha256(b"a.yaml\0one" + b"b/1.yaml\0two").hexdigest()


def test_an_update_carries_the_digest_of_what_was_read(
    directory: pathlib.Path, source: manifests.ManifestSource
) -> None:
    (directory / "a.yaml").write_text(_policy("a"))
    (directory / "b.yaml").write_text(BROKEN)
    assert source.read().digest == manifests.digest(directory)


def test_the_last_good_content_of_a_broken_file_stays_in_force(
    directory: pathlib.Path, source: manifests.ManifestSource
) -> None:
    (directory / "a.yaml").write_text(_policy("a"))
    (directory / "b.yaml").write_text(_policy("b"))
    assert _names(source.read()) == {"a", "b"}
    (directory / "a.yaml").write_text(BROKEN)
    (directory / "b.yaml").write_text(_policy("c"))
    update = source.read()
    assert _names(update) == {"a", "c"}
    (problem,) = update.snapshot.problems
    assert problem.reason.startswith("a.yaml:2: is not YAML")
    assert problem.reason.endswith("the last good content of the file stays in force")
    (directory / "a.yaml").write_text(_policy("d"))
    update = source.read()
    assert (_names(update), update.snapshot.problems) == ({"c", "d"}, ())


def test_the_last_good_content_survives_a_restart(directory: pathlib.Path, tmp_path: pathlib.Path) -> None:
    def start() -> manifests.ManifestSource:
        return manifests.ManifestSource(directory=directory, state_directory=tmp_path / "state")

    (directory / "a.yaml").write_text(_policy("a"))
    start().read()
    (directory / "a.yaml").write_text(BROKEN)
    update = start().read()
    assert _names(update) == {"a"}
    assert "stays in force" in update.snapshot.problems[0].reason
    assert (tmp_path / "state" / "manifests").stat().st_mode & 0o077 == 0


def test_a_file_that_never_was_good_puts_nothing_in_force_and_says_so(
    directory: pathlib.Path, source: manifests.ManifestSource
) -> None:
    (directory / "a.yaml").write_text(BROKEN)
    update = source.read()
    assert _names(update) == set()
    assert update.snapshot.problems[0].reason.endswith("nothing of it is in force")


def test_deleting_a_file_removes_its_objects_and_its_copy(
    directory: pathlib.Path, source: manifests.ManifestSource, tmp_path: pathlib.Path
) -> None:
    (directory / "a.yaml").write_text(_policy("a"))
    source.read()
    (directory / "a.yaml").unlink()
    assert _names(source.read()) == set()
    assert list((tmp_path / "state" / "manifests").iterdir()) == []
    (directory / "a.yaml").write_text(BROKEN)
    assert _names(source.read()) == set()


def test_a_state_directory_that_cannot_be_written_does_not_stop_enforcement(
    directory: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "state").write_text("a file in the way")
    (directory / "a.yaml").write_text(_policy("a"))
    update = manifests.ManifestSource(directory=directory, state_directory=tmp_path / "state").read()
    assert _names(update) == {"a"}
    assert "no copy can be kept" in update.snapshot.problems[0].reason


def test_a_directory_that_goes_away_leaves_its_content_in_force(
    directory: pathlib.Path, source: manifests.ManifestSource
) -> None:
    (directory / "a.yaml").write_text(_policy("a"))
    digest = source.read().digest
    directory.rename(directory.with_name("elsewhere"))
    update = source.read()
    assert (_names(update), update.digest) == ({"a"}, digest)
    assert "cannot be read" in update.snapshot.problems[0].reason


def test_a_directory_that_never_was_there_is_an_error(tmp_path: pathlib.Path) -> None:
    source = manifests.ManifestSource(directory=tmp_path / "none", state_directory=tmp_path / "state")
    with pytest.raises(errors.InvalidInput):
        source.read()


def test_large_files_and_pipes_are_refused_unread(directory: pathlib.Path, source: manifests.ManifestSource) -> None:
    with (directory / "large.yaml").open("wb") as file:
        file.truncate(tree.SIZE_MAX + 1)
    os.mkfifo(directory / "pipe.yaml")
    reasons = [problem.reason for problem in source.read().snapshot.problems]
    assert [reason.split(";")[0] for reason in reasons] == [
        f"large.yaml:1: is larger than {tree.SIZE_MAX} bytes",
        "pipe.yaml:1: is no regular file",
    ]


def test_loops_of_links_end(directory: pathlib.Path, source: manifests.ManifestSource) -> None:
    (directory / "a.yaml").write_text(_policy("a"))
    (directory / "loop").symlink_to(".")
    (directory / "self.yaml").symlink_to("self.yaml")
    assert _names(source.read()) == {"a"}


Change = Callable[[pathlib.Path], object]


async def _next(updates: AsyncIterator[manifests.Update]) -> manifests.Update:
    async with asyncio.timeout(TIMEOUT_S):
        return await anext(updates)


def _watched(source: manifests.ManifestSource, directory: pathlib.Path, *changes: Change) -> list[manifests.Update]:
    """Watch; make each change after the update before it; return every update."""

    async def run() -> list[manifests.Update]:
        async with contextlib.aclosing(source.watch()) as updates:
            found = [await _next(updates)]
            for change in changes:
                change(directory)
                found.append(await _next(updates))
            return found

    return asyncio.run(run())


def _write(name: str, text: str) -> Change:
    return lambda directory: _written(directory / name, text)


def _written(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_what_is_there_shows_at_once_and_every_way_to_change_it_shows(
    directory: pathlib.Path, source: manifests.ManifestSource
) -> None:
    def rename_over(directory: pathlib.Path) -> None:
        (directory / ".a.yaml.swp").write_text(_policy("renamed"))
        (directory / ".a.yaml.swp").rename(directory / "a.yaml")

    updates = _watched(
        source,
        directory,
        _write("a.yaml", _policy("created")),
        _write("a.yaml", _policy("in-place")),
        rename_over,
        _write("new/deep/b.yaml", _policy("deep")),
        _write("new/deep/b.yaml", _policy("deeper")),
        lambda directory: (directory / "a.yaml").unlink(),
        lambda directory: (directory / "new").rename(directory.parent / "away"),
    )
    assert [_names(update) for update in updates] == [
        set(),
        {"created"},
        {"in-place"},
        {"renamed"},
        {"renamed", "deep"},
        {"renamed", "deeper"},
        {"deeper"},
        set(),
    ]
    times = [update.changed_unix_ns for update in updates]
    assert times == sorted(times)


def test_a_file_that_comes_whole_waits_for_no_writer(
    directory: pathlib.Path, source: manifests.ManifestSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "QUIET_S", 4 * TIMEOUT_S)
    monkeypatch.setattr(manifests, "SETTLE_LIMIT_S", 4 * TIMEOUT_S)

    def rename(name: str) -> Change:
        def change(directory: pathlib.Path) -> None:
            (directory / ".new").write_text(_policy(name))
            (directory / ".new").rename(directory / "a.yaml")

        return change

    updates = _watched(source, directory, rename("one"), rename("two"), lambda there: (there / "a.yaml").unlink())
    assert [_names(update) for update in updates] == [set(), {"one"}, {"two"}, set()]


def test_a_config_map_swap_shows(directory: pathlib.Path, source: manifests.ManifestSource) -> None:
    for name in ("one", "two"):
        (directory / f"..{name}").mkdir()
        (directory / f"..{name}" / "a.yaml").write_text(_policy(name))
    (directory / "..data").symlink_to("..one")
    (directory / "a.yaml").symlink_to("..data/a.yaml")

    def swap(directory: pathlib.Path) -> None:
        (directory / "..data_tmp").symlink_to("..two")
        (directory / "..data_tmp").rename(directory / "..data")

    assert [_names(update) for update in _watched(source, directory, swap)] == [{"one"}, {"two"}]


def test_a_linked_file_that_changes_where_it_is_shows(
    directory: pathlib.Path, source: manifests.ManifestSource, tmp_path: pathlib.Path
) -> None:
    _written(tmp_path / "elsewhere" / "real.yaml", _policy("one"))
    (directory / "a.yaml").symlink_to(tmp_path / "elsewhere" / "real.yaml")
    updates = _watched(source, directory, lambda _: _written(tmp_path / "elsewhere" / "real.yaml", _policy("two")))
    assert [_names(update) for update in updates] == [{"one"}, {"two"}]


def test_a_file_that_is_being_written_is_read_when_it_is_closed(
    directory: pathlib.Path, source: manifests.ManifestSource
) -> None:
    (directory / "a.yaml").write_text(_policy("a"))

    async def run() -> list[set[str]]:
        async with contextlib.aclosing(source.watch()) as updates:
            found = [_names(await _next(updates))]
            with (directory / "a.yaml").open("w") as file:
                waiting = asyncio.ensure_future(_next(updates))
                await asyncio.sleep(0.1)
                assert not waiting.done()
                file.write(_policy("b"))
            found.append(_names(await waiting))
            return found

    assert asyncio.run(run()) == [{"a"}, {"b"}]


def test_changes_while_the_reader_is_busy_are_one_update(
    directory: pathlib.Path, source: manifests.ManifestSource
) -> None:
    def many(directory: pathlib.Path) -> None:
        for number in range(50):
            (directory / f"{number}.yaml").write_text(_policy(f"p{number}"))

    assert [len(_names(update)) for update in _watched(source, directory, many)] == [0, 50]


def test_a_change_that_changes_nothing_is_no_update(directory: pathlib.Path, source: manifests.ManifestSource) -> None:
    (directory / "a.yaml").write_text(_policy("a"))

    async def run() -> None:
        async with contextlib.aclosing(source.watch()) as updates:
            await _next(updates)
            (directory / "a.yaml").write_text(_policy("a"))
            (directory / "notes.txt").write_text("x")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.15):
                    await anext(updates)

    asyncio.run(run())


def test_an_overflow_of_the_queue_is_read_again(directory: pathlib.Path, source: manifests.ManifestSource) -> None:
    limit = int(pathlib.Path("/proc/sys/fs/inotify/max_queued_events").read_text())

    def overflow(directory: pathlib.Path) -> None:
        for _ in range(limit // 4 + 1):
            (directory / "x").touch()
            (directory / "x").unlink()
        (directory / "a.yaml").write_text(_policy("a"))

    assert [_names(update) for update in _watched(source, directory, overflow)] == [set(), {"a"}]


def test_a_directory_that_comes_back_is_watched_again(
    directory: pathlib.Path, source: manifests.ManifestSource
) -> None:
    (directory / "a.yaml").write_text(_policy("a"))

    def go(directory: pathlib.Path) -> None:
        directory.rename(directory.with_name("elsewhere"))

    updates = _watched(source, directory, go, _write("b.yaml", _policy("b")), _write("c.yaml", _policy("c")))
    assert [_names(update) for update in updates] == [{"a"}, {"a"}, {"b"}, {"b", "c"}]


def test_watching_leaves_no_descriptor_behind(directory: pathlib.Path, source: manifests.ManifestSource) -> None:
    before = len(list(pathlib.Path("/proc/self/fd").iterdir()))
    _watched(source, directory)
    assert len(list(pathlib.Path("/proc/self/fd").iterdir())) == before


def test_an_emptied_file_is_believed_only_after_a_second(
    directory: pathlib.Path, source: manifests.ManifestSource
) -> None:
    (directory / "a.yaml").write_text(_policy("a"))

    async def run() -> set[str]:
        async with contextlib.aclosing(source.watch()) as updates:
            await _next(updates)
            waiting = asyncio.ensure_future(_next(updates))
            (directory / "a.yaml").write_text("")
            await asyncio.sleep(0.2)
            assert not waiting.done()
            return _names(await waiting)

    assert asyncio.run(run()) == set()
