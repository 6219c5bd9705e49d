"""The way from what the kernel holds to what it shall hold, without a kernel."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping

import pytest

from agent import errors
from agent.datapath.iptables import changes, ruleset, text
from agent.model import net

FILTER = ruleset.Table.FILTER
JUMP = ruleset.Jump("FORWARD", "NW-FORWARD")
NETS = ruleset.SetKind.NETS


def members(*networks: str, holes: tuple[str, ...] = ()) -> ruleset.Members:
    """Return elements that match, and holes."""
    found = {ruleset.Member(ipaddress.ip_network(network)): True for network in networks}
    return found | {ruleset.Member(ipaddress.ip_network(network)): False for network in holes}


def rules(sets: Mapping[str, ruleset.Members], *extra: ruleset.Rule) -> ruleset.Ruleset:
    """Return a chain that names each set, and a chain that names none."""
    named = tuple(
        ruleset.Rule(("-m", "set", "--match-set", name, "src", "-j", "RETURN"), sets=(name,)) for name in sets
    )
    return ruleset.Ruleset(
        family=net.Family.IPV4,
        chains={FILTER: {"NW-FORWARD": (*named, *extra), "NW-DENY": (ruleset.Rule(("-j", "DROP")),)}},
        jumps={FILTER: (JUMP,)},
        sets={name: ruleset.SetContent(kind=NETS, members=content) for name, content in sets.items()},
    )


ONE = rules({"NW4-x": members("10.0.0.1/32")})
TWO = rules({"NW4-x": members("10.0.0.1/32", "10.0.0.2/32")})


def realized(*states: ruleset.Ruleset) -> changes.Realized:
    """Return what the kernel holds once each has been put in force."""
    held = changes.Realized()
    for state in states:
        held = changes.plan(held, state).result
    return held


def test_the_first_plan_makes_sets_chains_and_jumps_in_one_transaction() -> None:
    first = changes.plan(changes.Realized(), ONE)
    assert [(write.name, write.base) for write in first.sets] == [("NW4-xa", changes.Base.CREATE)]
    assert first.tables[FILTER].write.keys() == {"NW-FORWARD", "NW-DENY"}
    assert "NW4-xa" in first.tables[FILTER].write["NW-FORWARD"][0]
    assert first.tables[FILTER].insert == (JUMP,)
    assert first.destroy == ()


def test_nothing_is_done_twice() -> None:
    again = changes.plan(realized(ONE), ONE)
    assert (again.sets, again.tables, again.destroy, again.written) == ((), {}, (), 0)


def test_members_change_in_the_version_no_rule_names_and_rules_turn_to_it() -> None:
    second = changes.plan(realized(ONE), TWO)
    assert [(write.name, write.base) for write in second.sets] == [("NW4-xb", changes.Base.CREATE)]
    assert second.tables[FILTER].write.keys() == {"NW-FORWARD"}, "the chain that names no set stays"
    assert "NW4-xb" in second.tables[FILTER].write["NW-FORWARD"][0]


def test_the_version_left_behind_is_the_base_of_the_next_difference() -> None:
    third = rules({"NW4-x": members("10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32")})
    (write,) = changes.plan(realized(ONE, TWO), third).sets
    assert (write.name, write.base, write.size) == ("NW4-xa", changes.Base.KEEP, 3)
    assert write.add == members("10.0.0.2/32", "10.0.0.3/32")
    assert write.remove == ()


def test_an_element_that_becomes_a_hole_is_taken_out_and_put_in() -> None:
    holed = rules({"NW4-x": members("10.0.0.0/8", holes=("10.0.0.1/32",))})
    plain = rules({"NW4-x": members("10.0.0.0/8", "10.0.0.1/32")})
    (write,) = changes.plan(realized(holed, ONE), plain).sets
    assert write.add == members("10.0.0.1/32")
    assert write.remove == (ruleset.Member(ipaddress.ip_network("10.0.0.1/32")),)


def test_a_set_nobody_wants_goes_with_all_versions_after_the_transaction() -> None:
    nothing = rules({})
    last = changes.plan(realized(ONE, TWO), nothing)
    assert last.destroy == ("NW4-xa", "NW4-xb")
    left = changes.without(last.result, frozenset(last.destroy))
    assert left.sets == {}
    kept = changes.without(last.result, frozenset({"NW4-xa"}))
    assert changes.plan(kept, nothing).destroy == ("NW4-xb",), "what a rule still named is tried again"


def test_after_a_start_versions_that_rules_name_are_left_alone() -> None:
    found = {"a": version(referred=True), "b": version(referred=False)}
    (write,) = changes.plan(changes.Realized(sets={"NW4-x": found}), ONE).sets
    assert (write.name, write.base, write.add) == ("NW4-xb", changes.Base.FLUSH, members("10.0.0.1/32"))


def test_where_rules_name_two_versions_there_is_a_third_and_it_goes_again() -> None:
    found = {"a": version(referred=True), "b": version(referred=True)}
    plan = changes.plan(changes.Realized(sets={"NW4-x": found}), ONE)
    assert plan.sets[0].name == "NW4-xc"
    free = changes.with_references(plan.result, frozenset({"NW4-xc"}))
    following = changes.plan(free, TWO)
    assert following.sets[0].name in {"NW4-xa", "NW4-xb"}
    assert following.destroy == ("NW4-xc",)


def test_where_rules_name_three_versions_the_plan_fails() -> None:
    found = {letter: version(referred=True) for letter in changes.LETTERS}
    with pytest.raises(errors.ApplyFailed, match="NW4-x"):
        changes.plan(changes.Realized(sets={"NW4-x": found}), ONE)


def test_a_version_of_another_type_is_replaced() -> None:
    found = {"a": dataclasses.replace(version(referred=False), kind="hash:ip")}
    (write,) = changes.plan(changes.Realized(sets={"NW4-x": found}), ONE).sets
    assert (write.name, write.base) == ("NW4-xa", changes.Base.REPLACE)


def test_chains_with_equal_comments_are_not_written_and_others_are() -> None:
    held = realized(ONE)
    tables = {
        FILTER: changes.TableState(
            chains={
                "NW-FORWARD": changes.Chain(comments=held.tables[FILTER].chains["NW-FORWARD"].comments),
                "NW-DENY": changes.Chain(comments=("", *held.tables[FILTER].chains["NW-DENY"].comments)),
                "NW-OLD": changes.Chain(comments=("01234567",)),
            },
            jumps=held.tables[FILTER].jumps,
        )
    }
    plan = changes.plan(dataclasses.replace(held, tables=tables), ONE)
    assert plan.tables == {FILTER: text.TableChange(write={"NW-DENY": _texts(ONE, "NW-DENY")}, remove=("NW-OLD",))}


@pytest.mark.parametrize(
    "found",
    [
        (changes.Placed(JUMP, 1),),
        (changes.Placed(JUMP, 0), changes.Placed(JUMP, 4)),
        (changes.Placed(JUMP, 0), changes.Placed(ruleset.Jump("FORWARD", "NW-OLD"), 1)),
    ],
    ids=["not first", "twice", "an old one"],
)
def test_jumps_that_are_not_alone_and_first_are_taken_out_and_put_first(found: tuple[changes.Placed, ...]) -> None:
    held = realized(ONE)
    state = dataclasses.replace(held.tables[FILTER], jumps=found)
    plan = changes.plan(dataclasses.replace(held, tables={FILTER: state}), ONE)
    assert plan.sets == ()
    assert plan.tables[FILTER].delete == tuple(placed.jump for placed in found)
    assert plan.tables[FILTER].insert == (JUMP,)


def test_a_chain_that_anothers_rule_goes_to_is_emptied_and_stays() -> None:
    state = changes.TableState(chains={"NW-OLD": changes.Chain(comments=("01234567",))}, pinned=frozenset({"NW-OLD"}))
    plan = changes.plan(changes.Realized(tables={FILTER: state}), rules({}))
    assert plan.tables[FILTER].write["NW-OLD"] == ()
    assert plan.tables[FILTER].remove == ()
    assert changes.plan(plan.result, rules({})).tables == {}


def test_what_was_perhaps_written_is_not_believed_after_a_failure() -> None:
    second = changes.plan(realized(ONE, TWO), ONE)
    distrusted = changes.distrusting(realized(ONE, TWO), second.sets)
    (write,) = changes.plan(distrusted, ONE).sets
    assert write.base is changes.Base.FLUSH


def test_a_table_counts_its_entries_as_x_tables_does() -> None:
    assert realized(ONE).tables[FILTER].entries == 1 + (2 + 1) + (2 + 1)


def test_room_is_asked_for_before_anything_is_written() -> None:
    plan = changes.plan(changes.Realized(), TWO)
    changes.require_room([plan], present=9, members=2, sets=10)
    with pytest.raises(errors.MapFull, match="NW4-xa holds 1 rows, 2 are needed"):
        changes.require_room([plan], present=0, members=1, sets=10)
    with pytest.raises(errors.MapFull, match="ipsets"):
        changes.require_room([plan, plan], present=9, members=2, sets=10)


def version(*, referred: bool) -> changes.Version:
    """Return one as it is found at a start."""
    return changes.Version(kind=NETS.value, members=None, referred=referred)


def _texts(state: ruleset.Ruleset, chain: str) -> tuple[str, ...]:
    return tuple(text.rule_text(rule, {}) for rule in state.chains[FILTER][chain])
