"""Plans: the order of steps, what each may touch, and what does not fit."""

from __future__ import annotations

import dataclasses
import ipaddress
import random

import pytest

from agent import desired, errors
from agent.datapath import lookups, plan
from agent.model import endpoint, identity, net
from tests.states import pictures
from tests.support import random_state

ROWS = {plan.Table.POLICY, plan.Table.SERVICE_CLASS}


def realized(name: str) -> plan.Tables:
    return plan.plan(plan.Tables(), pictures.named(name)).result


def names(way: plan.Plan) -> list[str]:
    return [step.name for step in way.steps]


def test_a_first_start_writes_rows_stages_flips_and_mends() -> None:
    way = plan.plan(plan.Tables(), pictures.named("service"))
    assert names(way) == ["rows", "stage", "flip", "mend"]
    rows, stage, flip, mend = way.steps
    assert rows.upserts.keys() == ROWS
    assert not stage.upserts.keys() & ROWS
    assert (flip.flip_to, flip.grace, flip.written) == (1, True, 0)
    assert not mend.deletes
    assert (way.generation, way.flipped) == (1, True)
    assert way.written == sum(step.written for step in way.steps)


def test_only_flip_turns_the_generation_and_only_mend_deletes() -> None:
    way = plan.plan(realized("two policies"), pictures.named("nested blocks"))
    assert [step.name for step in way.steps if step.flip_to is not None] == ["flip"]
    assert [step.name for step in way.steps if step.deletes] == ["mend"]


def test_the_live_slot_is_never_written_before_the_flip() -> None:
    tables = realized("two policies")
    live = tables.generation & 1
    way = plan.plan(tables, pictures.named("nested blocks"))
    (stage,) = (step for step in way.steps if step.name == "stage")
    for table, content in stage.upserts.items():
        old = tables.content(table)
        for key in content.keys() & old.keys():
            before, after = old[key], content[key]
            if table is plan.Table.ENDPOINTS:
                before, after = before.slots, after.slots
            assert before[live] == after[live]


def test_the_same_state_again_needs_no_step() -> None:
    way = plan.plan(realized("service"), pictures.named("service"))
    assert (way.steps, way.flipped, way.written) == ((), False, 0)


def test_the_revision_is_no_part_of_the_state() -> None:
    state = dataclasses.replace(pictures.named("service"), revision=9)
    assert plan.plan(realized("service"), state).steps == ()


def test_a_change_costs_what_changed() -> None:
    way = plan.plan(realized("no policy"), pictures.named("one pod less"))
    touched = {table for step in way.steps for table in (*step.upserts, *step.deletes)}
    assert plan.Table.FRONTEND not in touched
    (stage,) = (step for step in way.steps if step.name == "stage")
    assert all(len(content) == 1 for content in stage.upserts.values())


def test_the_generation_wraps() -> None:
    last = dataclasses.replace(plan.Tables(), generation=plan.GENERATIONS - 1)
    way = plan.plan(last, pictures.named("isolated"))
    assert way.generation == 0
    assert plan.plan(way.result, pictures.named("isolated")).steps == ()


def test_a_crash_after_the_flip_needs_only_mending() -> None:
    tables = realized("isolated")
    for step in plan.plan(tables, pictures.named("two policies")).steps[:-1]:
        tables = plan.after(tables, step)
    way = plan.plan(tables, pictures.named("two policies"))
    assert names(way) == ["mend"]
    assert not way.flipped


def test_a_crash_before_the_flip_leads_on_without_writing_twice() -> None:
    tables = realized("isolated")
    first = plan.plan(tables, pictures.named("two policies"))
    for step in first.steps[:2]:
        tables = plan.after(tables, step)
    assert names(plan.plan(tables, pictures.named("two policies"))) == ["flip", "mend"]


