"""What the kernel holds of ours, from the text of iptables-save and the headers of sets.

The problem: others write to the same tables, and two tools of five releases print one rule in several ways. The rule:
nothing is compared but what is written the same by all: names of chains, the comment that each rule of ours carries,
and where our jumps stand in built-in chains. `parse` is pure.
"""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from collections.abc import Mapping

from agent.datapath.iptables import changes, prefix, ruleset, sets, text

BUILTIN = frozenset({"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"})
_TARGETS = frozenset({"-j", "-g"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """One table as it was read."""

    state: changes.TableState
    foreign: tuple[str, ...] = ()
    """Other rules that go to our chains and are no plain jumps of ours; what stands after -A."""
    generation: int | None = None
    """The newest one named in a log rule."""


def parse(saved: str, known: changes.TableState | None = None) -> Saved:
    """Read what iptables-save printed of one table; chains as `known` has them keep what they were written from."""
    chains: dict[str, list[str]] = {}
    jumps: list[changes.Placed] = []
    foreign: list[str] = []
    places: dict[str, int] = {}
    generation = None
    for line in saved.splitlines():
        if line.startswith(f":{ruleset.CHAIN_PREFIX}"):
            chains[line[1:].split(" ", 1)[0]] = []
        elif line.startswith(f"-A {ruleset.CHAIN_PREFIX}"):
            chains[line.split(" ", 2)[1]].append(text.comment_of(line) or "")
            generation = _generation(line, generation)
        elif line.startswith("-A "):
            chain, _, rule = line.removeprefix("-A ").partition(" ")
            place = places[chain] = places.get(chain, -1) + 1
            if target := _target(rule):
                jump = ruleset.Jump(builtin=chain, chain=target)
                if chain in BUILTIN and rule.rstrip() == text.jump_text(jump):
                    jumps.append(changes.Placed(jump, place))
                else:
                    foreign.append(f"{chain} {rule}")
    pinned = frozenset(map(_target, foreign))
    state = changes.TableState(
        chains=_chains(chains, known), jumps=tuple(jumps), pinned=frozenset(pinned & chains.keys())
    )
    return Saved(state=state, foreign=tuple(foreign), generation=generation)


def versions(
    headers: Mapping[str, sets.Header], known: changes.Realized | None = None
) -> tuple[dict[str, dict[str, changes.Version]], dict[str, str]]:
    """Return sets and live versions: contents stay known where `known` has them and the count of members is right."""
    found: dict[str, dict[str, changes.Version]] = {}
    for kernel_name, header in headers.items():
        name, letter = kernel_name[:-1], kernel_name[-1]
        if letter not in changes.LETTERS:
            continue
        old = known.sets.get(name, {}).get(letter) if known else None
        trusted = old is not None and old.members is not None and len(old.members) == header.elements
        found.setdefault(name, {})[letter] = changes.Version(
            kind=header.kind,
            members=old.members if old is not None and trusted and old.kind == header.kind else None,
            referred=header.references > 0,
        )
    live = known.live if known else {}
    return found, {name: letter for name, letter in live.items() if letter in found.get(name, {})}


def _chains(chains: Mapping[str, list[str]], known: changes.TableState | None) -> dict[str, changes.Chain]:
    before = known.chains if known else {}
    read = {}
    for name, comments in chains.items():
        old = before.get(name)
        unchanged = old is not None and list(old.comments) == comments and "" not in comments
        read[name] = old if old is not None and unchanged else changes.Chain(comments=tuple(comments))
    return read


def _target(rule: str) -> str:
    """Return the chain of ours a rule goes to, or ""."""
    if ruleset.CHAIN_PREFIX not in rule:
        return ""
    words = shlex.split(rule)
    targets = (word for option, word in itertools.pairwise(words) if option in _TARGETS)
    return next((word for word in targets if word.startswith(ruleset.CHAIN_PREFIX)), "")


def _generation(line: str, newest: int | None) -> int | None:
    _, found, rest = line.partition("--nflog-prefix ")
    if not found:
        return newest
    parsed = prefix.parse(shlex.split(rest)[0].rstrip())
    if parsed is None:
        return newest
    return parsed.generation if newest is None else max(newest, parsed.generation)
