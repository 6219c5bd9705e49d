"""Brings the kernel into line with rulesets, and keeps it there.

The problem: sets, two families and three tables are written one after the other, any of the writes may fail, and others
write to the same tables. The order, in which every step leaves the old state or the new in force:

1. sets: only versions that no rule names;
2. IPv4's transaction, then IPv6's; the tables of a family are committed one by one, the source check first;
3. later (`settle`): sets and versions that are of no use any more.

Where a transaction fails, what is in force is read from the kernel, and whatever has been committed of the new state is
put back. After a start, after a failure and after others have written, the kernel is asked, never remembered; members
of sets this process has filled itself stay trusted while their number is right.

Not for two threads at once. This module must not know policies, packets or why anything is wanted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence

from agent import errors
from agent.datapath.iptables import changes, commands, jumps, readback, ruleset, sets, stamp, text
from agent.model import net

Rulesets = Mapping[net.Family, ruleset.Ruleset]
STILL_EVERY = 3
"""Every so many repairs, what no stamp shows is looked at: members of sets, and in x_tables the jumps."""
STILL_SHARE = 100
"""Looking at it takes no more than one part in so many of the time, if repairs come every second."""
NAMED_MOST = 3
"""How many chains or sets one line of a report names."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What one apply wrote: members, rules, jumps and chains."""

    entries: int


