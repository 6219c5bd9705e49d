"""The API over a real unix socket, asked by the real client."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import socket as socket_
import stat
import threading
from collections.abc import Callable
from typing import TypeVar

import pytest

from agent import errors, reconciler
from agent.model import verdict
from agent.observer import stream
from agent.rpc import agent_server, client, describe, service, views
from tests.support import agents, served

Answer = TypeVar("Answer")


class Node:
    """An agent that enforces `agents.enforced()`, or nothing yet."""

    def __init__(self, enforcement: reconciler.Enforcement | None) -> None:
        """Answer with `enforcement`."""
        self.enforcement = enforcement
        self.audit = served.auditing()

    def status(self) -> views.Status:
        bare = views.Status(node="n1", version="0", mode="memory", counters={"seen": 3})
        return bare if self.enforcement is None else describe.enforced(bare, self.enforcement)


def enforcing() -> reconciler.Enforcement:
    return reconciler.Enforcement(
        inputs=reconciler.Inputs(revision=4, source=agents.update(), sandboxes=agents.SANDBOXES),
        state=agents.enforced(),
        snapshot=agents.cluster(),
        problems=(),
        generation=2,
        unix_ns=9,
    )


@pytest.fixture
def verdicts() -> stream.Stream:
    return stream.Stream(clock=agents.ManualClock())


def serve(
    path: pathlib.Path, verdicts: stream.Stream, ask: Callable[[client.AgentClient], Answer], *, ready: bool = True
) -> Answer:
    """Serve on `path` while `ask` asks in a thread, as it is synchronous."""

    async def scenario() -> Answer:
        node = Node(enforcing() if ready else None)
        api = service.AgentService(node=node, stream=verdicts, kernel=agents.kernel(node, verdicts))
        async with agent_server.serving(api, path):
            with client.AgentClient(path) as agent:
                return await asyncio.to_thread(ask, agent)

    return asyncio.run(scenario())


def test_status_lists_and_stored_verdicts_are_answered(tmp_path: pathlib.Path, verdicts: stream.Stream) -> None:
    verdicts.publish([agents.flow(generation=1), agents.flow(generation=2)])

    def ask(agent: client.AgentClient) -> None:
        status = agent.status()
        assert (status.enforced_revision, status.endpoints, status.policies) == (4, 2, 1)
        assert status.enforced_source_digest == "one"
        assert status.counters == {"seen": 3}
        first, second = agent.endpoints()
        assert (first.pod, first.identities, first.ingress_isolated, first.egress_isolated) == (
            "a",
            (300,),
            True,
            False,
        )
        assert second.ingress_policies == (agents.DENY.ref,)
        assert agent.identities() == ()
        (policy,) = agent.policies()
        assert (policy.ref, policy.directions, policy.selected_endpoints) == (agents.DENY.ref, ("ingress",), 2)
        assert list(agent.watch_verdicts(follow=False)) == [agents.flow(generation=1), agents.flow(generation=2)]
        assert list(agent.watch_verdicts(follow=False, last=1)) == [agents.flow(generation=2)]

    serve(tmp_path / "state" / "agent.sock", verdicts, ask)


def test_before_the_first_policy_every_list_is_empty(tmp_path: pathlib.Path, verdicts: stream.Stream) -> None:
    def ask(agent: client.AgentClient) -> None:
        assert not agent.status().synced
        assert not [*agent.endpoints(), *agent.identities(), *agent.policies()]

    serve(tmp_path / "agent.sock", verdicts, ask, ready=False)


def test_a_follower_gets_what_is_published_later(tmp_path: pathlib.Path, verdicts: stream.Stream) -> None:
    verdicts.publish([agents.flow(generation=1)])

    def ask(agent: client.AgentClient) -> list[verdict.Item]:
        with contextlib.closing(agent.watch_verdicts(follow=True, last=5)) as items:
            seen = [next(items)]
            publisher = threading.Thread(target=verdicts.publish, args=([agents.flow(generation=2)],))
            publisher.start()
            publisher.join()
            return [*seen, next(items)]

    seen = serve(tmp_path / "agent.sock", verdicts, ask)
    assert seen == [agents.flow(generation=1), agents.flow(generation=2)]
    assert verdicts.readers == 0


def test_only_root_gets_to_the_socket(tmp_path: pathlib.Path, verdicts: stream.Stream) -> None:
    directory = tmp_path / "state"
    directory.mkdir(mode=0o755)

    def ask(_agent: client.AgentClient) -> tuple[int, int]:
        return stat.S_IMODE(directory.stat().st_mode), stat.S_IMODE((directory / "agent.sock").stat().st_mode)

    assert serve(directory / "agent.sock", verdicts, ask) == (0o700, 0o600)
    assert not (directory / "agent.sock").exists()


def test_a_socket_a_killed_agent_left_behind_is_replaced(tmp_path: pathlib.Path, verdicts: stream.Stream) -> None:
    path = tmp_path / "agent.sock"
    with socket_.socket(socket_.AF_UNIX) as left:
        left.bind(str(path))
    with client.AgentClient(path) as agent, pytest.raises(errors.Unreachable, match="nobody listens"):
        agent.status()
    assert serve(path, verdicts, lambda agent: agent.status()).node == "n1"


def test_no_socket_is_an_error_that_names_it_and_says_what_to_do(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "agent.sock"
    with client.AgentClient(path) as agent, pytest.raises(errors.Unreachable, match="--socket") as raised:
        agent.status()
    assert raised.value.socket == str(path)


def test_an_agent_that_does_not_answer_is_given_up(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "agent.sock"
    with socket_.socket(socket_.AF_UNIX) as silent:
        silent.bind(str(path))
        silent.listen()
        with client.AgentClient(path, timeout_s=0.2) as agent, pytest.raises(errors.Unreachable, match="no answer"):
            agent.status()


def test_a_directory_of_any_name_can_hold_the_socket(tmp_path: pathlib.Path, verdicts: stream.Stream) -> None:
    odd = tmp_path / "a b%20#c"
    assert serve(odd / "agent.sock", verdicts, lambda agent: agent.status()).node == "n1"


def test_the_cluster_as_it_is_enforced_is_answered_once_there_is_one(
    tmp_path: pathlib.Path, verdicts: stream.Stream
) -> None:
    assert serve(tmp_path / "agent.sock", verdicts, lambda agent: agent.snapshot()) == agents.cluster()
    with pytest.raises(errors.Unreachable, match="nothing is enforced yet"):
        serve(tmp_path / "agent.sock", verdicts, lambda agent: agent.snapshot(), ready=False)
