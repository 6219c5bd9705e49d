"""What the agent did, as collectors hear of it."""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib

import pytest

from agent import desired, reconciler
from agent.api.flow import flow_pb2
from agent.api.observer import observer_pb2 as pb
from agent.hubble import agent_events, happenings
from agent.model import resources
from tests.hubble import serving
from tests.support import agents


def enforcement(
    revision: int, state: desired.DesiredState | None = None, *policies: resources.Resource
) -> reconciler.Enforcement:
    return reconciler.Enforcement(
        inputs=reconciler.Inputs(revision=revision, source=agents.update(), sandboxes=agents.SANDBOXES),
        state=state or agents.enforced(),
        snapshot=agents.cluster(*policies),
        problems=(),
        generation=revision,
        unix_ns=revision * 10**9,
    )


def told(before: reconciler.Enforcement | None, now: reconciler.Enforcement) -> list[tuple[str, str]]:
    """Return kinds of events, and the policy or pod of each."""
    named: list[tuple[str, str]] = []
    for event in happenings.between(before, now):
        labels = dict(label.split("=") for label in event.policy_update.labels)
        name = labels.get("k8s:io.cilium.k8s.policy.name") or event.endpoint_update.pod_name
        named.append((flow_pb2.AgentEventType.Name(event.type), name))
    return named


def test_the_first_state_tells_of_all_its_policies_and_endpoints() -> None:
    assert sorted(told(None, enforcement(1))) == [
        ("ENDPOINT_CREATED", "a"),
        ("ENDPOINT_CREATED", "b"),
        ("POLICY_UPDATED", "deny"),
    ]


def test_what_changed_is_told_and_nothing_else() -> None:
    before = enforcement(1)
    state = dataclasses.replace(before.state, endpoints={2: before.state.endpoints[2]})
    other = resources.NetworkPolicy(namespace="x", name="other", ingress=(resources.PolicyRule(),) * 3)
    after = enforcement(2, state, other)
    assert sorted(told(before, after)) == [("ENDPOINT_DELETED", "a"), ("POLICY_UPDATED", "other")]
    (update,) = (event for event in happenings.between(before, after) if event.HasField("policy_update"))
    assert (update.policy_update.revision, update.policy_update.rule_count) == (2, 3)
    assert sorted(told(after, before)) == [("ENDPOINT_CREATED", "a"), ("POLICY_DELETED", "other")]
    assert told(after, dataclasses.replace(after, generation=9)) == []


def test_events_are_asked_for_like_flows(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_events, "LOOK_S", 0.01)

    async def scenario(world: serving.World) -> None:
        async def types(**request: object) -> list[str]:
            call = world.observer.GetAgentEvents(pb.GetAgentEventsRequest(**request))  # type: ignore[arg-type]  # as given
            return [flow_pb2.AgentEventType.Name(answer.agent_event.type) async for answer in call]

        assert await types() == ["AGENT_STARTED"]
        follower = world.observer.GetAgentEvents(pb.GetAgentEventsRequest(follow=True, number=1))
        assert (await follower.read()).agent_event.type == flow_pb2.AGENT_STARTED
        world.node.enforcement = enforcement(1)
        heard = [await follower.read() for _ in range(3)]
        assert {answer.node_name for answer in heard} == {"n1"}
        assert {answer.time.seconds for answer in heard} == {1}
        follower.cancel()
        assert len(await types()) == 4
        assert await types(number=1, first=True) == ["AGENT_STARTED"]
        assert len(await types(number=2)) == 2

    serving.run(tmp_path / "hubble.sock", scenario)


def test_only_the_newest_are_kept() -> None:
    async def scenario() -> None:
        node, clock = serving.Node(), agents.ManualClock()
        events = agent_events.AgentEvents(node, name="n1", clock=clock)
        for revision in range(1, agent_events.STORED):
            node.enforcement = enforcement(revision, None if revision % 2 else desired.DesiredState())
            await events.look()
        request = pb.GetAgentEventsRequest()
        assert len([one async for one in events.get(request, None)]) == agent_events.STORED

    asyncio.run(scenario())
