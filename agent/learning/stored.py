"""History over a restart of the agent: a file in the state directory, of the machine's present boot alone.

The problem: the kernel keeps what it has learned, but not what it was told of names that no policy had; an agent that
forgets that closes connections of pods that resolved before it started (requirements F25, F26). The rule: one JSON
document, replaced whole, written by nobody else. Times count from the boot, so that of another boot is worthless. What
cannot be read is as if it were not there, and the reason is told: names then have to be resolved again.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pathlib
from collections.abc import Iterable

from agent import errors
from agent.fqdn import patterns
from agent.model import fqdn

BOOT = pathlib.Path("/proc/sys/kernel/random/boot_id")
BYTES_MAX = 256 << 20
WHAT = "what DNS told this node's pods"


def write(file: pathlib.Path, remembered: Iterable[fqdn.Remembered], *, boot: str) -> None:
    """Replace the file. Raises OSError."""
    rows = [[one.endpoint, one.name, str(one.address), one.answered_ns, one.expires_ns] for one in remembered]
    following = file.with_name(f"{file.name}.next")
    descriptor = os.open(following, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as content:
        json.dump({"boot": boot, "answers": rows}, content, separators=(",", ":"))
    following.replace(file)


def read(file: pathlib.Path, *, boot: str) -> tuple[fqdn.Remembered, ...]:
    """Read it; () where there is none of this boot. Raises InvalidAnswer."""
    try:
        if file.stat().st_size > BYTES_MAX:
            raise errors.InvalidAnswer(what=WHAT, why=f"{file} is larger than {BYTES_MAX} bytes")
        document = json.loads(file.read_text(encoding="ascii"))
        return tuple(map(_read, document["answers"])) if document["boot"] == boot else ()
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise errors.InvalidAnswer(what=WHAT, why=f"{file}: {error}") from error


def boot() -> str:
    """Return what tells this boot from others. Raises OSError."""
    return BOOT.read_text(encoding="ascii").strip()


def _read(row: list[object]) -> fqdn.Remembered:
    endpoint, name, address, answered_ns, expires_ns = row
    numbers = (endpoint, answered_ns, expires_ns)
    if not all(isinstance(number, int) and number >= 0 for number in numbers):
        message = f"not a number: {numbers!r}"
        raise ValueError(message)
    if not isinstance(name, str) or not isinstance(address, str) or patterns.canonical(name) != name:
        message = f"no name or no address: {name!r}, {address!r}"
        raise ValueError(message)
    return fqdn.Remembered(
        endpoint=int(str(endpoint)),
        name=name,
        address=ipaddress.ip_address(address),
        answered_ns=int(str(answered_ns)),
        expires_ns=int(str(expires_ns)),
    )
