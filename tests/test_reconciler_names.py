"""The loop and names: what pods were told is learned before a policy by name counts (requirement F26)."""

from __future__ import annotations

import asyncio
import contextlib

from agent import desired, errors, reconciler
from agent.datapath import base
from agent.fqdn import classes as name_classes
from agent.model import fqdn, identity
from tests import test_reconciler
from tests.support import agents

UNHEARD = identity.FIRST_NAME_CLASS


class Learning(test_reconciler.Recording):
    """Learns names, and says of its classes that nothing was learned for them before."""

    def __init__(self, heard: list[str]) -> None:
        """Write down the order in `heard`."""
        super().__init__()
        self.heard = heard
        self.unheard = frozenset({UNHEARD})
        self.replay_refusal: errors.DatapathError | None = None

    def learn_names(self, desired: desired.DesiredState) -> frozenset[int]:
        self.heard.append(f"learns from {len(desired.resolvers)}")
        return self.unheard

    def replay(self, learned: fqdn.LearnedAddresses) -> int:
        self.heard.append(f"replays {len(learned)}")
        if self.replay_refusal is not None:
            raise self.replay_refusal
        return 0

    def apply(self, desired: desired.DesiredState) -> base.Applied:
        self.heard.append("applies")
        return super().apply(desired)


class Remembering:
    """Knows of one address for whatever is asked."""

    def __init__(self, heard: list[str]) -> None:
        """Write down the order in `heard`."""
        self.heard = heard

    async def replayed(self, classes: name_classes.Classes, new: frozenset[int]) -> fqdn.LearnedAddresses:
        assert isinstance(classes, name_classes.Classes)
        self.heard.append(f"is asked for {len(new)}")
        return {(7, agents.SERVER): (fqdn.Learned(UNHEARD, 9),)}


def learning(
    datapath: base.Datapath, heard: list[str]
) -> contextlib.AbstractAsyncContextManager[reconciler.Reconciler]:
    more = {"memory": Remembering(heard), "learns_names": True, "resolvers": frozenset({agents.SERVER})}
    return test_reconciler.running(datapath, **more)


def test_what_pods_know_of_new_names_is_learned_before_they_count() -> None:
    """F26: the kernel learns for them, then history is asked, then it is replayed, then the policy counts."""

    async def scenario() -> list[str]:
        heard: list[str] = []
        datapath = Learning(heard)
        async with learning(datapath, heard) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await test_reconciler.reached(loop, 2)
            datapath.unheard = frozenset()
            loop.set_source(agents.update(digest="two"))
            await test_reconciler.reached(loop, 3)
        return heard

    first = ["learns from 2", "is asked for 1", "replays 1", "applies"]
    assert asyncio.run(scenario()) == [*first, "learns from 2", "replays 0", "applies"]


def test_what_cannot_be_replayed_yet_keeps_the_policy_from_counting() -> None:
    async def scenario() -> None:
        heard: list[str] = []
        datapath = Learning(heard)
        datapath.replay_refusal = errors.ApplyFailed("no room")
        async with learning(datapath, heard) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            async with asyncio.timeout(5):
                while heard.count("replays 1") < 2:  # noqa: ASYNC110 - a retry is what is waited for
                    await asyncio.sleep(0.01)
                assert "applies" not in heard
                datapath.replay_refusal = None
            await test_reconciler.reached(loop, 2)

    asyncio.run(scenario())


def test_an_engine_that_learns_no_names_is_given_no_resolver() -> None:
    async def scenario() -> None:
        datapath = test_reconciler.Recording()
        async with test_reconciler.running(datapath) as loop:
            loop.set_source(agents.update())
            loop.set_sandboxes(agents.SANDBOXES)
            await test_reconciler.reached(loop, 2)
        assert datapath.applied[0].resolvers == frozenset()

    asyncio.run(scenario())
