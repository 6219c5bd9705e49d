"""The tools this engine runs: iptables-restore and -save of either variant and family, and nft.

The problem: two iptables live side by side on most machines, a third program may hold the lock they share, and what
they say on failure names a line of a text nobody sees. The rule: every call names its variant, waits for the lock no
longer than it is told, and raises with the line that failed and, of a lock, with who holds it. Nothing is tried again
here; the caller knows whether it must look at the kernel first.

Tools run in the network namespace of the calling thread, with the lock file of XTABLES_LOCKFILE if that is set.
"""

from __future__ import annotations

import enum
import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from agent import errors
from agent.datapath.iptables import ruleset
from agent.model import net

LOCK_SECONDS = 5
"""How long a transaction waits for the xtables lock."""
TOOL_SECONDS = 60.0
"""No transaction takes longer; a tool that does is stuck."""
LOCK_FILE = pathlib.Path("/run/xtables.lock")
LOCKS = pathlib.Path("/proc/locks")
PROCESSES = pathlib.Path("/proc")
PREFIXES: Mapping[net.Family, str] = {net.Family.IPV4: "iptables", net.Family.IPV6: "ip6tables"}
_LINE = re.compile(r"(?:line:? |stdin:)(\d+)")


class Variant(enum.Enum):
    """Which of the two iptables; the value is the word in the tools' names."""

    LEGACY = "legacy"
    """x_tables: a table is one blob, replaced whole."""
    NFT = "nft"
    """The same rules as nftables' own, in tables of the same names."""


def tool(family: net.Family, variant: Variant, verb: str) -> str | None:
    """Return the name of a tool (`verb` is restore or save), as this distribution calls it; None: it is not there."""
    prefix = PREFIXES[family]
    named = f"{prefix}-{variant.value}-{verb}"
    if shutil.which(named):
        return named
    plain = f"{prefix}-{verb}"
    if not shutil.which(plain):
        return None
    shown = _run((plain, "--version")).stdout
    is_nft = "nf_tables" in shown
    return plain if is_nft is (variant is Variant.NFT) else None


def require(family: net.Family, variant: Variant, verb: str) -> str:
    """Return the tool's name. Raises NotSupported without it."""
    found = tool(family, variant, verb)
    if found is None:
        feature = f"{PREFIXES[family]}-{variant.value}-{verb}"
        raise errors.NotSupported(feature=feature, needs="the package iptables")
    return found


def save(family: net.Family, variant: Variant, table: ruleset.Table | str) -> str:
    """Return one table as text. Raises NotSupported where the kernel lacks the table, DatapathError."""
    name = table if isinstance(table, str) else table.value
    command = (require(family, variant, "save"), "-t", name)
    ended = _run(command)
    if ended.returncode != 0:
        said = ended.stderr.strip()
        if "does not exist" in said or "can't initialize" in said or "Cannot initialize" in said:
            feature = f"the {PREFIXES[family]} table {name}"
            raise errors.NotSupported(feature=feature, needs=f"a kernel with that table ({variant.value})")
        raise errors.DatapathError(f"reading the table {name} by {command[0]}: {said}")
    return ended.stdout


def restore(family: net.Family, variant: Variant, text: str) -> None:
    """Carry out a transaction. Raises ApplyFailed with the line that failed, or the holder of the lock."""
    command = (require(family, variant, "restore"), "--noflush", "-w", str(LOCK_SECONDS))
    ended = _run(command, text)
    if ended.returncode == 0:
        return
    said = ended.stderr.strip()
    if "xtables lock" in said:
        raise errors.ApplyFailed(f"{command[0]} waited {LOCK_SECONDS} s for the lock {lock_file()}{lock_holder()}")
    raise errors.ApplyFailed(f"{command[0]}: {said.splitlines()[0] if said else ended.returncode}{_failed(said, text)}")


def nft(text: str) -> None:
    """Carry out an nftables transaction. Raises NotSupported without nft or its kernel part, or ApplyFailed."""
    ended = _nft(("-f", "-"), text)
    if ended.returncode != 0:
        said = ended.stderr.strip()
        if "Operation not supported" in said or "cache initialization failed" in said:
            raise errors.NotSupported(feature="nftables", needs="a kernel with nf_tables and its netdev family")
        raise errors.ApplyFailed(f"nft: {said.splitlines()[0] if said else ended.returncode}{_failed(said, text)}")


def nft_table(family: str, name: str) -> str:
    """Return an nftables table as text, without counters; "" where it or nft is not there."""
    try:
        ended = _nft(("--stateless", "list", "table", family, name), "")
    except errors.NotSupported:
        return ""
    return ended.stdout if ended.returncode == 0 else ""


def lock_file() -> pathlib.Path:
    """Return the file that the tools lock."""
    return pathlib.Path(os.environ.get("XTABLES_LOCKFILE", LOCK_FILE))


def lock_holder() -> str:
    """Return ", which NAME (process N) holds" of the lock, or "" where /proc does not show it."""
    try:
        inode = lock_file().stat().st_ino
        for line in LOCKS.read_text(encoding="ascii").splitlines():
            fields = line.split()
            if "->" not in fields and fields[5].rpartition(":")[2] == str(inode):
                command = (PROCESSES / fields[4] / "comm").read_text(errors="replace").strip()
                return f", which {command!r} (process {fields[4]}) holds"
    except (OSError, IndexError):
        pass
    return ""


def _nft(arguments: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("nft"):
        raise errors.NotSupported(feature="nftables", needs="nft (the package nftables)")
    return _run(("nft", *arguments), text)


def _run(command: Sequence[str], text: str = "") -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, timeout=TOOL_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise errors.ApplyFailed(f"{command[0]} did not end within {TOOL_SECONDS:.0f} s") from error
    except OSError as error:
        raise errors.DatapathError(f"running {command[0]}: {error}") from error


def _failed(said: str, text: str) -> str:
    """Return the line of `text` that the tool's message names."""
    found, lines = _LINE.search(said), text.splitlines()
    if found is None or not 0 < int(found[1]) <= len(lines):
        return ""
    return f": {lines[int(found[1]) - 1]}"
