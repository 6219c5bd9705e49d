"""Which classes of names count: from before a policy does until after the last that had them (`fqdn_counting`)."""

from __future__ import annotations

import struct

import pytest

from agent.datapath.bpf import rows
from agent.fqdn import classes
from tests.bpf import by_name, conftest

pytestmark = pytest.mark.root

OLD, NEW = "*.cdn.example.net", "api*.static.example.net"
"""One that the trie has, and one that an automaton has."""


def counting(rig: conftest.Rig) -> set[int]:
    """Return the classes that make no room for others."""
    learner = rig.datapath._veths.learner
    assert learner is not None
    return {struct.unpack("=I", key)[0] for key, _ in rows.dump(learner._maps.descriptor("fqdn_counting"))}


def numbers(*several: classes.Classes) -> set[int]:
    """Return the numbers of all of them."""
    return {number for each in several for number in each.contents}


def test_classes_count_from_staging_on_and_until_nobody_reads_the_generation_that_had_them(rig: conftest.Rig) -> None:
    old, new = by_name.build(OLD), by_name.build(NEW)
    assert numbers(old).isdisjoint(numbers(new))
    rig.datapath.apply(by_name.state(rig.node, old))
    rig.datapath.settle()
    assert counting(rig) == numbers(old)
    rig.datapath.learn_names(by_name.state(rig.node, new))
    assert counting(rig) == numbers(old, new), "what is learned meanwhile is for both"
    rig.datapath.apply(by_name.state(rig.node, new))
    assert counting(rig) >= numbers(new)
    rig.datapath.settle()
    assert counting(rig) == numbers(new)
    rig.datapath.apply(by_name.state(rig.node, by_name.build()))
    rig.datapath.settle()
    assert counting(rig) == set()


def test_a_change_that_is_given_up_counts_beside_the_one_that_stays(rig: conftest.Rig) -> None:
    """An agent that stages, fails, and goes on with what it had must not have let go of either."""
    old, new = by_name.build(OLD), by_name.build(NEW)
    rig.datapath.apply(by_name.state(rig.node, old))
    rig.datapath.settle()
    rig.datapath.learn_names(by_name.state(rig.node, new))
    rig.datapath.apply(by_name.state(rig.node, old))
    rig.datapath.settle()
    assert counting(rig) == numbers(old)
