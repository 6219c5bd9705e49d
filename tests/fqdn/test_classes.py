"""Classes: what trie and automaton say together is what the obvious matcher says, and numbers are of content alone."""

from __future__ import annotations

import random
import time
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.fqdn import classes, dfa, patterns, trie
from agent.model import fqdn, identity
from tests.fqdn import naming

CHOSEN = st.frozensets(naming.PATTERNS, max_size=8)


def cilium(*texts: str) -> list[fqdn.NamePattern]:
    return list(map(patterns.parse_cilium_pattern, texts))


@naming.SPARING
@given(CHOSEN, st.one_of(naming.NAMES, naming.HOSTILE))
def test_a_name_has_the_classes_of_the_patterns_that_match_it(chosen: frozenset[fqdn.NamePattern], name: str) -> None:
    """Requirements F1, F2, F3: both dialects mixed, names as hostile as bytes can be."""
    built = classes.build([chosen])
    expected = {pattern for pattern in chosen if patterns.matches(pattern, name)}
    assert built.patterns_of(name) == expected
    assert not built.refused
    found = built.of(name)
    assert len(found) == len(set(found)) <= 2
    assert bool(found) == bool(expected)


@naming.SPARING
@given(st.lists(CHOSEN, max_size=3), st.randoms(use_true_random=False))
def test_groups_and_their_order_do_not_matter_where_all_fit(
    groups: list[frozenset[fqdn.NamePattern]], chance: random.Random
) -> None:
    shuffled = chance.sample(groups, len(groups))
    assert (
        classes.build(groups) == classes.build([*shuffled, frozenset()]) == classes.build([frozenset().union(*groups)])
    )


@naming.SPARING
@given(st.frozensets(naming.PATTERNS, min_size=1, max_size=8))
def test_every_class_a_name_can_have_is_known_before(chosen: frozenset[fqdn.NamePattern]) -> None:
    """Requirement F2: nothing is worked out when a name comes."""
    built = classes.build([chosen])
    kernel = {value for row in built.rows.values() for value in (row.exact, row.one_label, row.more_labels)}
    kernel |= {state.accept for state in built.automaton.states}
    assert kernel - {classes.NONE} == set(built.contents)
    assert len(set(built.contents.values())) == len(built.contents)
    assert all(identity.FIRST_NAME_CLASS <= number < 1 << 32 for number in built.contents)
    assert all(built.contents.values())


def test_a_class_keeps_its_number_while_policies_of_other_names_come_and_go() -> None:
    """Requirement F17: what the kernel learned before stays true."""
    here = cilium("api.example.com", "*.example.com", "a*z.example.org")
    alone = classes.build([here])
    beside = classes.build([here, cilium("*.example.net", "b*.example.net", "**.x")])
    for name in ("api.example.com", "www.example.com", "abcz.example.org"):
        assert alone.of(name) == beside.of(name) != ()


def test_a_name_of_both_kinds_has_two_classes() -> None:
    """Requirements F2, F3: the trie's and the automaton's."""
    infix, suffix = cilium("a*.example.com", "*.example.com")
    built = classes.build([[infix], [suffix]])
    assert [built.contents[number] for number in built.of("api.example.com")] == [{suffix}, {infix}]
    assert [built.contents[number] for number in built.of("www.example.com")] == [{suffix}]


def test_names_that_the_same_patterns_match_share_a_class() -> None:
    built = classes.build([cilium("*.example.com", "**.example.com", "*")])
    assert built.of("a.example.com") == built.of("b.example.com")
    assert built.of("a.b.example.com") == built.of("c.d.e.example.com")
    assert built.of("example.com") == built.of("anything") == built.of(".") == built.of("")
    assert len({built.of(name) for name in ("a.example.com", "a.b.example.com", "anything")}) == 3


def test_without_patterns_no_name_has_a_class() -> None:
    assert classes.build([]) == classes.Classes()
    assert classes.Classes().of("a.com") == ()


