"""One agent a state directory: a lock on a file that says who has it.

The problem: the lock must be seen by the next agent and by nobody after an uninstall, and a file that is removed while
somebody waits for it is locked by two, of which one holds a file without a name. The rule: only who holds the lock may
remove the file, and who gets a lock looks whether it is still that of the file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Iterator

from agent import errors


@contextlib.contextmanager
def held(directory: pathlib.Path, file: pathlib.Path) -> Iterator[None]:
    """Hold `file` in the state directory `directory`; both are made. It may be removed meanwhile.

    Raises InvalidInput if another process holds it, or if it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _locked(file)
    except BlockingIOError as error:
        remedy = f"the agent with process id {_holder(file)} runs there: stop it, or choose another directory"
        raise errors.InvalidInput(field="--state-dir", value=str(directory), remedy=remedy) from error
    except OSError as error:
        remedy = f"the agent must be able to write there ({error.strerror}); run as root"
        raise errors.InvalidInput(field="--state-dir", value=str(directory), remedy=remedy) from error
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _locked(file: pathlib.Path) -> int:
    """Return a descriptor of the file that has this name now, locked. Raises OSError."""
    while True:
        with contextlib.ExitStack() as undo:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            undo.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), file.stat()):
                    undo.pop_all()
                    return descriptor


def _holder(file: pathlib.Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip() or "unknown"
    except OSError:
        return "unknown"
