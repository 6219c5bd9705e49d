"""Questions about one thing over a real socket: answers, refusals that keep their parts, and what an old agent says."""

from __future__ import annotations

import asyncio
import pathlib
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from agent import errors, reconciler
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.rpc import client, describe, details, getters, refusals
from tests.support import agents, served

SETTING = details.Setting(name="log-level", value="info", origin="default", changeable=True)
SAMPLE = details.MetricSample(name="nodewall_up", kind="gauge", value=1.0)


def change(level: str) -> str:
    if level != "debug":
        raise errors.InvalidInput(field="log-level", value=level, remedy="write debug")
    return "info"


PROCESS = getters.Process(settings=lambda: (SETTING,), metrics=lambda: (SAMPLE,), set_log_level=change)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[client.AgentClient]:
    path = tmp_path_factory.mktemp("state") / "agent.sock"
    with (
        served.agent(path, served.Node(served.enforcement()), process=PROCESS),
        client.AgentClient(path) as agent,
    ):
        yield agent


def test_one_thing_each_is_answered(asked: client.AgentClient) -> None:
    endpoint = asked.endpoint("x/a")
    assert endpoint.endpoint.pod == "a"
    assert asked.identity(endpoint.endpoint.identities[0]).holders[0].address == agents.CLIENT
    assert asked.policy("to-b").policy.ref == served.TO_B.ref
    assert asked.address("10.0.0.2").endpoint == endpoint.endpoint.id
    assert [one.name for one in asked.services()] == ["web"]
    assert asked.config() == (SETTING,)
    assert asked.metrics() == (SAMPLE,)
    assert asked.set_log_level("debug") == "info"


@pytest.mark.parametrize("kind", ["endpoints", "identities", "policies"])
def test_lists_are_worked_out_beside_the_event_loop(
    kind: str, asked: client.AgentClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10,000 pods take long enough for health probes and verdicts to be missed."""
    on_the_loop: list[bool] = []
    describing = getattr(describe, kind)

    def noted(now: reconciler.Enforcement) -> object:
        on_the_loop.append(asyncio._get_running_loop() is not None)
        return describing(now)

    monkeypatch.setattr(describe, kind, noted)
    assert getattr(asked, kind)()
    assert on_the_loop == [False]


def test_a_refusal_is_raised_as_the_agent_raised_it(asked: client.AgentClient) -> None:
    with pytest.raises(errors.NotFound) as missing:
        asked.endpoint("x/nope")
    assert (missing.value.field, missing.value.value) == ("pod", "x/nope")
    assert "endpoint list" in missing.value.remedy
    for wrong in (lambda: asked.address("x"), lambda: asked.set_log_level("loud"), lambda: asked.policy("a/b/c/d")):
        with pytest.raises(errors.InvalidInput):
            wrong()


def test_a_value_that_is_long_does_not_break_the_refusal(asked: client.AgentClient) -> None:
    with pytest.raises(errors.InvalidInput) as raised:
        asked.address("a" * 100_000)
    assert len(str(raised.value.value)) == refusals.VALUE_MOST


def test_before_the_first_policy_nothing_is_found_and_the_process_answers_all_the_same(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "agent.sock"
    with served.agent(path, served.Node(None), process=PROCESS), client.AgentClient(path) as agent:
        with pytest.raises(errors.NotFound, match="nothing is enforced yet"):
            agent.policy("x/to-b")
        assert agent.services() == ()
        assert agent.config() == (SETTING,)


class Failed:
    """A call that ended so."""

    def __init__(self, code: grpc.StatusCode, trailing: Any) -> None:
        """End with `code` and metadata."""
        self._code, self._trailing = code, trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def trailing_metadata(self) -> Any:
        return self._trailing


@pytest.mark.parametrize("trailing", [None, (), ((refusals.KEY, b"\xff\xff"),), (("other", "x"),)])
def test_a_status_without_a_refusal_is_no_refusal(trailing: Any) -> None:
    assert refusals.read(Failed(grpc.StatusCode.NOT_FOUND, trailing)) is None
    whole = ((refusals.KEY, pb.Refusal(field="f", value="v", remedy="r").SerializeToString()),)
    assert refusals.read(Failed(grpc.StatusCode.UNAVAILABLE, whole)) is None
