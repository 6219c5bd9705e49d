"""From what the kernel holds of one family to what it shall hold: which sets to write, which rules, what goes after.

The problem: a packet must meet all of the old rules and members or all of the new, and a table with ten thousand rules
must not be written anew for one edit. The rules chosen:

- A set that live rules name is never written to. A change goes to another version of it, as a difference where the
  content of that version is known; the transaction then turns the rules to it, and the version left behind is the base
  of the next difference.
- After a start nothing is known of members: versions that rules name are left alone, another one is filled.
- A chain is written only if the comments read back differ from those wanted; they are digests of text and versions.

Pure: this module must not know processes, netlink or the clock.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from agent import errors
from agent.datapath.iptables import ruleset, text

LETTERS = (*text.VERSIONS, "c")
"""The third is needed when rules of one crash, or of the other variant of iptables, still name the other two."""


def _empty() -> MappingProxyType[Any, Any]:
    return MappingProxyType({})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of a set in the kernel."""

    kind: str
    """The type's name; none of `ruleset.SetKind`'s: not ours to fill."""
    members: ruleset.Members | None
    """None: unknown."""
    referred: bool
    """A rule names it, or may name it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """One chain of ours in the kernel."""

    comments: tuple[str, ...]
    """The digest in each rule's comment, "" for a rule without."""
    rules: tuple[ruleset.Rule, ...] | None = None
    """What it was written from, where this process wrote it; saves working out text that is there already."""


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """A jump to a chain of ours, and its place (from 0) in the built-in chain."""

    jump: ruleset.Jump
    place: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableState:
    """What one table holds of ours."""

    chains: Mapping[str, Chain] = dataclasses.field(default_factory=_empty)
    jumps: tuple[Placed, ...] = ()
    pinned: frozenset[str] = frozenset()
    """Chains of ours that a rule of somebody else's goes to, which therefore cannot be removed."""

    @property
    def entries(self) -> int:
        """Count the entries that x_tables holds for it: a chain has one before and one behind its rules."""
        return len(self.jumps) + sum(2 + len(chain.comments) for chain in self.chains.values())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Realized:
    """What the kernel holds of ours in one family."""

    tables: Mapping[ruleset.Table, TableState] = dataclasses.field(default_factory=_empty)
    sets: Mapping[str, Mapping[str, Version]] = dataclasses.field(default_factory=_empty)
    """Name -> letter -> version."""
    live: Mapping[str, str] = dataclasses.field(default_factory=_empty)
    """Name -> the version that our rules name, for sets this process has written."""


