"""The manifest files of a directory, as a ConfigMap mount, an editor and a person leave them.

Read: *.yaml, *.yml and *.json, in subdirectories too. Passed over: names that begin with a dot, which are
editors' scratch files and the `..data` directories a ConfigMap swaps; the links beside them are followed,
also those to directories, each directory once, so that a loop of links ends.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import pathlib
import stat
from collections.abc import Callable, Mapping

from agent import errors

SUFFIXES = frozenset({".yaml", ".yml", ".json"})
SIZE_MAX = 32 * 1024 * 1024
"""Bytes of a file; a larger one is refused unread."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """What one walk found."""

    files: tuple[str, ...]
    """Paths relative to the directory, with "/", sorted."""
    directories: frozenset[pathlib.Path]
    """Every directory a change of the content can show in, those of linked files too."""


def walk(directory: pathlib.Path, *, before: Callable[[pathlib.Path], None] = lambda _: None) -> Tree:
    """List the manifest files; `before` is called with each directory before it is read.

    Directories that vanish meanwhile are passed over. Raises OSError if `directory` itself cannot be read.
    """
    files: list[str] = []
    seen: set[tuple[int, int]] = set()
    directories: set[pathlib.Path] = set()
    pending = collections.deque([(directory, "")])
    while pending:
        path, prefix = pending.popleft()
        try:
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            directories.add(path)
            before(path)
            entries = sorted(os.scandir(path), key=lambda entry: entry.name)
        except OSError:
            if not prefix:
                raise
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_directory(entry):
                pending.append((path / entry.name, f"{prefix}{entry.name}/"))
            elif pathlib.PurePath(entry.name).suffix in SUFFIXES:
                files.append(prefix + entry.name)
                directories.update(_real_directory(path / entry.name, before) if entry.is_symlink() else ())
    return Tree(files=tuple(sorted(files)), directories=frozenset(directories))


def _is_directory(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a directory or a link to one."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _real_directory(link: pathlib.Path, before: Callable[[pathlib.Path], None]) -> tuple[pathlib.Path, ...]:
    """Return the directory of the file that a link leads to, none if it leads nowhere."""
    try:
        found = link.resolve(strict=True).parent
        before(found)
    except (OSError, RuntimeError):
        return ()
    return (found,)


def contents(directory: pathlib.Path, tree: Tree) -> dict[str, bytes | errors.InvalidResource]:
    """Read the files of a walk; in place of a content that cannot be had stands why. Vanished files are left out."""
    found: dict[str, bytes | errors.InvalidResource] = {}
    for name in tree.files:
        path = directory / name
        try:
            found[name] = content(path, name)
        except FileNotFoundError:
            continue
        except errors.InvalidResource as error:
            found[name] = error
    return found


def content(path: pathlib.Path, name: str) -> bytes:
    """Read a file; raises InvalidResource, or FileNotFoundError if it is not there."""
    try:
        # Never a pipe or device under a manifest's name: opening one could wait for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            read = file.read(SIZE_MAX + 1) if _is_regular(descriptor) else None
    except FileNotFoundError:
        raise
    except OSError as error:
        raise errors.InvalidResource(f"{name}:1: cannot be read: {error.strerror}") from error
    if read is None:
        raise errors.InvalidResource(f"{name}:1: is no regular file")
    if len(read) > SIZE_MAX:
        raise errors.InvalidResource(f"{name}:1: is larger than {SIZE_MAX} bytes")
    return read


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def digest(contents_: Mapping[str, bytes | errors.InvalidResource]) -> str:
    """Return SHA-256, in hex, over relative path, NUL and bytes of each file in the order of the paths."""
    sum_ = hashlib.sha256()
    for name in sorted(contents_):
        read = contents_[name]
        sum_.update(name.encode(errors="surrogateescape"))
        sum_.update(b"\0")
        sum_.update(read if isinstance(read, bytes) else b"")
    return sum_.hexdigest()
