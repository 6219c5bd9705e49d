"""Verdicts count from a moment on and of its generation on; who was told nothing asks again, but not for ever."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Generator, Sequence

import pytest

from agent.model import net, resources, verdict
from agent.rpc import views
from tests.system import attribution, telling

DROPPED = (verdict.Verdict.DROPPED,)
SINCE_NS = 1000
GENERATION = 7
EVENT = verdict.VerdictEvent(
    time_ns=SINCE_NS,
    node="n1",
    verdict=verdict.Verdict.DROPPED,
    reason=verdict.Reason.POLICY_DENIED,
    direction=net.Direction.EGRESS,
    layer=verdict.Layer.SOCKET,
    protocol=net.Protocol.TCP.value,
    source=verdict.FlowEnd(address=ipaddress.ip_address("10.0.0.2"), port=0, identity=0, namespace="x", pod="a"),
    destination=verdict.FlowEnd(address=ipaddress.ip_address("10.0.0.3"), port=80, identity=300),
    generation=GENERATION,
    isolating=(resources.ObjectRef("NetworkPolicy", "x", "no-egress"),),
)
RIGHT = attribution.statement_of(EVENT)
ASKED = attribution.Asked(name="a", flows=(RIGHT.ends,), choices=(frozenset({RIGHT}),))
MOMENT = telling.Moment(since_ns=SINCE_NS, generations={"n1": GENERATION})


class Agent:
    """Tells what it is given."""

    def __init__(self, *told: verdict.VerdictEvent) -> None:
        """Tell these."""
        self.told = [*told]
        self.asked_for: list[int] = []

    def status(self) -> views.Status:
        return views.Status(node="n1", version="0", mode="memory", generation=GENERATION)

    def watch_verdicts(self, *, follow: bool, last: int, wanted: verdict.Filter) -> Generator[verdict.Item, None, None]:
        assert not follow
        self.asked_for.append(last)
        yield from [one for one in self.told if wanted.admits(one)][-last:]

    def close(self) -> None:
        """Do nothing."""


class Caller:
    """Calls once more, of which the agent tells at some time, or never."""

    def __init__(self, agent: Agent, *, told_at: int = 0) -> None:
        """Call nobody yet."""
        self._agent = agent
        self._told_at = told_at
        self.calls = 0

    def ask_again(self, silent: Sequence[attribution.Asked]) -> None:
        assert list(silent) == [ASKED]
        self.calls += 1
        if self.calls == self._told_at:
            self._agent.told.append(EVENT)


@pytest.fixture(autouse=True)
def _without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telling, "TOLD_S", 0.0)
    monkeypatch.setattr(telling, "LOOK_S", 0.0)


def settled(agent: Agent, caller: Caller, moment: telling.Moment = MOMENT) -> telling.Settled:
    return telling.Telling({"n1": agent}).compared([ASKED], moment, DROPPED, caller.ask_again)


def test_a_moment_has_the_generation_of_each_agent() -> None:
    moment = telling.Telling({"n1": Agent(), "n2": Agent()}).moment()
    assert moment.generations == {"n1": GENERATION, "n2": GENERATION}


@pytest.mark.parametrize(
    ("told", "generation", "counts"),
    [
        (EVENT, GENERATION, True),
        (dataclasses.replace(EVENT, time_ns=SINCE_NS - 1), GENERATION, False),
        (dataclasses.replace(EVENT, generation=GENERATION - 1), GENERATION, False),
        (dataclasses.replace(EVENT, generation=GENERATION + 1), GENERATION, True),
        (dataclasses.replace(EVENT, generation=0), 2**32 - 1, True),
        (dataclasses.replace(EVENT, generation=2**32 - 1), 0, False),
    ],
    ids=["now", "earlier", "of the state before", "of the next state", "after the wrap", "before the wrap"],
)
def test_a_verdict_counts_from_the_moment_and_its_generation_on(
    told: verdict.VerdictEvent, *, generation: int, counts: bool
) -> None:
    moment = telling.Moment(since_ns=SINCE_NS, generations={"n1": generation})
    found = settled(agent := Agent(told), Caller(agent), moment).found
    assert (len(found.agreed), len(found.silent)) == ((1, 0) if counts else (0, 1))


def test_all_that_was_told_since_is_read_however_much_that_is() -> None:
    other = dataclasses.replace(EVENT, protocol=net.Protocol.UDP.value)
    first = 1 + telling.SPARE
    agent = Agent(EVENT, *[other] * (3 * first))
    assert settled(agent, Caller(agent)).found.agreed == (ASKED,)
    assert agent.asked_for == [first, 2 * first, 4 * first]


def test_who_was_told_nothing_asks_again_and_that_is_counted() -> None:
    agent = Agent()
    caller = Caller(agent, told_at=telling.TRIES - 1)
    found = settled(agent, caller)
    assert (found.found.agreed, found.repeated, caller.calls) == ((ASKED,), telling.TRIES - 1, telling.TRIES - 1)


def test_who_is_never_told_anything_stays_silent() -> None:
    agent = Agent()
    caller = Caller(agent)
    assert settled(agent, caller).found.silent == (ASKED,)
    assert caller.calls == telling.TRIES - 1


def test_what_is_wrong_stays_wrong() -> None:
    agent = Agent(dataclasses.replace(EVENT, isolating=()))
    caller = Caller(agent, told_at=1)
    found = settled(agent, caller).found
    assert (len(found.wrong), caller.calls) == (1, 0)