def test_rows_that_were_lost_are_written_without_a_flip() -> None:
    whole = realized("two policies")
    damaged = dataclasses.replace(whole, policy=dict(list(whole.policy.items())[1:]))
    way = plan.plan(damaged, pictures.named("two policies"))
    assert names(way) == ["rows"]
    assert plan.after(damaged, way.steps[0]) == whole


def test_an_interface_number_that_becomes_known_needs_no_flip() -> None:
    state = pictures.named("isolated")
    moved = {number: dataclasses.replace(each, ingress_ifindex=999) for number, each in state.endpoints.items()}
    way = plan.plan(realized("isolated"), dataclasses.replace(state, endpoints=moved))
    assert names(way) == ["mend"]
    assert {value.ingress_ifindex for value in way.result.endpoints.values()} == {999}


def test_unknown_interfaces_and_cookies_have_no_entry() -> None:
    state = pictures.named("isolated")
    unknown = {
        number: dataclasses.replace(each, veth_ifindex=0, netns_cookie=0) for number, each in state.endpoints.items()
    }
    result = plan.plan(plan.Tables(), dataclasses.replace(state, endpoints=unknown)).result
    assert result.ep_by_ifindex == {}
    assert result.ep_by_netns == {}
    assert result.ep_by_ip


def test_whoever_is_allowed_by_name_says_so_for_only_then_do_programs_look_for_names() -> None:
    allow = desired.Row(desired.Action.ALLOW, 1)
    sets = {
        number: desired.PolicySet(
            id=number, digest=b"", direction=direction, rows={desired.RowKey(who, 6, 443, 16): allow}, isolating=()
        )
        for number, direction, who in (
            (601, net.Direction.EGRESS, identity.FIRST_NAME_CLASS),
            (602, net.Direction.EGRESS, identity.FIRST_NAME_CLASS - 1),
            (603, net.Direction.INGRESS, identity.FIRST_NAME_CLASS),
        )
    }
    state = desired.DesiredState(
        endpoints={900: _pod(900, egress=601), 901: _pod(901, egress=602, audit=601)}, sets=sets
    )
    slots = [plan.at_rest(state).endpoints[number].slots[0] for number in (900, 901)]
    assert [(slot.egress_names, slot.egress_audit_names) for slot in slots if slot] == [(True, False), (False, True)]


def test_a_filter_is_written_with_the_sets_and_services_that_have_it() -> None:
    """What it restricts is denied where nobody reads what is asked: there the endpoint does not say that it has it."""
    state = _filtered(asks=FILTER)
    tables = plan.at_rest(state, unread=frozenset({902}))
    slots = [tables.endpoints[number].slots[0] for number in (900, 901, 902)]
    assert [(slot.egress_asks, slot.egress_audit_asks) for slot in slots if slot] == [
        *((True, False), (True, True), (False, False))
    ]
    assert {key: row for key, row in tables.policy.items() if key.set == FILTER} == {
        plan.PolicyKey(FILTER, class_, plan.Asking.ASK, 0, 0, 0): desired.Row(desired.Action.ALLOW, 0)
        for class_ in CLASSES
    }
    everything, mixed = desired.ServiceClass.ALL, desired.ServiceClass.MIXED
    assert tables.service_class == {
        (601, 33): plan.ClassValue(everything, 1, asks=FILTER),
        (602, 33): plan.ClassValue(mixed, 0, asks=FILTER),
        (602, 34): plan.ClassValue(everything, 1),
    }
    by_state, by_tables = lookups.InState(state), lookups.InTables(tables)
    assert all(by_state.service_class(*key) == by_tables.service_class(*key) for key in tables.service_class)


def test_without_filters_nobody_says_that_there_are_any() -> None:
    tables = plan.at_rest(_filtered(asks=desired.ASKS_ANYTHING))
    assert not any(slot and (slot.egress_asks or slot.egress_audit_asks) for slot in tables.endpoints[901].slots)
    assert {key.direction for key in tables.policy} == {net.Direction.EGRESS}


