"""rtnetlink, in the caller's network namespace; the one place here that names pyroute2.

`import pyroute2` loads every protocol that package knows, a database and SQLite: 10 MiB in every agent, which asks for
interfaces and little else. What speaks rtnetlink is half of it, and is imported beneath a parent that stays empty.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any


def _rtnetlink() -> Any:
    """Import the module of IPRoute; `pyroute2` stays what it was, or is imported whole by whoever wants it."""
    spec = importlib.util.find_spec("pyroute2")
    if "pyroute2" in sys.modules or spec is None:
        return importlib.import_module("pyroute2.iproute.linux")
    parent = ModuleType("pyroute2")
    parent.__path__ = list(spec.submodule_search_locations or ())
    sys.modules["pyroute2"] = parent
    try:
        return importlib.import_module("pyroute2.iproute.linux")
    finally:
        del sys.modules["pyroute2"]


_linux = _rtnetlink()


def connection() -> Any:
    """Return a connection, a context manager; what the kernel refuses it raises as an error of pyroute2's."""
    return _linux.IPRoute()


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Raise what the kernel refuses inside the block as OSError, with its errno."""
    try:
        yield
    except _linux.NetlinkError as error:
        raise OSError(error.code, str(error.args[-1])) from error
