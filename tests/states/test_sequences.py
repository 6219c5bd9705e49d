"""State depends on the inputs, never on the path to them: the tables after any sequence equal a fresh start's.

After Felix's table-driven state tests: a sequence of named pictures is expanded to variants (reversed,
squashed, repeated, with the empty state between, with crashes after any step and inside any step), and each
must end in the tables that starting at its last picture gives, the generation aside.
"""

from __future__ import annotations

import dataclasses
import functools
import random
from collections.abc import Callable, Iterator, Sequence

import pytest

from agent import desired
from agent.datapath import memory, plan
from tests.states import pictures

SEQUENCES = 100
QUESTIONS = 60
PORTS = (0, 53, 80, 443, 8080)
PROTOCOLS = (1, 6, 17, 132)

Sequence_ = Sequence[str]
Expander = Callable[[Sequence_, random.Random], list[str]]


def fresh(state: desired.DesiredState) -> plan.Tables:
    """Return the tables of a start at `state`, at generation 0."""
    datapath = memory.MemoryDatapath()
    datapath.apply(state)
    return at_rest(datapath.tables)


def at_rest(tables: plan.Tables) -> plan.Tables:
    """Forget the generation."""
    return dataclasses.replace(tables, generation=0)


def as_is(names: Sequence_, _: random.Random) -> list[str]:
    return list(names)


def reverse(names: Sequence_, _: random.Random) -> list[str]:
    return [*reversed(names), *names]


def squash(names: Sequence_, rng: random.Random) -> list[str]:
    return [name for name in names[:-1] if rng.random() < 0.5] + [names[-1]]


def split(names: Sequence_, rng: random.Random) -> list[str]:
    return [each for name in names for each in (rng.choice(pictures.NAMES), name)]


def duplicate(names: Sequence_, _: random.Random) -> list[str]:
    return [each for name in names for each in (name, name)]


def insert_empty(names: Sequence_, _: random.Random) -> list[str]:
    return [each for name in names for each in ("empty", name)]


EXPANDERS: tuple[Expander, ...] = (as_is, reverse, squash, split, duplicate, insert_empty)


def partial(step: plan.Step, rng: random.Random) -> plan.Step:
    """Return what a crash inside `step` leaves made: some upserts, or all of them and some deletes."""
    if step.flip_to is not None or step.drop_silently is not None:
        return step
    upserts = {
        table: dict(rng.sample(sorted(content.items(), key=repr), rng.randint(0, len(content))))
        for table, content in step.upserts.items()
    }
    if upserts != step.upserts:
        return plan.Step(name=step.name, upserts=upserts)
    deletes = {
        table: frozenset(rng.sample(sorted(keys, key=repr), rng.randint(0, len(keys))))
        for table, keys in step.deletes.items()
    }
    return plan.Step(name=step.name, upserts=upserts, deletes=deletes)


def apply_with_crash(datapath: memory.MemoryDatapath, state: desired.DesiredState, rng: random.Random) -> None:
    """Make only some steps, perhaps the last of them in part."""
    steps = plan.plan(datapath.tables, state).steps
    made = rng.randint(0, len(steps))
    for step in steps[:made]:
        datapath.make(step)
    if made < len(steps) and rng.random() < 0.5:
        datapath.make(partial(steps[made], rng))


@pytest.mark.parametrize("expander", EXPANDERS, ids=lambda expander: expander.__name__)
def test_every_way_to_a_state_ends_in_the_same_tables(expander: Expander) -> None:
    for seed in range(SEQUENCES):
        rng = random.Random(seed)
        names = expander(rng.sample(pictures.NAMES, rng.randint(1, 4)), rng)
        datapath = memory.MemoryDatapath()
        for name in names:
            datapath.apply(pictures.named(name))
        assert at_rest(datapath.tables) == fresh(pictures.named(names[-1])), (seed, names)


def test_crashes_after_and_inside_any_step_leave_no_trace() -> None:
    for seed in range(SEQUENCES * 2):
        rng = random.Random(seed)
        names = rng.sample(pictures.NAMES, rng.randint(2, 5))
        datapath = memory.MemoryDatapath()
        for name in names[:-1]:
            apply_with_crash(datapath, pictures.named(name), rng)
            datapath = memory.MemoryDatapath(datapath.tables)  # a new agent adopts what is pinned
        datapath.apply(pictures.named(names[-1]))
        assert at_rest(datapath.tables) == fresh(pictures.named(names[-1])), (seed, names)


@pytest.mark.parametrize("name", pictures.NAMES)
def test_applying_a_state_twice_writes_nothing(name: str) -> None:
    datapath = memory.MemoryDatapath()
    datapath.apply(pictures.named(name))
    assert plan.plan(datapath.tables, pictures.named(name)).steps == ()


Question = Callable[[memory.MemoryDatapath], memory.Judgement]


def questions(state: desired.DesiredState, other: desired.DesiredState, rng: random.Random) -> list[Question]:
    """Draw from all the two states know of: packets between any two addresses, and connects to frontends."""
    addresses = sorted({*state.hosts, *other.hosts}, key=lambda each: (each.version, int(each)))
    addresses = [*addresses, *(network[-1] for network in sorted({*state.cidrs, *other.cidrs}, key=str))]
    cookies = sorted({item.netns_cookie for each in (state, other) for item in each.endpoints.values()})
    frontends = sorted({*state.frontends, *other.frontends}, key=repr)
    packets: list[Question] = [
        functools.partial(
            memory.MemoryDatapath.judge, client=client, server=server, protocol=protocol, port=rng.choice(PORTS)
        )
        for client in addresses
        for server in addresses
        if client.version == server.version
        for protocol in PROTOCOLS
    ]
    connects: list[Question] = [
        functools.partial(
            memory.MemoryDatapath.judge_connect,
            cookie=cookie,
            address=frontend.address,
            protocol=frontend.protocol,
            port=frontend.port,
        )
        for cookie in cookies
        for frontend in frontends
    ]
    return rng.sample(packets, min(QUESTIONS, len(packets))) + rng.sample(connects, min(QUESTIONS, len(connects)))


def answers(tables: plan.Tables, asked: Sequence[Question]) -> list[memory.Judgement]:
    datapath = memory.MemoryDatapath(tables)
    return [question(datapath) for question in asked]


def moments(tables: plan.Tables, steps: Sequence[plan.Step], rng: random.Random) -> Iterator[tuple[bool, plan.Tables]]:
    """Yield (flipped, tables) inside and after each step."""
    flipped = False
    for step in steps:
        yield flipped, plan.after(tables, partial(step, rng)) if step.flip_to is None else tables
        tables = plan.after(tables, step)
        flipped = flipped or step.flip_to is not None
        yield flipped, tables


def test_at_every_moment_all_verdicts_are_old_or_all_are_new() -> None:
    changed = 0
    for seed in range(150):
        rng = random.Random(seed)
        old, new = (pictures.named(name) for name in rng.sample(pictures.NAMES, 2))
        datapath = memory.MemoryDatapath()
        datapath.apply(old)
        way = plan.plan(datapath.tables, new)
        asked = questions(old, new, rng)
        before = answers(datapath.tables, asked)
        after = answers(way.result, asked)
        changed += before != after
        for flipped, tables in moments(datapath.tables, way.steps, rng):
            assert answers(tables, asked) == (after if flipped else before), (seed, flipped)
    assert changed > 60
