"""Rules and transactions as the text that `iptables-restore --noflush` takes.

The problem: what is in force must be comparable with what was meant, through tools of five releases and two variants.
The rule: words stand as iptables-save prints them, and every rule carries a digest of itself as a comment, so that a
rule somebody changed, dropped or added is found by its comment alone. One transaction rewrites whole chains: declaring
a chain that exists empties it, and a table's COMMIT puts everything in force at once.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from agent.datapath.iptables import ruleset

VERSIONS = ("a", "b")
"""The two versions of a set: one that rules refer to, one that the next change is made in."""
COMMENT_PREFIX = "nw:"
"""What the comment of every rule of ours begins with; eight hexadecimal digits follow."""
_ENDS = ("-j", "-g")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableChange:
    """What one transaction does to one table."""

    write: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=lambda: MappingProxyType({}))
    """Chain -> all its rules, as `rule_text` makes them; the chain is made if it is not there."""
    remove: tuple[str, ...] = ()
    """Chains that shall go; that one is not there is no error."""
    insert: tuple[ruleset.Jump, ...] = ()
    """Jumps to put first in their built-in chains; of one built-in chain the last one named comes first."""
    delete: tuple[ruleset.Jump, ...] = ()
    """Jumps to take out once, before any is put in; that one is not there is an error of the whole transaction."""


def set_name(name: str, version: str) -> str:
    """Return the kernel's name of one version of a set."""
    return name + version


def rule_text(rule: ruleset.Rule, versions: Mapping[str, str]) -> str:
    """Write the words after `-A CHAIN`, comment included; `versions` gives the version in force of each set."""
    words = [set_name(word, versions[word]) if word in rule.sets else word for word in rule.words]
    place = next(index for index, word in enumerate(words) if word in _ENDS)
    comment = ["-m", "comment", "--comment", f'"{COMMENT_PREFIX}{_digest(words)}"']
    written = [f'"{word}"' if " " in word else word for word in words]
    return " ".join((*written[:place], *comment, *written[place:]))


def jump_text(jump: ruleset.Jump) -> str:
    """Write the words after `-A BUILTIN` of a jump; without a comment, it can be deleted by what it says."""
    return f"-j {jump.chain}"


def comment_of(text: str) -> str | None:
    """Return the eight digits in the comment of a rule, as `rule_text` or iptables-save wrote it; None: not ours."""
    _, found, rest = text.replace('"', "").partition(f"--comment {COMMENT_PREFIX}")
    digest = rest.split(" ", 1)[0]
    return digest if found else None


def transaction(changes: Mapping[ruleset.Table, TableChange]) -> str:
    """Write the restore text of all tables, in the order in which they are to be committed."""
    return "".join(line + "\n" for table in ruleset.Table if table in changes for line in _table(table, changes[table]))


def _table(table: ruleset.Table, change: TableChange) -> Iterator[str]:
    yield f"*{table.value}"
    yield from (f":{chain} - [0:0]" for chain in (*change.write, *change.remove))
    yield from (f"-A {chain} {text}" for chain, rules in change.write.items() for text in rules)
    yield from (f"-D {jump.builtin} {jump_text(jump)}" for jump in change.delete)
    yield from (f"-I {jump.builtin} 1 {jump_text(jump)}" for jump in change.insert)
    yield from (f"-X {chain}" for chain in change.remove)
    yield "COMMIT"


def _digest(words: list[str]) -> str:
    return hashlib.blake2b("\0".join(words).encode(), digest_size=4).hexdigest()
