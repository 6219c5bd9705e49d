"""Names change without one being missed: what counts goes on to be learned until what comes after it counts."""

from __future__ import annotations

import hypothesis
from hypothesis import strategies as st

from agent.datapath.bpf import fqdn_layout, fqdn_plan
from agent.fqdn import classes, dfa, patterns, trie
from tests.fqdn import naming

OLD, NEW = 0, 1
SUFFIXES = st.lists(naming.PATTERNS, max_size=6).map(
    lambda found: classes.build([[one for one in found if trie.suffix(one) is not None]])
)


def build(*texts: str) -> classes.Classes:
    return classes.build([map(patterns.parse_cilium_pattern, texts)])


def rows_of(slot: int, have: dict[bytes, fqdn_plan.Pair]) -> dict[bytes, fqdn_plan.Row]:
    return {key: pair[slot] for key, pair in have.items()}


def said(table: dict[bytes, fqdn_plan.Row], name: str) -> int:
    return trie.find(table, trie.key(name)) or classes.NONE


@naming.SPARING
@hypothesis.given(SUFFIXES, SUFFIXES, naming.NAMES, st.integers(0, 1))
def test_each_slot_says_what_its_policy_says_whatever_rows_the_other_has(
    old: classes.Classes, new: classes.Classes, name: str, idle: int
) -> None:
    """Also for those rows that only one of them has."""
    have = fqdn_plan.at_rest(old.rows)
    staged = fqdn_plan.staged(have, new.rows, idle=idle)
    assert said(rows_of(1 - idle, staged), name) == said(dict(old.rows), name)
    assert said(rows_of(idle, staged), name) == said(dict(new.rows), name)


@naming.SPARING
@hypothesis.given(SUFFIXES, SUFFIXES, naming.NAMES, st.integers(0, 1), st.data())
def test_what_counts_says_the_same_after_each_row_that_is_written(
    old: classes.Classes, new: classes.Classes, name: str, idle: int, data: st.DataObject
) -> None:
    """And after each row that is written or deleted once the new one counts."""
    now = fqdn_plan.at_rest(old.rows)
    staged = fqdn_plan.staged(now, new.rows, idle=idle)
    for key in data.draw(st.permutations(sorted(fqdn_plan.missing(now, staged)))):
        now[key] = staged[key]
        assert said(rows_of(1 - idle, now), name) == said(dict(old.rows), name)
    assert now == staged
    rest = fqdn_plan.at_rest(new.rows)
    for key, pair in fqdn_plan.missing(staged, rest).items():
        now[key] = pair
        assert said(rows_of(idle, now), name) == said(dict(new.rows), name)
    for key in data.draw(st.permutations(sorted(staged.keys() - rest.keys()))):
        del now[key]
        assert said(rows_of(idle, now), name) == said(dict(new.rows), name)
    assert now == rest


@naming.SPARING
@hypothesis.given(SUFFIXES, SUFFIXES, SUFFIXES, naming.NAMES)
def test_a_plan_that_was_given_up_halfway_changes_nothing_for_the_next(
    old: classes.Classes, given_up: classes.Classes, new: classes.Classes, name: str
) -> None:
    halfway = fqdn_plan.staged(fqdn_plan.at_rest(old.rows), given_up.rows, idle=NEW)
    staged = fqdn_plan.staged(halfway, new.rows, idle=NEW)
    assert said(rows_of(OLD, staged), name) == said(dict(old.rows), name)
    assert said(rows_of(NEW, staged), name) == said(dict(new.rows), name)


@naming.SPARING
@hypothesis.given(SUFFIXES, SUFFIXES)
def test_rows_are_written_as_the_kernel_reads_them_and_read_back(old: classes.Classes, new: classes.Classes) -> None:
    for key, pair in fqdn_plan.staged(fqdn_plan.at_rest(old.rows), new.rows, idle=NEW).items():
        assert fqdn_layout.decode_key(fqdn_layout.encode_key(key)) == key
        assert fqdn_layout.decode_pair(fqdn_layout.encode_pair(pair)) == pair


def test_a_key_is_that_of_its_name() -> None:
    assert fqdn_layout.encode_key(trie.key("api.example.com")) == fqdn_layout.encode_name_key("api.example.com")


@naming.SPARING
@hypothesis.given(SUFFIXES, SUFFIXES, naming.NAMES, st.integers(0, 1))
def test_a_name_that_is_of_another_class_than_before_has_to_be_learned_anew(
    old: classes.Classes, new: classes.Classes, name: str, idle: int
) -> None:
    """Requirement F26."""
    unheard = fqdn_plan.unheard(fqdn_plan.staged(fqdn_plan.at_rest(old.rows), new.rows, idle=idle), idle=idle)
    before, after = said(dict(old.rows), name), said(dict(new.rows), name)
    assert after in {before, classes.NONE} or after in unheard
    assert unheard <= set(new.contents)


def test_a_class_that_others_have_is_new_to_the_name_that_gets_it() -> None:
    """Requirement F26: a rule that goes leaves its names with the class that those beside it have all along."""
    more, less = build("**.example.com", "*.a.example.com"), build("**.example.com")
    merged = fqdn_plan.staged(fqdn_plan.at_rest(more.rows), less.rows, idle=NEW)
    assert fqdn_plan.unheard(merged, idle=NEW) == set(less.contents)
    assert less.contents.keys() < more.contents.keys()


def test_nothing_is_new_where_rows_are_the_same() -> None:
    names = build("**.example.com", "*.a.example.com")
    merged = fqdn_plan.staged(fqdn_plan.at_rest(names.rows), names.rows, idle=NEW)
    assert not fqdn_plan.unheard(merged, idle=NEW)


def test_automata_take_the_half_that_does_not_count() -> None:
    one = build("a*b.example.com").automaton
    first = fqdn_plan.start_of(one, live=fqdn_plan.NO_AUTOMATON)
    second = fqdn_plan.start_of(one, live=first)
    assert {first, second} == {dfa.START, dfa.STATES_MAX + dfa.START}
    assert fqdn_plan.start_of(one, live=second) == first
    assert fqdn_plan.start_of(dfa.Dfa(), live=first) == fqdn_plan.NO_AUTOMATON


def test_a_shifted_automaton_accepts_the_same_and_never_leaves_its_half() -> None:
    found = build("a*b.example.com", "*.s3.*.example.com").automaton
    start = dfa.STATES_MAX + dfa.START
    states = fqdn_plan.shifted(found, start)
    offset = start - dfa.START
    for name in ("axb.example.com", "ab.example.com", "x.s3.y.example.com", "x.example.com"):
        at = start
        for byte in trie.key(name):
            at = states[at - offset].next[dfa.ALPHABET.index(byte)] if at else dfa.DEAD
        assert (states[at - offset].accept if at else classes.NONE) == found.run(trie.key(name))
    assert all(at == dfa.DEAD or at >= offset for state in states for at in state.next)