class Writer:
    """The one that writes in this network namespace; `open` comes first."""

    def __init__(self, variant: commands.Variant) -> None:
        """Write by `variant`; nothing is touched yet."""
        self._variant = variant
        self._tables: tuple[ruleset.Table, ...] = tuple(ruleset.Table)
        self._sets: sets.Sets | None = None
        self._realized: dict[net.Family, changes.Realized] | None = None
        """None: the kernel has to be asked."""
        self._known: dict[net.Family, changes.Realized] = {}
        """What was last known, for the members of sets."""
        self._wanted: Rulesets | None = None
        """What was last put in force."""
        self._useless: frozenset[str] = frozenset()
        """Sets that `settle` has to destroy."""
        self._foreign_sets = 0
        self._seen: stamp.Stamp | None = None
        """The tables' stamp when they held what is realized."""
        self._until_look = STILL_EVERY
        """Repairs that are made without looking at what no stamp shows."""
        self._counters = {"transactions": 0, "members_written": 0, "repaired": 0}
        self._generation: int | None = None
        self._jumps: jumps.Jumps | None = None

    def open(self, tables: Sequence[ruleset.Table] = tuple(ruleset.Table)) -> int | None:
        """Look at what is there; `tables` are those the kernel has. Return the generation that log rules name, if any.

        Raises NotSupported, DatapathError.
        """
        self._tables = tuple(tables)
        self._sets = sets.Sets()
        if self._variant is commands.Variant.LEGACY:
            self._jumps = jumps.Jumps()
        self._seen = stamp.take(self._variant, self._tables)
        self._realized = self._read()
        return self._generation

    @property
    def variant(self) -> commands.Variant:
        """What it writes by."""
        return self._variant

    def close(self) -> None:
        """Let go of the socket; everything stays in force."""
        if self._sets is not None:
            self._sets.close()
        self._sets = self._realized = self._wanted = self._seen = None
        self._known = {}

    def apply(self, wanted: Rulesets) -> Written:
        """Put rulesets in force. Raises MapFull before anything is written; ApplyFailed: the old ones are in force."""
        wanted = {family: self._possible(rules) for family, rules in wanted.items()}
        realized = self._realized or self._read()
        plans = {family: changes.plan(realized[family], rules) for family, rules in wanted.items()}
        self._require_room(realized, plans)
        try:
            self._carry_out(realized, plans)
        except errors.DatapathError as error:
            raise self._put_back(error) from error
        self._wanted = wanted
        return Written(entries=sum(plan.written for plan in plans.values()))

    def settle(self) -> None:
        """Destroy what no rule names and nobody wants. Raises ApplyFailed."""
        if self._sets is None or self._realized is None:
            return
        destroyed = frozenset(name for name in sorted(self._useless) if self._sets.destroy(name))
        if destroyed:
            self._useless -= destroyed
            self._realized = {
                family: changes.without(realized, destroyed) for family, realized in self._realized.items()
            }
        self._forget_references()

    def repair(self) -> tuple[str, ...]:
        """Bring back what was last put in force; return what was wrong. Raises DatapathError."""
        if self._wanted is None:
            return ()
        now = stamp.take(self._variant, self._tables)
        self._until_look -= 1
        if (
            self._realized is not None
            and now == self._seen
            and (self._until_look > 0 or self._looks_well(self._realized))
        ):
            return ()
        realized = self._read()
        plans = {family: changes.plan(realized[family], rules) for family, rules in self._wanted.items()}
        lines = tuple(line for family, plan in plans.items() for line in _describe(family, plan))
        if not lines:
            self._realized, self._seen = realized, now
            return ()
        self._require_room(realized, plans)
        self._carry_out(realized, plans)
        self._counters["repaired"] += 1
        return lines

    def counters(self) -> dict[str, int]:
        """Return what was done since this was made; any thread may ask."""
        return {f"iptables_{name}": count for name, count in self._counters.items()}

    @property
    def members(self) -> int:
        """How many members all sets have together that are in force; any thread may ask."""
        rulesets = (self._wanted or {}).values()
        return sum(len(content.members) for rules in rulesets for content in rules.sets.values())

    def _possible(self, rules: ruleset.Ruleset) -> ruleset.Ruleset:
        """Leave out the tables this kernel lacks."""
        if self._tables == tuple(ruleset.Table):
            return rules
        return dataclasses.replace(
            rules,
            chains={table: chains for table, chains in rules.chains.items() if table in self._tables},
            jumps={table: jumps for table, jumps in rules.jumps.items() if table in self._tables},
        )

    def _read(self) -> dict[net.Family, changes.Realized]:
        """Ask the kernel. Raises DatapathError."""
        headers = self._opened().headers()
        ours = {name: header for name, header in headers.items() if name.startswith(ruleset.SET_PREFIX)}
        self._foreign_sets = len(headers) - len(ours)
        read = {}
        for family in net.Family:
            known = self._known.get(family, changes.Realized())
            mine = {name: header for name, header in ours.items() if header.family is family}
            versions, live = readback.versions(mine, known)
            tables = {}
            for table in self._tables:
                saved = readback.parse(commands.save(family, self._variant, table), known.tables.get(table))
                tables[table] = saved.state
                self._generation = max(filter(None, (self._generation, saved.generation)), default=None)
            read[family] = changes.Realized(tables=tables, sets=versions, live=live)
        self._known = read
        return read

    def _require_room(
        self, realized: Mapping[net.Family, changes.Realized], plans: Mapping[net.Family, changes.Changes]
    ) -> None:
        ours = sum(len(versions) for family in realized.values() for versions in family.sets.values())
        present = ours + self._foreign_sets
        changes.require_room(plans.values(), present=present, members=sets.CAPACITY, sets=sets.MOST_SETS)

    def _carry_out(
        self, realized: Mapping[net.Family, changes.Realized], plans: Mapping[net.Family, changes.Changes]
    ) -> None:
        """Write sets, then transactions; afterwards all is known, after an error nothing but members."""
        self._realized = None
        self._known = {family: changes.distrusting(realized[family], plan.sets) for family, plan in plans.items()}
        for family, plan in plans.items():
            for write in plan.sets:
                self._write(family, write)
        with self._stamped(realized, plans):
            for family, plan in plans.items():
                if plan.tables and not self._place(family, plan):
                    commands.restore(family, self._variant, text.transaction(plan.tables))
                self._counters["transactions"] += bool(plan.tables)
        self._realized = self._known = {family: plan.result for family, plan in plans.items()}
        self._useless = frozenset(name for plan in plans.values() for name in plan.destroy)

    def _place(self, family: net.Family, plan: changes.Changes) -> bool:
        """Put jumps back by python-iptables where nothing else is wrong; False: it is not for that."""
        if self._jumps is None or any(change.write or change.remove for change in plan.tables.values()):
            return False
        return all(
            self._jumps.put_first(family, table, [placed.jump for placed in plan.result.tables[table].jumps])
            for table in plan.tables
        )

    @contextlib.contextmanager
    def _stamped(
        self, realized: Mapping[net.Family, changes.Realized], plans: Mapping[net.Family, changes.Changes]
    ) -> Iterator[None]:
        """Keep the stamp right over our own transactions; where others wrote meanwhile, the next repair reads all."""
        if not any(plan.tables for plan in plans.values()):
            yield
            return
        seen, self._seen = self._seen, None
        before = stamp.take(self._variant, self._tables)
        yield
        after = stamp.take(self._variant, self._tables)
        commits = sum(len(plan.tables) for plan in plans.values())
        entries = {
            (family, table): plan.result.tables[table].entries - state.entries
            for family, plan in plans.items()
            for table, state in realized[family].tables.items()
        }
        if before == seen and stamp.is_next(before, after, commits=commits, entries=entries):
            self._seen = after

    def _looks_well(self, realized: Mapping[net.Family, changes.Realized]) -> bool:
        begun = time.perf_counter()
        stands = self._stands(realized)
        self._until_look = max(STILL_EVERY, round(STILL_SHARE * (time.perf_counter() - begun)))
        return stands

    def _stands(self, realized: Mapping[net.Family, changes.Realized]) -> bool:
        """Tell whether sets have as many members as was written to them, and jumps are where they were put."""
        headers = self._opened().headers(ruleset.SET_PREFIX)
        for family in realized.values():
            for name, versions in family.sets.items():
                for letter, version in versions.items():
                    header = headers.get(text.set_name(name, letter))
                    if version.members is not None and (header is None or header.elements != len(version.members)):
                        return False
        if self._jumps is None:  # the stamp of nftables shows every change
            return True
        placed_in = self._jumps.placed
        return all(
            placed_in(family, table, [placed.jump.builtin for placed in state.jumps]) == state.jumps
            for family, side in realized.items()
            for table, state in side.tables.items()
        )

    def _write(self, family: net.Family, write: changes.SetWrite) -> None:
        opened = self._opened()
        if write.base is changes.Base.REPLACE and not opened.destroy(write.name):
            raise errors.ApplyFailed(f"replacing the set {write.name}: a rule refers to it")
        if write.base in {changes.Base.CREATE, changes.Base.REPLACE}:
            opened.create(write.name, write.kind, family, members=write.size)
        if write.base is changes.Base.FLUSH:
            opened.flush(write.name)
        opened.remove(write.name, write.remove)
        opened.add(write.name, write.add)
        self._counters["members_written"] += len(write.remove) + len(write.add)

    def _put_back(self, error: errors.DatapathError) -> errors.DatapathError:
        """Undo what was committed before `error`; return what to raise."""
        if self._wanted is None:
            return error
        try:
            self.repair()
        except errors.DatapathError as second:
            return errors.ApplyFailed(f"{error}; a part of the new policy is in force: {second}")
        return error

    def _forget_references(self) -> None:
        """Find out whether versions that were named at the start are free now."""
        realized = self._realized or {}
        if not any(
            version.referred and realized_.live.get(name) != letter
            for realized_ in realized.values()
            for name, versions in realized_.sets.items()
            for letter, version in versions.items()
        ):
            return
        headers = self._opened().headers(ruleset.SET_PREFIX)
        referred = frozenset(name for name, header in headers.items() if header.references)
        self._realized = {family: changes.with_references(before, referred) for family, before in realized.items()}

    def _opened(self) -> sets.Sets:
        if self._sets is None:
            raise errors.DatapathError("the iptables engine is not open")
        return self._sets


def _describe(family: net.Family, plan: changes.Changes) -> Iterator[str]:
    """Say what a repair changes."""
    version = f"IPv{family.value}"
    for table, change in plan.tables.items():
        if change.write:
            yield f"{version} {table.value}: rewrote {_names(tuple(change.write))}"
        if change.remove:
            yield f"{version} {table.value}: removed {_names(change.remove)}"
        for builtin in sorted({jump.builtin for jump in (*change.insert, *change.delete)}):
            yield f"{version} {table.value}: put the jump in {builtin} back to where it belongs"
    if plan.sets:
        yield f"{version}: filled anew {_names(tuple(write.name for write in plan.sets))}"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:NAMED_MOST])
    return shown if len(names) <= NAMED_MOST else f"{shown} and {len(names) - NAMED_MOST} more"
