"""A Ruleset from what the kernel holds: the text of iptables-save, and sets read when they are asked for.

The problem: rules come back with comments, quotes and versions of sets in them. The rule: what is ours and only that is
taken over, word by word, without the comment, which names what was written and not what is there; a set's version is
taken off its name, so that what was read can be laid beside what was rendered. Pure but for the reading of sets, which
is the caller's.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping

from agent.datapath.iptables import names_pairs, ruleset, text
from agent.model import net

COMMENT = ("-m", "comment", "--comment")


class LazySets(Mapping[str, ruleset.SetContent]):
    """Sets by the names rules have for them; each is read once, when somebody asks."""

    def __init__(self, versions: Mapping[str, str], read: Callable[[str], ruleset.SetContent | None]) -> None:
        """`versions` gives the kernel's name of each."""
        self._versions, self._read = versions, read
        self._known: dict[str, ruleset.SetContent | None] = {}

    def __getitem__(self, name: str) -> ruleset.SetContent:
        """Return a set. Raises KeyError where the kernel has none of that name."""
        if name not in self._known:
            self._known[name] = self._read(self._versions[name])
        found = self._known[name]
        if found is None:
            raise KeyError(name)
        return found

    def __contains__(self, name: object) -> bool:
        """Tell whether the kernel has the set."""
        try:
            return isinstance(name, str) and self[name] is not None
        except KeyError:
            return False

    def __iter__(self) -> Iterator[str]:
        """Yield the names that rules have."""
        return iter(self._versions)

    def __len__(self) -> int:
        """Count them."""
        return len(self._versions)


def rules(
    saved: Mapping[ruleset.Table, str],
    jumps: Mapping[ruleset.Table, tuple[ruleset.Jump, ...]],
    family: net.Family,
    read: Callable[[str], ruleset.SetContent | None],
) -> ruleset.Ruleset:
    """Return what is ours in `saved`, the text of each table, and in built-in chains `jumps`.

    `read` reads a set by the kernel's name of it.
    """
    versions: dict[str, str] = {}
    chains: dict[ruleset.Table, dict[str, tuple[ruleset.Rule, ...]]] = {}
    for table, content in saved.items():
        found: dict[str, list[ruleset.Rule]] = {}
        for line in content.splitlines():
            if line.startswith(f":{ruleset.CHAIN_PREFIX}"):
                found[line[1:].split(" ", 1)[0]] = []
            elif line.startswith(f"-A {ruleset.CHAIN_PREFIX}"):
                _, chain, words = line.split(" ", 2)
                found[chain].append(rule(words, versions))
        chains[table] = {chain: tuple(each) for chain, each in found.items()}
    return ruleset.Ruleset(family=family, chains=chains, jumps=jumps, sets=LazySets(versions, read))


def rule(line: str, versions: dict[str, str]) -> ruleset.Rule:
    """Read what stands after `-A CHAIN`; notes the version of each set of ours in `versions`."""
    words = shlex.split(line)
    for place in range(len(words) - len(COMMENT)):
        ours = words[place + len(COMMENT)].startswith(text.COMMENT_PREFIX)
        if ours and tuple(words[place : place + len(COMMENT)]) == COMMENT:
            del words[place : place + len(COMMENT) + 1]
            break
    named = []
    for place, word in enumerate(words):
        if place and words[place - 1] == "--match-set" and word.startswith(ruleset.SET_PREFIX):
            name = word[:-1] if word[-1] in text.VERSIONS else word
            if versions.setdefault(name, word) != word:
                name = word  # two rules ask two versions: then each is a set of its own
                versions[name] = word
            words[place] = name
            if names_pairs.pair_of(name) is None:  # these have no versions, and rules name them outright
                named.append(name)
    return ruleset.Rule(tuple(words), tuple(named))
