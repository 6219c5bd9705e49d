"""The network namespaces that are bound in one directory, and when a name there is a container runtime's.

Only names that a container runtime makes are looked at: `cni-UUID` (containerd) and `UUID` (CRI-O). What a person names
with `ip netns add`, what Docker or Podman make, and the node's own namespaces are nobody's business here; they are not
even opened, for an open file keeps a namespace alive.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping

from agent import errors
from agent.model import endpoint
from agent.node import holds, netns

RUNTIMES_NAME = re.compile(r"(cni-)?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def look(directory: pathlib.Path, explained: Mapping[str, endpoint.Sandbox]) -> Mapping[str, int | None]:
    """Return the cookie of each network namespace in `directory` that has a runtime's name.

    None where nothing is bound at that name (yet, or any more). Those of `explained` are not asked again. A directory
    that cannot be read has none.
    """
    try:
        names = sorted(path.name for path in directory.iterdir() if RUNTIMES_NAME.fullmatch(path.name))
    except OSError:
        return {}
    return {name: explained[name].netns_cookie if name in explained else cookie(directory / name) for name in names}


def cookie(path: pathlib.Path) -> int | None:
    """Return the cookie, 0 where the kernel does not tell it; None where no namespace is bound that can be read."""
    try:
        return netns.cookie(path)
    except OSError:
        return None
    except errors.NotSupported:
        return holds.UNKNOWN_COOKIE