def test_a_group_that_cannot_be_built_alone_is_refused_and_closes_nothing_else() -> None:
    """Requirement F4: a reason for each pattern that matches nothing, and other policies as they were."""
    chance = random.Random(6)
    explosive = cilium(*(f"*{naming.word(chance)}*.y.com" for _ in range(10)))
    mixed = naming.mixed_infixes(chance, 300)
    tame = cilium("a*.example.com", "*.s3.*.amazonaws.com", "*.y.com")
    built = classes.build([explosive, tame, [*mixed, *cilium("exact.com")]])
    assert set(built.refused) == {*explosive, *mixed}
    assert {reason.split(";")[0] for reason in built.refused.values()} == {
        "the automaton for patterns with a * inside would take more than 2048 states"
    }
    for name in ("abc.example.com", "b.s3.eu.amazonaws.com", "exact.com", "x.y.com"):
        assert built.of(name)
    assert not built.patterns_of(explosive[0].text.replace("*", "")) & set(explosive)


def test_where_not_all_fit_those_that_take_less_room_go_first() -> None:
    """Requirement F4: whatever the order of policies; a pattern that an accepted policy has, too, is accepted."""
    chance = random.Random(7)
    small, middle, large = (naming.mixed_infixes(chance, count) for count in (5, 50, 60))
    shared = [*large, small[0]]
    built = classes.build([shared, middle, small])
    assert built == classes.build([small, shared, middle])
    assert set(built.refused) == set(large)
    (reason,) = set(built.refused.values())
    assert reason.startswith("the automaton for patterns with a * inside is full of those of policies that take less")
    accepted = {each for state in built.automaton.states for each in built.contents.get(state.accept, ())}
    assert accepted == {*small, *middle}


def test_equal_groups_of_many_policies_take_the_room_of_one() -> None:
    """Requirement F4: one policy in a hundred namespaces."""
    chosen = naming.mixed_infixes(random.Random(8), 30)
    assert classes.build([chosen] * 100) == classes.build([chosen])


def test_classes_are_built_again_only_for_other_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requirement F22: pods come and go far more often than patterns do."""
    built: list[classes.Classes] = []
    build = classes.build

    def counted(groups: Iterable[Iterable[fqdn.NamePattern]]) -> classes.Classes:
        built.append(build(groups))
        return built[-1]

    monkeypatch.setattr(classes, "build", counted)
    known = classes.Remembered()
    one, other = cilium("a.example", "*.b.example"), cilium("c*.example")
    assert known.build([one, other]) is known.build(iter([other, one, one])) is built[0]
    assert known.build([one]) == build([one])
    assert known.build([]) == classes.Classes()
    assert len(built) == 3


def test_trying_groups_one_by_one_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requirement F4: policies made to be too large cannot hold the agent up, nor close one that is small."""
    monkeypatch.setattr(classes, "WORK_IN_ALL", 100_000)
    chance = random.Random(9)
    explosive = [cilium(*(f"*{naming.word(chance)}*.y{number}.com" for _ in range(10))) for number in range(4)]
    small = cilium("a*.example.com")
    built = classes.build([*explosive, small])
    assert built.of("ab.example.com")
    assert sum("too many steps" in reason for reason in built.refused.values()) == 20
    assert len(built.refused) == 40


def test_twenty_thousand_patterns_are_built_in_time() -> None:
    """Requirement F22: 10,000 exact names and 10,000 suffixes in less than two seconds of a core."""
    chosen = naming.many(random.Random(10), 10_000)
    begin = time.process_time()
    built = classes.build([chosen])
    assert time.process_time() - begin < 2
    assert len(built.rows) >= 19_000
    assert isinstance(built.automaton, dfa.Dfa)
    assert all(built.of(pattern.text.replace("*", "x")) for pattern in chosen[::1000])
    assert all(len(at) <= trie.KEY_MAX for at in built.rows)