class Base(enum.Enum):
    """What has to be done to a version before members are written."""

    CREATE = "create"
    REPLACE = "replace"
    """Destroy one of another type, and create."""
    FLUSH = "flush"
    KEEP = "keep"
    """Nothing: `add` and `remove` are a difference."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SetWrite:
    """What brings one version of a set to its content; members go first, then new ones come."""

    name: str
    """In the kernel, with the version's letter."""
    kind: ruleset.SetKind
    base: Base
    size: int
    """How many members it has afterwards."""
    add: ruleset.Members = dataclasses.field(default_factory=_empty)
    remove: tuple[ruleset.Member, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The way: sets, then one transaction, then what no rule names any more."""

    sets: tuple[SetWrite, ...]
    tables: Mapping[ruleset.Table, text.TableChange]
    destroy: tuple[str, ...]
    """Sets and versions that are of no use afterwards."""
    result: Realized

    @property
    def written(self) -> int:
        """Count members and rules written or taken out, and chains removed."""
        members = sum(len(write.add) + len(write.remove) for write in self.sets)
        return members + sum(_written(change) for change in self.tables.values())

    @property
    def created(self) -> int:
        """Count the sets that come into being."""
        return sum(write.base is Base.CREATE for write in self.sets)


def plan(realized: Realized, wanted: ruleset.Ruleset) -> Changes:
    """Return what leads from `realized` to `wanted`; where they agree, nothing."""
    writes, live = [], {}
    for name, content in wanted.sets.items():
        letter, write = _version(name, content, realized)
        live[name] = letter
        if write is not None:
            writes.append(write)
    moved = frozenset(name for name, letter in live.items() if realized.live.get(name) != letter)
    tables, states = {}, {}
    for table in ruleset.Table:
        state = realized.tables.get(table, TableState())
        change, states[table] = _table(state, table, wanted, live, moved)
        if change is not None:
            tables[table] = change
    sets, destroy = _sets_afterwards(realized, wanted, live, moved)
    result = Realized(tables=states, sets=sets, live=live)
    return Changes(sets=tuple(writes), tables=tables, destroy=destroy, result=result)


def require_room(changes: Iterable[Changes], *, present: int, members: int, sets: int) -> None:
    """Raise MapFull if a set would have more than `members`, or the namespace, `present` now, more than `sets` sets."""
    created = 0
    for change in changes:
        created += change.created
        for write in change.sets:
            if write.size > members:
                raise errors.MapFull(table=f"ipset {write.name}", rows=write.size, capacity=members)
    if present + created > sets:
        raise errors.MapFull(table="of ipsets", rows=present + created, capacity=sets)


def _written(change: text.TableChange) -> int:
    rules = sum(map(len, change.write.values()))
    return rules + len(change.remove) + len(change.insert) + len(change.delete)


def _version(name: str, content: ruleset.SetContent, realized: Realized) -> tuple[str, SetWrite | None]:
    """Return the letter that rules shall name, and how it gets its content (None: it has it)."""
    versions, live = realized.sets.get(name, {}), realized.live.get(name)
    if live is not None and _holds(versions.get(live), content):
        return live, None
    free = [letter for letter in LETTERS if letter != live and not (letter in versions and versions[letter].referred)]
    if not free:
        raise errors.ApplyFailed(f"changing the set {name}: somebody else's rules name all its versions")
    letter = min(free, key=lambda letter: _reluctance(versions.get(letter)))
    return letter, _write(text.set_name(name, letter), versions.get(letter), content)


def _holds(version: Version | None, content: ruleset.SetContent) -> bool:
    if version is None or version.kind != content.kind.value or version.members is None:
        return False
    return version.members is content.members or version.members == content.members


def _reluctance(version: Version | None) -> int:
    """Prefer what is known, then what is there."""
    if version is None:
        return 2
    return 1 if version.members is None else 0


def _write(name: str, version: Version | None, content: ruleset.SetContent) -> SetWrite:
    base = Base.CREATE
    if version is not None:
        base = Base.REPLACE if version.kind != content.kind.value else Base.KEEP
    if base is not Base.KEEP or version is None or version.members is None:
        base = Base.FLUSH if base is Base.KEEP else base
        return SetWrite(name=name, kind=content.kind, base=base, size=len(content.members), add=content.members)
    old, new = version.members, content.members
    return SetWrite(
        name=name,
        kind=content.kind,
        base=base,
        size=len(new),
        add={member: matches for member, matches in new.items() if old.get(member) is not matches},
        remove=tuple(member for member, matches in old.items() if new.get(member) is not matches),
    )


def _table(
    state: TableState,
    table: ruleset.Table,
    wanted: ruleset.Ruleset,
    live: Mapping[str, str],
    moved: frozenset[str],
) -> tuple[text.TableChange | None, TableState]:
    chains, write = {}, {}
    for name, rules in wanted.chains.get(table, {}).items():
        old = state.chains.get(name)
        if old is not None and (old.rules is rules or old.rules == rules) and not (moved and _name(rules, moved)):
            chains[name] = old
            continue
        texts = tuple(text.rule_text(rule, live) for rule in rules)
        chains[name] = Chain(comments=tuple(text.comment_of(line) or "" for line in texts), rules=rules)
        if old is None or old.comments != chains[name].comments:
            write[name] = texts
    unwanted = state.chains.keys() - chains.keys()
    write |= {name: () for name in unwanted & state.pinned if state.chains[name].comments}
    chains |= {name: Chain(comments=()) for name in unwanted & state.pinned}
    jumps = wanted.jumps.get(table, ())
    insert, delete = _jumps(state.jumps, jumps)
    remove = tuple(sorted(unwanted - state.pinned))
    result = TableState(chains=chains, jumps=_placed(jumps), pinned=state.pinned)
    if not (write or remove or insert or delete):
        return None, result
    return text.TableChange(write=write, remove=remove, insert=insert, delete=delete), result


def _name(rules: Sequence[ruleset.Rule], sets: frozenset[str]) -> bool:
    """Tell whether rules name any of these sets."""
    return any(not sets.isdisjoint(rule.sets) for rule in rules)


def _placed(jumps: Sequence[ruleset.Jump]) -> tuple[Placed, ...]:
    """Return jumps with their places, each built-in chain counted on its own."""
    places: dict[str, int] = {}
    placed = []
    for jump in jumps:
        placed.append(Placed(jump, places.get(jump.builtin, 0)))
        places[jump.builtin] = places.get(jump.builtin, 0) + 1
    return tuple(placed)


def _jumps(
    found: Sequence[Placed], wanted: Sequence[ruleset.Jump]
) -> tuple[tuple[ruleset.Jump, ...], tuple[ruleset.Jump, ...]]:
    """Return the jumps to insert and to delete, built-in chain by built-in chain: all of one that is not as wanted."""
    target = _placed(wanted)
    insert: list[ruleset.Jump] = []
    delete: list[ruleset.Jump] = []
    for builtin in sorted({placed.jump.builtin for placed in (*found, *target)}):
        here = [placed for placed in found if placed.jump.builtin == builtin]
        there = [placed for placed in target if placed.jump.builtin == builtin]
        if here != there:
            delete += [placed.jump for placed in here]
            insert += [placed.jump for placed in reversed(there)]
    return tuple(insert), tuple(delete)


def _sets_afterwards(
    realized: Realized, wanted: ruleset.Ruleset, live: Mapping[str, str], moved: frozenset[str]
) -> tuple[Mapping[str, Mapping[str, Version]], tuple[str, ...]]:
    """Return all versions as they will be, and those to destroy: of unwanted sets, and a third one of wanted sets."""
    sets: dict[str, Mapping[str, Version]] = {}
    destroy = []
    for name, content in wanted.sets.items():
        versions, letter = realized.sets.get(name, {}), live[name]
        if name not in moved and versions[letter].members is content.members and LETTERS[-1] not in versions:
            sets[name] = versions
            continue
        now = Version(kind=content.kind.value, members=content.members, referred=True)
        sets[name] = {**_unnamed(versions, realized.live.get(name)), letter: now}
        destroy += [text.set_name(name, other) for other in versions if other not in {letter, *text.VERSIONS}]
    for name in realized.sets.keys() - wanted.sets.keys():
        sets[name] = _unnamed(realized.sets[name], realized.live.get(name))
        destroy += [text.set_name(name, letter) for letter in sets[name]]
    return sets, tuple(sorted(destroy))


def _unnamed(versions: Mapping[str, Version], letter: str | None) -> Mapping[str, Version]:
    """Return versions with the one that rules have turned away from as free."""
    if letter is None or letter not in versions:
        return versions
    return {**versions, letter: dataclasses.replace(versions[letter], referred=False)}


def without(realized: Realized, destroyed: frozenset[str]) -> Realized:
    """Return the same less versions (named as in the kernel) that are gone."""
    sets = {
        name: {letter: version for letter, version in versions.items() if text.set_name(name, letter) not in destroyed}
        for name, versions in realized.sets.items()
    }
    return dataclasses.replace(realized, sets={name: versions for name, versions in sets.items() if versions})


def distrusting(realized: Realized, written: Iterable[SetWrite]) -> Realized:
    """Return the same with nothing known of what has perhaps been written."""
    names = {write.name for write in written}
    sets = {
        name: {
            letter: dataclasses.replace(version, members=None) if text.set_name(name, letter) in names else version
            for letter, version in versions.items()
        }
        for name, versions in realized.sets.items()
    }
    return dataclasses.replace(realized, sets=sets)


def with_references(realized: Realized, referred: frozenset[str]) -> Realized:
    """Return the same with what the kernel says of references: the names of versions that rules name."""
    sets = {
        name: {
            letter: dataclasses.replace(version, referred=text.set_name(name, letter) in referred)
            for letter, version in versions.items()
        }
        for name, versions in realized.sets.items()
    }
    return dataclasses.replace(realized, sets=sets)
