"""Collects items, each within its own time, and writes them with a manifest into one archive that only its owner reads.

An item that fails, or takes too long, is an entry in the manifest that says why; the bundle is made all the same.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import tarfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO

from agent import errors
from agent.cli.bundle import redact

BYTES_MOST = 64 << 20
"""Of one item; what is longer is cut, and the manifest says so."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """Something to collect."""

    name: str
    """Its path in the archive; what ends in .json is a document."""
    collect: Callable[[], object]
    limit_s: float = 10.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What became of an item."""

    name: str
    content: bytes | None
    """None where there is nothing but an error."""
    error: str
    seconds: float

    @property
    def entry(self) -> Mapping[str, object]:
        """Return what the manifest says of it."""
        content = self.content
        there = {} if content is None else {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        return {"name": self.name, **there, "seconds": round(self.seconds, 3), "error": self.error or None}


def collect(item: Item, redactor: redact.Redactor) -> Collected:
    """Collect one item, waiting no longer than it may take; the thread of one that is stuck is left behind."""
    answers: list[object] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(item.collect())
        except Exception as error:  # noqa: BLE001 - it goes into the manifest, whatever it is
            failures.append(error)

    began = time.monotonic()
    thread = threading.Thread(target=run, name=item.name, daemon=True)
    thread.start()
    thread.join(item.limit_s)
    seconds = time.monotonic() - began
    if answers:
        content = _content(item, answers[0], redactor)
        error = "" if len(content) <= BYTES_MOST else f"cut at {BYTES_MOST} bytes"
        return Collected(name=item.name, content=content[:BYTES_MOST], error=error, seconds=seconds)
    error = str(failures[0]) or repr(failures[0]) if failures else f"not done in {item.limit_s:g} s"
    return Collected(name=item.name, content=None, error=redact.scrub(error), seconds=seconds)


def _content(item: Item, answer: object, redactor: redact.Redactor) -> bytes:
    if isinstance(answer, str):
        return redact.scrub(answer).encode(errors="backslashreplace")
    plain = json.loads(json.dumps(answer, default=str))
    if item.name.endswith(".jsonl"):
        return "".join(f"{json.dumps(redactor.document(line))}\n" for line in plain).encode()
    return f"{json.dumps(redactor.document(plain), indent=2)}\n".encode()


def write(path: pathlib.Path, directory: str, found: Sequence[Collected], about: Mapping[str, object]) -> int:
    """Write the archive, which must not be there yet; return its bytes. Raises InvalidInput."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        remedy = f"it cannot be written ({error.strerror}); name a file that is not there yet"
        raise errors.InvalidInput(field="-o", value=str(path), remedy=remedy) from error
    with os.fdopen(descriptor, "wb") as file:
        write_to(file, directory, found, about)
    return path.stat().st_size


def write_to(file: IO[bytes], directory: str, found: Sequence[Collected], about: Mapping[str, object]) -> None:
    """Write the archive into a file or pipe, all of it in `directory`."""
    manifest = json.dumps({**about, "items": [one.entry for one in found]}, indent=2) + "\n"
    with tarfile.open(fileobj=file, mode="w|gz") as archive:
        _add(archive, f"{directory}/manifest.json", manifest.encode())
        for one in found:
            if one.content is not None:
                _add(archive, f"{directory}/{one.name}", one.content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
    archive.addfile(member, io.BytesIO(content))
