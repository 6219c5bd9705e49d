"""Mutual TLS: who gets in, what they may ask, and certificates that are replaced while it runs."""

from __future__ import annotations

import contextlib
import ipaddress
import pathlib
import shutil
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from agent import errors
from agent.api.observer import observer_pb2 as pb
from agent.api.observer import observer_pb2_grpc as pb_grpc
from agent.hubble import server, tls
from tests.hubble import certificates, serving
from tests.support import agents

Credentials: TypeAlias = grpc.ChannelCredentials


class Pki:
    """An authority, the server's files, and a client's."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Make them."""
        self.directory = directory
        self.authority = certificates.Authority(directory / "ours")
        self.files = self.authority.sign(directory / "server")
        self.client = self.authority.sign(directory / "client", name="collector")
        self.tcp = server.Tcp(address=serving.LOOPBACK, port=serving.free_port(), files=self.files)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def pki(made: Pki, tmp_path: pathlib.Path) -> Pki:
    """One whose files a test may write to."""
    shutil.copytree(made.directory / "server", tmp_path / "server")
    own = object.__new__(Pki)
    own.directory, own.authority, own.client = tmp_path, made.authority, made.client
    own.files = tls.Files(
        certificate=tmp_path / "server" / "tls.crt",
        key=tmp_path / "server" / "tls.key",
        client_authority=made.files.client_authority,
    )
    own.tcp = server.Tcp(address=serving.LOOPBACK, port=serving.free_port(), files=own.files)
    return own


@contextlib.asynccontextmanager
async def connected(tcp: server.Tcp, client: Credentials, name: str = certificates.SERVER_NAME) -> AsyncIterator[Any]:
    """Connect anew, as a client of its own."""
    options = [("grpc.ssl_target_name_override", name), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(tcp.target, client, options=options) as channel:
        yield channel


def credentials(authority: pathlib.Path, client: tls.Files | None) -> Credentials:
    """Return those of a client, which trusts `authority`."""
    return grpc.ssl_channel_credentials(
        root_certificates=authority.read_bytes(),
        private_key=client.key.read_bytes() if client is not None else None,
        certificate_chain=client.certificate.read_bytes() if client is not None else None,
    )


async def answered(channel: Any) -> bool:
    """Tell whether the server answers on `channel`."""
    try:
        await pb_grpc.ObserverStub(channel).ServerStatus(pb.ServerStatusRequest(), timeout=5)
    except grpc.aio.AioRpcError:
        return False
    return True


def test_only_clients_of_the_authority_get_in(pki: Pki, tmp_path: pathlib.Path) -> None:
    other = certificates.Authority(tmp_path / "theirs").sign(tmp_path / "stranger", name="collector")
    trusted = pki.files.client_authority
    known, nobody, stranger = (credentials(trusted, one) for one in (pki.client, None, other))

    async def scenario(_world: serving.World) -> None:
        async with connected(pki.tcp, known) as channel:
            assert await answered(channel)
            health = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service="hubble.server.Observer")
            assert (await health.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
        async with connected(pki.tcp, nobody) as channel:
            assert not await answered(channel)
        async with connected(pki.tcp, stranger) as channel:
            assert not await answered(channel)
        async with grpc.aio.insecure_channel(pki.tcp.target) as channel:
            assert not await answered(channel)

    serving.run(tmp_path / "hubble.sock", scenario, tcp=pki.tcp)


def test_the_shape_of_the_services_is_not_told_to_other_machines(pki: Pki, tmp_path: pathlib.Path) -> None:
    known = credentials(pki.files.client_authority, pki.client)

    async def scenario(_world: serving.World) -> None:
        async with connected(pki.tcp, known) as channel:
            request = reflection_pb2.ServerReflectionRequest(list_services="*")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request])).read()
            assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED

    serving.run(tmp_path / "hubble.sock", scenario, tcp=pki.tcp)


def test_new_certificates_are_taken_without_a_restart_and_open_streams_go_on(pki: Pki, tmp_path: pathlib.Path) -> None:
    known = credentials(pki.files.client_authority, pki.client)

    async def scenario(world: serving.World) -> None:
        async with connected(pki.tcp, known) as channel:
            call = pb_grpc.ObserverStub(channel).GetFlows(pb.GetFlowsRequest(follow=True))
            await call.initial_metadata()
            pki.authority.sign(pki.files.key.parent, name="renamed")
            async with connected(pki.tcp, known) as another:
                assert not await answered(another), "its name is another now"
            async with connected(pki.tcp, known, "renamed") as another:
                assert await answered(another)
            world.verdicts.publish([agents.flow()])
            assert (await call.read()).node_name == "n1"
        assert world.told == []

    serving.run(tmp_path / "hubble.sock", scenario, tcp=pki.tcp)


def test_certificates_that_do_not_fit_are_told_once_and_the_ones_before_stay(pki: Pki, tmp_path: pathlib.Path) -> None:
    known = credentials(pki.files.client_authority, pki.client)

    async def scenario(world: serving.World) -> None:
        right = pki.files.key.read_bytes()
        pki.files.key.write_bytes(pki.client.key.read_bytes())
        for _ in range(2):
            async with connected(pki.tcp, known) as channel:
                assert await answered(channel)
        assert len(world.told) == 1
        assert "stay in use" in world.told[0]
        pki.files.key.write_bytes(right)
        async with connected(pki.tcp, known) as channel:
            assert await answered(channel)
        assert len(world.told) == 1

    serving.run(tmp_path / "hubble.sock", scenario, tcp=pki.tcp)


@pytest.mark.parametrize("field", ["certificate", "key", "client_authority"])
@pytest.mark.parametrize(
    "content", [None, b"", b"no PEM", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_files_that_cannot_be_used_end_the_start(pki: Pki, field: str, content: bytes | None) -> None:
    wrong = pki.directory / "wrong"
    if content is not None:
        wrong.write_bytes(content)
    paths = {name: getattr(pki.files, name) for name in ("certificate", "key", "client_authority")}
    with pytest.raises(errors.InvalidInput):
        tls.read(tls.Files(**{**paths, field: wrong}))


def test_a_place_that_cannot_be_bound_is_an_error_that_names_it(pki: Pki, tmp_path: pathlib.Path) -> None:
    async def scenario(_world: serving.World) -> None:
        raise AssertionError

    with pytest.raises(errors.InvalidInput, match="--hubble-address"):
        serving.run(
            tmp_path / "s.sock",
            scenario,
            tcp=server.Tcp(address=ipaddress.ip_address("192.0.2.1"), port=4244, files=pki.files),
        )
