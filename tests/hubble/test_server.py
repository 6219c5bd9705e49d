"""The socket, its bounds, health, reflection, peers, and readers that go away."""

from __future__ import annotations

import asyncio
import pathlib
import stat

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agent import errors
from agent.api.observer import observer_pb2 as pb
from agent.api.peer import peer_pb2, peer_pb2_grpc
from agent.hubble import server
from tests.hubble import serving


@pytest.fixture
def socket(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state" / "hubble.sock"


def test_only_root_gets_to_the_socket_which_goes_with_the_server(socket: pathlib.Path) -> None:
    socket.parent.mkdir(mode=0o755)
    socket.write_text("left behind")

    modes: list[int] = []

    async def scenario(_world: serving.World) -> None:
        modes.extend(path.stat().st_mode for path in (socket.parent, socket))

    serving.run(socket, scenario)
    assert [oct(mode) for mode in modes] == [oct(stat.S_IFDIR | 0o700), oct(stat.S_IFSOCK | 0o600)]
    assert not socket.exists()


def test_a_socket_that_cannot_be_bound_is_an_error_that_names_it(tmp_path: pathlib.Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")

    async def scenario(_world: serving.World) -> None:
        raise AssertionError

    with pytest.raises(errors.InvalidInput, match="--state-dir"):
        serving.run(blocked / "hubble.sock", scenario)


def test_it_is_healthy_under_every_name_it_is_asked_by(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        health = health_pb2_grpc.HealthStub(world.channel)
        for name in ("", "hubble.server.Observer", "observer.Observer"):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await health.Check(health_pb2.HealthCheckRequest(service="other"))
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND

    serving.run(socket, scenario)


def test_the_shape_of_every_service_can_be_asked(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        reflection = reflection_pb2_grpc.ServerReflectionStub(world.channel)

        async def ask() -> set[str]:
            request = reflection_pb2.ServerReflectionRequest(list_services="*")
            async for answer in reflection.ServerReflectionInfo(iter([request])):
                return {service.name for service in answer.list_services_response.service}
            return set()

        assert await ask() >= {"observer.Observer", "peer.Peer", "grpc.health.v1.Health"}

    serving.run(socket, scenario)


def test_the_one_peer_is_this_node_and_the_stream_stays(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        call = peer_pb2_grpc.PeerStub(world.channel).Notify(peer_pb2.NotifyRequest())
        first = await call.read()
        assert (first.name, first.address, first.type) == ("n1", f"unix://{socket}", peer_pb2.PEER_ADDED)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await call.read()
        call.cancel()

    serving.run(socket, scenario)


def test_a_reader_that_goes_away_leaves_nothing_behind(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        calls = [world.observer.GetFlows(pb.GetFlowsRequest(follow=True)) for _ in range(5)]
        for call in calls:
            await call.initial_metadata()
        assert world.ring.readers == 5
        for call in calls:
            call.cancel()
        await serving.none_read(world.ring)

    serving.run(socket, scenario)


def test_more_calls_than_there_may_be_are_refused_and_hurt_nobody(
    socket: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CALLS_MOST", 3)

    async def scenario(world: serving.World) -> None:
        calls = [world.observer.GetFlows(pb.GetFlowsRequest(follow=True)) for _ in range(3)]
        for call in calls:
            await call.initial_metadata()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.observer.ServerStatus(pb.ServerStatusRequest())
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in calls:
            call.cancel()

    serving.run(socket, scenario)


def test_a_request_that_is_too_large_is_refused(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        request = pb.GetFlowsRequest(field_mask={"paths": ["x" * server.REQUEST_BYTES_MOST]})
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.observer.GetFlows(request).read()
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    serving.run(socket, scenario)


def test_a_server_that_ends_ends_its_followers(socket: pathlib.Path) -> None:
    async def all_of_it() -> None:
        world = serving.World(socket)
        async with asyncio.timeout(10):
            async with world.open():
                call = world.observer.GetFlows(pb.GetFlowsRequest(follow=True))
                await call.initial_metadata()
            assert world.ring.readers == 0
            assert call.done()

    asyncio.run(all_of_it())
