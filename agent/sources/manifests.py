"""Manifests in files: read once and offline, or watched while the agent runs.

A file that cannot be read as YAML, on one machine at one moment, must not take policies out of force. So,
while watching, the last good content of each file stays in force until the file can be read again or is
deleted, and a copy under the state directory carries it over a restart. Offline there is no last content,
and such a file is an error. Single objects that are wrong are `decode`'s business.

A large file takes seconds to parse. Watching, files are read in a thread, so that everybody else on the event loop goes
on meanwhile; one reading at a time, and nobody closes what it reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import pathlib
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from typing import IO, TypeVar

from agent import decode, errors, snapshot
from agent.model import resources
from agent.sources import documents, inotify, tree

Result = TypeVar("Result")

STDIN = pathlib.Path("-")
COPIES = "manifests"
"""The directory of the last good copies, in the agent's state directory."""
QUIET_S = 0.010
"""A change has settled after this long without another; it is part of the time a policy needs to hold."""
SETTLE_LIMIT_S = 0.100
"""Changes are read after this long even while more come."""
RETRY_S = 1.0
"""How often a directory that went away is looked for, and how long a writer is waited for."""
_FIRST_READS = 10
"""The first update waits for files that are being written, as nothing older can stand in; but not for ever."""
_BEING_WRITTEN = b"\0being written"
"""Stands in the digest for a content that was not taken, so that nobody finds it in force."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What the manifests say, and when they began to."""

    snapshot: snapshot.Snapshot
    digest: str
    """`digest` of the directory as it was read, files that cannot be read included."""
    changed_unix_ns: int
    """Wall clock, nanoseconds since 1970, of the first change that this update shows."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Good:
    """The last content of a file that could be read."""

    sha256: bytes
    decoded: tuple[decode.Decoded, ...]


def load(paths: Sequence[pathlib.Path], *, stdin: IO[bytes] | None = None) -> snapshot.Snapshot:
    """Read files and directories once; the path `-` is `stdin`, where that is given.

    Raises InvalidInput for a path that is not there, InvalidResource (file and line) for a file that is not YAML.
    """
    read = list(_files(paths, stdin))
    return _build(itertools.chain.from_iterable(_decoded(_bytes(content), name) for name, content in read), ())


def inspect(
    paths: Sequence[pathlib.Path], *, stdin: IO[bytes] | None = None
) -> tuple[snapshot.Snapshot, Mapping[str, errors.InvalidResource]]:
    """Read as `load` does, and go on where a file is not YAML: return what could be read, and what is wrong by file."""
    decoded: list[decode.Decoded] = []
    wrong: dict[str, errors.InvalidResource] = {}
    for name, content in _files(paths, stdin):
        try:
            decoded.extend(_decoded(_bytes(content), name))
        except errors.InvalidResource as error:
            wrong[name] = error
    return _build(decoded, ()), wrong


def _files(paths: Sequence[pathlib.Path], stdin: IO[bytes] | None) -> Iterator[tuple[str, pathlib.Path | IO[bytes]]]:
    """Yield every file with its name; raises InvalidInput for a path that is not there."""
    for path in paths:
        if path == STDIN and stdin is not None:
            yield str(path), stdin
        elif path.is_dir():
            yield from ((str(path / name), path / name) for name in tree.walk(path).files)
        elif path.exists():
            yield str(path), path
        else:
            raise errors.InvalidInput(field="path", value=str(path), remedy="name a manifest or a directory of them")


def _bytes(file: pathlib.Path | IO[bytes]) -> bytes:
    """Read what must be there; raises InvalidResource."""
    if isinstance(file, pathlib.Path):
        return _content(file)
    read = file.read(tree.SIZE_MAX + 1)
    if len(read) > tree.SIZE_MAX:
        raise errors.InvalidResource(f"{STDIN}:1: is larger than {tree.SIZE_MAX} bytes")
    return read


def digest(directory: pathlib.Path) -> str:
    """Return SHA-256, in hex, over the manifests in a directory; Update carries the same. Raises OSError."""
    return tree.digest(tree.contents(directory, tree.walk(directory)))


def _content(path: pathlib.Path) -> bytes:
    """Read a file that must be there."""
    try:
        return tree.content(path, str(path))
    except FileNotFoundError as error:
        raise errors.InvalidResource(f"{path}:1: is not there, or is a link that leads nowhere") from error


def _decoded(content: bytes, name: str) -> tuple[decode.Decoded, ...]:
    """Decode a file; raises InvalidResource. Documents without a name are named by file and line."""
    return tuple(
        _located(decoded, f"{name}:{document.line}")
        for document in documents.parse(content, name)
        for decoded in decode.decode_all(document.value)
    )


def _located(decoded: decode.Decoded, place: str) -> decode.Decoded:
    """Name the place in problems whose object has no name to be found by."""
    if decoded.resource is not None or not any(problem.ref.name == decode.UNNAMED for problem in decoded.problems):
        return decoded
    problems = (
        dataclasses.replace(problem, ref=dataclasses.replace(problem.ref, name=place)) for problem in decoded.problems
    )
    return decode.Decoded(None, tuple(problems))


def _build(decoded: Iterable[decode.Decoded], problems: Iterable[resources.Problem]) -> snapshot.Snapshot:
    """Put decoded objects together."""
    all_ = tuple(decoded)
    return snapshot.build(
        (one.resource for one in all_ if one.resource is not None),
        itertools.chain(problems, *(one.problems for one in all_)),
    )


class ManifestSource:
    """The manifests in one directory, as they change."""

    def __init__(self, *, directory: pathlib.Path, state_directory: pathlib.Path) -> None:
        """Read nothing yet; `state_directory` is the agent's own, copies go to `manifests/` in it."""
        self._directory = directory
        self._copies = state_directory / COPIES
        self._good: dict[str, _Good] = {}
        self._digest: str | None = None
        self._retry_s: float | None = None
        """When to read again even if nothing changes; None is never."""

    def read(self) -> Update:
        """Read the directory now; raises InvalidInput if it cannot be, and never could be before."""
        return self._read(time.time_ns(), None)

    async def watch(self) -> AsyncGenerator[Update, None]:
        """Yield what is there at once, then every change as soon as it settled.

        Changes that come while the caller is busy are one update. Close it (`contextlib.aclosing`) to give
        the watches back. Raises as `read` and `Inotify` do.
        """
        with inotify.Inotify(concerns=_is_manifest) as watches:
            changed_unix_ns = time.time_ns()
            last: Update | None = None
            while True:
                read = functools.partial(self._read_after, last, changed_unix_ns, watches)
                update, is_news = await _in_thread(read)
                for _ in range(_FIRST_READS if last is None else 0):
                    if self._retry_s is None:
                        break
                    await watches.settled(quiet_s=QUIET_S, limit_s=SETTLE_LIMIT_S)
                    update, is_news = await _in_thread(read)
                if is_news:
                    last = update
                    yield update
                await watches.changed(self._retry_s)
                changed_unix_ns = time.time_ns()
                await watches.settled(quiet_s=QUIET_S, limit_s=SETTLE_LIMIT_S)

    def _read_after(self, last: Update | None, changed_unix_ns: int, watches: inotify.Inotify) -> tuple[Update, bool]:
        """Read the directory, and tell whether it says anything that the last update did not."""
        update = self._read(changed_unix_ns, watches)
        if last is None or update.snapshot != last.snapshot:
            return update, True
        # A digest is news only once every file it is over has been taken.
        return update, update.digest != last.digest and self._retry_s is None

    def _read(self, changed_unix_ns: int, watches: inotify.Inotify | None) -> Update:
        """Read the directory, having its directories watched before each is listed."""
        problems: list[resources.Problem] = []
        try:
            contents = self._contents(watches)
        except OSError as error:
            if self._digest is None:
                raise errors.InvalidInput(
                    field="source", value=str(self._directory), remedy=f"name a directory ({error.strerror})"
                ) from error
            reason = f"cannot be read ({error.strerror}); its last good content stays in force"
            problems.append(_problem(str(self._directory), reason))
            self._retry_s = RETRY_S
        else:
            problems.extend(problem for name, read in contents.items() for problem in self._take(name, read))
            self._forget(keep=contents.keys())
            self._digest = tree.digest(contents)
        decoded = (one for name in sorted(self._good) for one in self._good[name].decoded)
        return Update(snapshot=_build(decoded, problems), digest=self._digest, changed_unix_ns=changed_unix_ns)

    def _contents(self, watches: inotify.Inotify | None) -> dict[str, bytes | errors.InvalidResource]:
        """Read every file; of those that are written meanwhile, the content is not taken. Raises OSError."""
        self._retry_s = None
        if watches is None:
            return tree.contents(self._directory, tree.walk(self._directory))
        watches.begin()
        found = tree.walk(self._directory, before=watches.watch)
        watches.keep(found.directories)
        contents = tree.contents(self._directory, found)
        changed = watches.drain()
        unsettled, renamed = watches.unsettled(), watches.renamed()
        for name, read in contents.items():
            paths = self._paths(name)
            patience_s = QUIET_S if read else RETRY_S
            if read and paths & renamed and not paths & unsettled and not (self._directory / name).is_symlink():
                continue  # it came whole
            if paths & unsettled or any(_is_younger(path, patience_s) for path in paths):
                contents[name] = _BEING_WRITTEN
                self._retry_s = max(self._retry_s or 0.0, RETRY_S if paths & unsettled else patience_s)
        if changed:
            self._retry_s = 0.0
        return contents

    def _paths(self, name: str) -> set[pathlib.Path]:
        """Return the paths a file is written under: its own, and that of the file a link leads to."""
        path = self._directory / name
        with contextlib.suppress(OSError, RuntimeError):
            return {path, path.resolve()}
        return {path}

    def _take(self, name: str, read: bytes | errors.InvalidResource) -> list[resources.Problem]:
        """Make the content of a file its last good one, or say why it is not."""
        try:
            if isinstance(read, errors.InvalidResource):
                raise read
            if read is _BEING_WRITTEN:
                if name not in self._good:
                    self._recall(name)
                return []
            sha256 = hashlib.sha256(read).digest()
            good = self._good.get(name)
            if good is not None and good.sha256 == sha256:
                return []
            self._good[name] = _Good(sha256, _decoded(read, name))
        except errors.InvalidResource as error:
            kept = name in self._good or self._recall(name)
            consequence = "the last good content of the file stays in force" if kept else "nothing of it is in force"
            return [_problem(name, f"{error}; {consequence}")]
        return self._keep_copy(name, read)

    def _keep_copy(self, name: str, content: bytes) -> list[resources.Problem]:
        """Copy a good content for the next start, whole or not at all."""
        copy = self._copy(name)
        try:
            self._copies.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch = copy.with_suffix(".new")
            scratch.write_bytes(content)
            scratch.replace(copy)
        except OSError as error:
            reason = f"no copy can be kept ({error.strerror}); if the file breaks, a restart loses its content"
            return [_problem(name, reason)]
        return []

    def _recall(self, name: str) -> bool:
        """Take the copy of a file's last good content, if there is one."""
        try:
            content = self._copy(name).read_bytes()
            self._good[name] = _Good(hashlib.sha256(content).digest(), _decoded(content, name))
        except (OSError, errors.InvalidResource):
            return False
        return True

    def _forget(self, *, keep: Iterable[str]) -> None:
        """Drop the content and copies of files that are gone: deleting a file removes its objects."""
        kept = set(keep)
        self._good = {name: good for name, good in self._good.items() if name in kept}
        copies = {self._copy(name) for name in kept}
        with contextlib.suppress(OSError):
            for path in self._copies.iterdir():
                if path not in copies:
                    path.unlink(missing_ok=True)

    def _copy(self, name: str) -> pathlib.Path:
        """Return where the copy of a file is: names are hashed, for they may be long and have directories."""
        return self._copies / hashlib.sha256(os.fsencode(name)).hexdigest()


async def _in_thread(read: Callable[[], Result]) -> Result:
    """Read in a thread, and outlive it: what it reads must not be closed."""
    running = asyncio.ensure_future(asyncio.to_thread(read))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait((running,))
        raise


def _problem(name: str, reason: str) -> resources.Problem:
    return resources.Problem(resources.ObjectRef("Manifest", "", name), "", reason)


def _is_younger(path: pathlib.Path, age_s: float) -> bool:
    """Tell whether a file changed so lately that its event may still be under way.

    A file that is opened with O_TRUNC shows as empty before the kernel queues IN_MODIFY; on a busy ext4
    18 ms before [measured, kernel 6.18].
    """
    with contextlib.suppress(OSError):
        return 0 <= time.time_ns() - path.stat().st_mtime_ns < age_s * 1e9
    return False


def _is_manifest(name: str) -> bool:
    """Tell whether a file of that name would be read."""
    return not name.startswith(".") and pathlib.PurePath(name).suffix in tree.SUFFIXES
