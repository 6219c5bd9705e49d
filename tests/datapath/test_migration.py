"""From one engine to another: what is removed when, and what a failure or a crash leaves."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import pytest

from agent import desired, errors
from agent.datapath import base, memory, migration

STATE = desired.DesiredState()


class World:
    """A successor and two predecessors that write down what happens."""

    def __init__(self) -> None:
        """Nothing refuses anything."""
        self.calls: list[str] = []
        self.refusing = ""
        self.left = {"old": True, "older": False}

    def did(self, what: str) -> None:
        self.calls.append(what)
        if what == self.refusing:
            raise errors.ApplyFailed(f"{what} failed")

    def remove(self, name: str) -> bool:
        self.did(f"remove {name}")
        was_there, self.left[name] = self.left[name], False
        return was_there

    def agent(self) -> migration.MigratingDatapath:
        """Start an agent, as after a crash."""
        predecessors = [
            migration.Predecessor(
                name,
                prepare=functools.partial(self.did, f"prepare {name}"),
                remove=functools.partial(self.remove, name),
            )
            for name in self.left
        ]
        return migration.MigratingDatapath(
            Successor(self), lambda _: predecessors, tell=lambda what: self.did(f"told {what}")
        )


class Successor(memory.MemoryDatapath):
    """Tells the world what it is asked."""

    def __init__(self, world: World) -> None:
        """Belong to `world`."""
        super().__init__()
        self.world = world

    def open(self) -> base.EngineReport:
        self.world.did("open")
        return super().open()

    def apply(self, desired: desired.DesiredState) -> base.Applied:
        self.world.did("apply")
        return super().apply(desired)

    def uninstall(self) -> None:
        self.world.did("uninstall")

    def usage(self) -> Mapping[str, base.Usage]:
        return {"a map": base.Usage(1, 2)}

    def missing(self) -> Sequence[str]:
        return ("a pin",)


def test_predecessors_go_after_the_first_apply_and_before_it_is_reported_and_only_what_was_there_is_told() -> None:
    world = World()
    agent = world.agent()
    assert agent.open().mode == "memory"
    assert world.calls == ["open"]
    agent.apply(STATE)
    assert world.calls[1:] == ["prepare old", "prepare older", "apply", "remove old", "told old", "remove older"]
    agent.apply(STATE)
    assert world.calls[-1] == "apply", "once gone, they are not looked for again"


def test_an_apply_that_fails_leaves_the_predecessors_in_force() -> None:
    world = World()
    world.refusing = "apply"
    agent = world.agent()
    agent.open()
    with pytest.raises(errors.ApplyFailed):
        agent.apply(STATE)
    assert world.left["old"]
    world.refusing = ""
    agent.apply(STATE)
    assert not world.left["old"]


def test_a_removal_that_fails_is_told_as_what_it_is_and_repeated() -> None:
    world = World()
    world.refusing = "remove older"
    agent = world.agent()
    agent.open()
    with pytest.raises(errors.ApplyFailed, match="policy is in force, but older cannot be removed and may deny more"):
        agent.apply(STATE)
    world.refusing = ""
    world.calls.clear()
    agent.apply(STATE)
    assert world.calls == ["prepare older", "apply", "remove older"], "what went before is gone"


@pytest.mark.parametrize("crash", ["prepare old", "apply", "remove old", "told old", "remove older"])
def test_a_crash_anywhere_between_ends_with_the_next_agent_alone(crash: str) -> None:
    world = World()
    world.refusing = crash
    first = world.agent()
    first.open()
    with pytest.raises(errors.ApplyFailed):
        first.apply(STATE)
    world.refusing = ""
    second = world.agent()
    second.open()
    second.apply(STATE)
    assert not any(world.left.values())


def test_what_is_removed_follows_from_what_was_opened() -> None:
    world = World()

    def found(report: base.EngineReport) -> list[migration.Predecessor]:
        return [migration.Predecessor(report.mode, remove=lambda: True)]

    agent = migration.MigratingDatapath(Successor(world), found, tell=world.did)
    agent.open()
    agent.apply(STATE)
    assert world.calls == ["open", "apply", "memory"]


def test_what_the_successor_uses_and_lacks_is_told() -> None:
    agent = World().agent()
    assert agent.usage() == {"a map": base.Usage(1, 2)}
    assert agent.missing() == ("a pin",)
