"""Names into tables: 20,000 rules, patterns with a star inside, a thousand endpoints' answers, and one name's classes.

The baseline of a look-up is the obvious matcher over all patterns, which must say the same. Nothing here waits, so what
is measured is the time of a core, whoever else is busy.
"""

from __future__ import annotations

import ipaddress
import random
import time
from collections.abc import Callable, Sequence

from agent.fqdn import classes, dfa, history, patterns
from agent.model import fqdn
from tests.bench import figures
from tests.fqdn import naming

RULES = 10_000
INFIXES = 60
ENDPOINTS, NAMES, ADDRESSES = 100, 50, 4
ASKED = 200
ROUNDS = 5


def run() -> list[figures.Figure]:
    """Build, look up, replay."""
    chance = random.Random(1)
    chosen = naming.many(chance, RULES)
    infixes = naming.mixed_infixes(chance, INFIXES)
    built = classes.build([chosen, infixes])
    assert not built.refused
    asked = _asked(chance, [*chosen, *infixes])
    return [
        figures.Figure(
            name="classes of 10k names and 10k suffixes",
            value=_median_ms(lambda: classes.build([chosen])),
            unit="ms",
            note=f"{len(built.rows)} rows, {len(built.contents)} classes",
        ),
        figures.Figure(
            name=f"automaton of {INFIXES} patterns",
            value=_median_ms(lambda: dfa.build(infixes)),
            unit="ms",
            note=f"{len(built.automaton.states)} states, {built.automaton.work} steps",
        ),
        _refusal("300 mixed patterns, refused", naming.mixed_infixes(chance, 300)),
        _refusal("10 substrings of one zone, refused", _substrings(chance, 10)),
        _look_up(built, [*chosen, *infixes], asked),
        _replay(chance, built, chosen),
    ]


def _median_ms(work: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        took.append((time.process_time() - begin) * 1000)
    return figures.median(took)


def _asked(chance: random.Random, chosen: Sequence[fqdn.NamePattern]) -> list[str]:
    matching = [pattern.text.replace("*", naming.word(chance)) for pattern in chance.sample(chosen, ASKED // 2)]
    return matching + [f"{naming.word(chance)}.{naming.word(chance)}.com" for _ in range(ASKED // 2)]


def _substrings(chance: random.Random, count: int) -> list[fqdn.NamePattern]:
    return [patterns.parse_cilium_pattern(f"*{naming.word(chance)}*.y.com") for _ in range(count)]


def _refusal(name: str, chosen: Sequence[fqdn.NamePattern]) -> figures.Figure:
    found = dfa.build(chosen)
    assert isinstance(found, dfa.TooLarge)
    return figures.Figure(name=name, value=_median_ms(lambda: dfa.build(chosen)), unit="ms", note=f"{found.work} steps")


def _look_up(built: classes.Classes, chosen: Sequence[fqdn.NamePattern], asked: Sequence[str]) -> figures.Figure:
    begin = time.process_time()
    found = [built.patterns_of(name) for name in asked]
    fast = (time.process_time() - begin) / len(asked) * 1e6
    begin = time.process_time()
    naive = [{pattern for pattern in chosen if patterns.matches(pattern, name)} for name in asked[:: ASKED // 10]]
    slow = (time.process_time() - begin) / len(naive) * 1e6
    assert found[:: ASKED // 10] == naive, "the tables and the matcher disagree"
    matched = sum(map(bool, found))
    return figures.Figure(
        name="classes of a name", value=fast, unit="us", baseline=slow, note=f"{matched} of {len(asked)} matched; equal"
    )


def _replay(chance: random.Random, built: classes.Classes, chosen: Sequence[fqdn.NamePattern]) -> figures.Figure:
    past = history.History(history.Lifetimes())
    for endpoint in range(ENDPOINTS):
        for pattern in chance.sample(chosen, NAMES):
            addresses = tuple((ipaddress.ip_address(chance.randrange(1 << 32)), 60) for _ in range(ADDRESSES))
            name = pattern.text.replace("*", "www")
            past.learn(fqdn.Answered(endpoint=endpoint, name=name, addresses=addresses, at_ns=0))
    replayed = history.replay(past.remembered(), built, now_ns=0)
    took = _median_ms(lambda: history.replay(past.remembered(), built, now_ns=0))
    return figures.Figure(
        name=f"replay of {ENDPOINTS} endpoints", value=took, unit="ms", note=f"{len(replayed)} addresses learned"
    )
