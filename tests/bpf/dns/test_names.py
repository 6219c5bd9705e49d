"""Which class a name has: rows of the trie and states of an automaton, as the kernel reads them."""

from __future__ import annotations

import ipaddress

import pytest

from agent.datapath.bpf import fqdn_layout
from tests.bpf.dns import rig, wire

pytestmark = pytest.mark.root

ONE = ipaddress.ip_address("203.0.113.7")
EXACT, LABEL, LABELS, BELOW, OTHER = (0x80000010 + index for index in range(5))
LONGEST = ".".join(["a" * 63] * 3 + ["b" * 57, "net"])
"""253 characters: the longest name there is."""


def classes(learner: rig.Learner, name: str) -> set[int]:
    """Return what an address is learned as under a name."""
    learner.fqdn.forget(rig.ENDPOINT)
    learner.exchange(wire.answer(name, wire.address(ONE)))
    return {one.class_ for one in learner.learned()}


@pytest.mark.parametrize(
    ("name", "class_"),
    [
        ("example.net", EXACT),
        ("EXAMPLE.net", EXACT),
        ("a.example.net", LABEL),
        ("a.b.example.net", LABELS),
        ("a.b.c.d.example.net", LABELS),
        ("b.example.net", BELOW),
        ("xexample.net", None),
        ("example.net.evil.org", None),
        ("net", None),
        ("example.ne", None),
        ("ample.net", None),
    ],
)
def test_a_row_holds_for_its_name_one_more_label_or_more(learner: rig.Learner, name: str, class_: int | None) -> None:
    """F1, F2: what a star means is in the row."""
    learner.know("example.net", exact=EXACT, one=LABEL, more=LABELS)
    learner.know("b.example.net", exact=BELOW, one=LABELS, more=LABELS)
    assert classes(learner, name) == ({class_} if class_ else set())


def test_a_longer_row_counts_and_not_what_it_lies_below(learner: rig.Learner) -> None:
    learner.know("example.net", one=LABEL, more=LABELS)
    learner.know("b.example.net", one=BELOW)
    assert classes(learner, "x.b.example.net") == {BELOW}
    assert classes(learner, "y.x.b.example.net") == set()


def test_one_row_may_hold_for_every_name(learner: rig.Learner) -> None:
    """F3: a star alone."""
    learner.know("", one=LABEL, more=LABELS)
    assert classes(learner, "net") == {LABEL}
    assert classes(learner, LONGEST) == {LABELS}
    assert classes(learner, rig.NAME) == {rig.API}


def test_the_longest_name_is_read_whole(learner: rig.Learner) -> None:
    learner.know(LONGEST, exact=EXACT)
    assert classes(learner, LONGEST) == {EXACT}
    assert classes(learner, "b" + LONGEST[1:]) == set()


def test_both_slots_count_so_that_no_flip_falls_between(learner: rig.Learner) -> None:
    old, new = fqdn_layout.Classes(exact=EXACT), fqdn_layout.Classes(exact=OTHER)
    key = fqdn_layout.encode_name_key("example.net")
    learner.fqdn.write_names({key: fqdn_layout.encode_name_value((old, new), labels=2)})
    assert classes(learner, "example.net") == {EXACT, OTHER}


def _automaton(text: str, first: int, class_: int) -> list[fqdn_layout.DfaState]:
    """Build one that accepts `text`, in which a star stands for any characters but the dot; no way back."""
    parts: list[str] = f"{text[::-1]}.".split("*")
    states: list[fqdn_layout.DfaState] = []
    for index, part in enumerate(parts):
        loops = index > 0
        for character in part:
            at = first + len(states)
            following = [at if loops and symbol != "." else 0 for symbol in fqdn_layout.ALPHABET]
            following[fqdn_layout.ALPHABET.index(character)] = at + 1
            states.append(fqdn_layout.DfaState(following=tuple(following)))
            loops = False
    states.append(fqdn_layout.DfaState(following=(0,) * len(fqdn_layout.ALPHABET), class_=class_))
    return states


def test_an_automaton_knows_stars_inside_labels(learner: rig.Learner) -> None:
    """F3."""
    learner.fqdn.write_states(1, _automaton("s3.eu-*-1.aws.com", 1, OTHER))
    learner.fqdn.store_automaton(0, 1)
    assert classes(learner, "s3.eu-west-1.aws.com") == {OTHER}
    assert classes(learner, "S3.EU-west_9-1.AWS.com") == {OTHER}
    assert classes(learner, "s3.eu-west.x-1.aws.com") == set()
    assert classes(learner, "s3.eu-west-1.aws.com.evil.org") == set()
    assert classes(learner, "s3.eu-west-1.aws.co") == set()


def test_the_automata_of_both_slots_and_the_trie_are_taken_together(learner: rig.Learner) -> None:
    learner.know("example.net", one=LABEL)
    learner.fqdn.write_states(1, _automaton("a*z.example.net", 1, EXACT))
    learner.fqdn.write_states(2048, _automaton("ab*.example.net", 2048, OTHER))
    learner.fqdn.store_automaton(0, 1)
    learner.fqdn.store_automaton(1, 2048)
    assert classes(learner, "abcz.example.net") == {LABEL, EXACT, OTHER}
    assert classes(learner, "ab-9.example.net") == {LABEL, OTHER}
    learner.fqdn.store_automaton(1, 0)
    assert classes(learner, "abcz.example.net") == {LABEL, EXACT}