def test_the_rows_of_a_filter_that_changes_hands_are_there_from_before_the_flip_until_after_it() -> None:
    before, after = (_filtered(asks=number) for number in (FILTER, FILTER + 1))
    way = plan.plan(plan.plan(plan.Tables(), before).result, after)
    written = {step.name: {key.set for key in step.upserts.get(plan.Table.POLICY, ())} for step in way.steps}
    deleted = {step.name: {key.set for key in step.deletes.get(plan.Table.POLICY, ())} for step in way.steps}
    assert FILTER + 1 in written["rows"]
    assert deleted == {"rows": set(), "mend": {FILTER}}


FILTER, CLASSES = 0x0F117E50, (identity.FIRST_NAME_CLASS, identity.FIRST_NAME_CLASS + 7)


def _filtered(*, asks: int) -> desired.DesiredState:
    """Give set 601 a filter by its rows, and 602 by what a service has that it allows some backends of."""
    query = desired.RowKey(300, 17, 53, 16)
    rows = {601: desired.Row(desired.Action.ALLOW, 1, asks=asks), 602: desired.Row(desired.Action.ALLOW, 1)}
    everything = (desired.ServiceClass.ALL, 1)
    return desired.DesiredState(
        endpoints={
            900: _pod(900, egress=601),
            901: _pod(901, egress=602, audit=601),
            902: _pod(902, egress=601, audit=602),
        },
        sets={
            number: desired.PolicySet(
                id=number, digest=b"", direction=net.Direction.EGRESS, rows={query: row}, isolating=()
            )
            for number, row in rows.items()
        },
        classes={(601, 33): everything, (602, 34): everything},
        service_asks={(601, 33): asks, (602, 33): asks} if asks else {},
        filters={asks: frozenset(CLASSES)} if asks else {},
    )


def _pod(number: int, *, egress: int, audit: int = 0) -> desired.Endpoint:
    drawn = random_state.endpoint(random.Random(0), number, ())
    return dataclasses.replace(drawn, ingress_set=603, egress_set=egress, egress_audit=audit)


def test_a_change_of_deny_mode_alone_is_one_step() -> None:
    state = dataclasses.replace(pictures.named("isolated"), deny_mode=endpoint.DenyMode.DROP)
    way = plan.plan(realized("isolated"), state)
    assert [(step.name, step.drop_silently) for step in way.steps] == [("mode", True)]
    assert plan.after(realized("isolated"), way.steps[0]) == way.result


def test_old_and_new_entries_must_fit_together() -> None:
    capacity = plan.CAPACITY[plan.Table.HELD]
    first = int(ipaddress.ip_address("10.0.0.0"))

    def holding(start: int, count: int) -> desired.DesiredState:
        ranges = frozenset(ipaddress.ip_network((first + start + index, 32)) for index in range(count))
        return desired.DesiredState(held_ranges=ranges)

    full = plan.plan(plan.Tables(), holding(0, capacity)).result
    with pytest.raises(errors.MapFull) as caught:
        plan.plan(full, holding(1, capacity))
    assert (caught.value.table, caught.value.rows, caught.value.capacity) == ("held", capacity + 1, capacity)
    assert plan.plan(full, holding(0, capacity)).steps == ()


def test_each_family_has_a_map_of_its_own() -> None:
    capacity = plan.CAPACITY[plan.Table.HELD]
    ranges = frozenset(
        ipaddress.ip_network((first + index, bits))
        for first, bits in ((int(ipaddress.ip_address("10.0.0.0")), 32), (int(ipaddress.ip_address("fd00::")), 128))
        for index in range(capacity)
    )
    assert plan.plan(plan.Tables(), desired.DesiredState(held_ranges=ranges)).flipped


def test_deleting_what_is_gone_is_no_error() -> None:
    step = plan.Step(name="mend", deletes={plan.Table.EP_BY_NETNS: frozenset({1})})
    assert plan.after(plan.Tables(), step) == plan.Tables()
