"""The first rules of built-in chains in x_tables, read and placed through python-iptables.

The problem: a rule put before our jump, with another of the same size taken out, leaves every number of a table as it
was, and reading a table of ten thousand rules as text every few seconds to find out is dear. libiptc reads a table in
a millisecond or two, and python-iptables (iptc) brings it into the process. Its traps decide how it is used here: no
rule becomes an object, for objects of some targets (NFLOG) crash the process, and those of jumps bring every table into
being; a table is refreshed before each use and never commits on its own, for a stale one would take back what others
wrote; the lock that it does not know is held around it. Where it is not installed, text does the same, slower.

nftables needs nothing of this: its generation shows every change.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import importlib
import struct
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from agent import errors
from agent.datapath.iptables import changes, commands, readback, ruleset
from agent.model import net

LOCK_PAUSE_SECONDS = 0.02
ENTRIES = {net.Family.IPV4: struct.Struct("=88xHH20x"), net.Family.IPV6: struct.Struct("=140xHH24x")}
"""struct ipt_entry and ip6t_entry that match everything: the offsets of target and next entry."""
TARGET = struct.Struct("=H29sx8x")
"""struct xt_standard_target: size and name."""


class Jumps:
    """Our jumps in the tables of the caller's network namespace."""

    def __init__(self) -> None:
        """Nothing is imported before it is used: python-iptables finds its libraries by running compilers."""
        self._looked = False
        self._iptc: Any = None

    def placed(self, family: net.Family, table: ruleset.Table, builtins: Sequence[str]) -> tuple[changes.Placed, ...]:
        """Return where our jumps stand in these built-in chains. Raises DatapathError."""
        if not self._import():
            state = readback.parse(commands.save(family, commands.Variant.LEGACY, table)).state
            return tuple(placed for placed in state.jumps if placed.jump.builtin in builtins)
        with self._opened(family, table) as opened:
            return tuple(
                changes.Placed(ruleset.Jump(builtin=builtin, chain=target), place)
                for builtin in dict.fromkeys(builtins)
                for place, target in enumerate(_targets(opened, builtin))
                if target.startswith(ruleset.CHAIN_PREFIX)
            )

    def put_first(self, family: net.Family, table: ruleset.Table, jumps: Sequence[ruleset.Jump]) -> bool:
        """Put each jump first in its built-in chain, and only there, in one commit; False: not without iptc.

        Raises ApplyFailed if the lock is not to be had, or somebody who does not know it wrote at the same time.
        """
        if not self._import():
            return False
        with _locked(commands.LOCK_SECONDS), self._opened(family, table) as opened:
            for jump in jumps:
                places = [place for place, target in enumerate(_targets(opened, jump.builtin)) if target == jump.chain]
                for place in reversed(places):
                    # Deleting by number is not in iptc's own interface; by rule, it would have to become an object.
                    deleted = opened._iptc.iptc_delete_num_entry(jump.builtin.encode(), place, opened._handle)  # noqa: SLF001
                    if not deleted:
                        raise errors.ApplyFailed(f"taking the jump to {jump.chain} out of {jump.builtin}")
                entry = _jump(family, jump.chain)
                opened.insert_entry(jump.builtin, ctypes.create_string_buffer(entry, len(entry)), 0)
            opened.commit()
        return True

    def _import(self) -> bool:
        """Import it once; False: it is not here. Not in another thread, for a child forked meanwhile would hang."""
        if not self._looked:
            self._looked = True
            with warnings.catch_warnings(), contextlib.suppress(ImportError):
                warnings.simplefilter("ignore")  # it is older than this Python's idea of distutils
                self._iptc = importlib.import_module("iptc")
        return self._iptc is not None

    @contextlib.contextmanager
    def _opened(self, family: net.Family, table: ruleset.Table) -> Iterator[Any]:
        """Open a table as the kernel has it now; nothing of it is kept."""
        kind = self._iptc.Table if family is net.Family.IPV4 else self._iptc.Table6
        try:
            opened = kind(table.value, autocommit=False)
            opened.refresh()
            try:
                yield opened
            finally:
                opened.close()
        except self._iptc.IPTCError as error:
            raise errors.ApplyFailed(f"python-iptables, {table.value} of IPv{family.value}: {error}") from error


def _jump(family: net.Family, chain: str) -> bytes:
    """Return the entry of a rule that says nothing but `-j CHAIN`: libiptc finds the chain by the target's name."""
    entry = ENTRIES[family].pack(ENTRIES[family].size, ENTRIES[family].size + TARGET.size)
    return entry + TARGET.pack(TARGET.size, chain.encode())


def _targets(opened: Any, builtin: str) -> Iterator[str]:
    """Yield where each rule of a chain goes, without making an object of any."""
    rule = opened.first_rule(builtin)
    while rule:
        target: bytes | None = opened.get_target(rule)
        yield (target or b"").decode(errors="replace")
        rule = opened.next_rule(rule)


@contextlib.contextmanager
def _locked(seconds: float) -> Iterator[None]:
    """Hold the xtables lock. Raises ApplyFailed if another holds it for so long."""
    deadline = time.monotonic() + seconds
    with commands.lock_file().open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    message = f"waited {seconds:g} s for the lock {commands.lock_file()}{commands.lock_holder()}"
                    raise errors.ApplyFailed(message) from error
                time.sleep(LOCK_PAUSE_SECONDS)
        yield
