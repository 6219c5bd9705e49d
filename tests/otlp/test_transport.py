"""TLS to a collector: by files, which are replaced while it runs, and never without being asked to."""

from __future__ import annotations

import asyncio
import os
import pathlib
import shutil

import pytest

from agent import errors
from agent.hubble import tls
from agent.model import collector as collector_
from agent.otlp import credentials, transport, wire
from tests.hubble import certificates
from tests.otlp import collector

EMPTY = b""


class Pki:
    """An authority, the collector's files, and the agent's in a directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Make them."""
        authority = certificates.Authority(directory / "ours")
        self.server = authority.sign(directory / "server", name="localhost")
        self.agent = directory / "agent"
        authority.sign(self.agent, name="agent")
        shutil.copy(authority.certificate, self.agent / "ca.crt")
        self.strangers = directory / "strangers"
        stranger = certificates.Authority(directory / "theirs")
        stranger.sign(self.strangers, name="agent")
        shutil.copy(stranger.certificate, self.strangers / "ca.crt")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


def told(endpoint: str, directory: pathlib.Path, **environment: str) -> collector_.Collector:
    variables = {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in environment.items()}
    found = collector_.collector(endpoint, flows=collector_.Flows.DENIED, certificates=directory, environment=variables)
    assert found is not None
    return found


def exported(
    files: tls.Files | None, to: collector_.Collector | None = None, *, directory: pathlib.Path, scheme: str = "https"
) -> wire.Answer | transport.Failed:
    """Send one empty request to a collector with `files`."""

    async def scenario() -> wire.Answer | transport.Failed:
        async with asyncio.timeout(20), collector.serving(collector.Collector(), files=files) as port:
            sender = transport.Transport(to or told(f"{scheme}://127.0.0.1:{port}", directory), tell=print)
            try:
                return await sender.export(EMPTY, timeout_s=5)
            finally:
                await sender.close()

    return asyncio.run(scenario())


def test_both_ends_show_certificates(made: Pki) -> None:
    assert exported(made.server, directory=made.agent) == wire.Answer(rejected=0, message="")


@pytest.mark.parametrize("how", ["no certificate", "another authority's", "no authority", "no TLS"])
def test_who_cannot_be_trusted_gets_nothing(made: Pki, tmp_path: pathlib.Path, how: str) -> None:
    directory, scheme = tmp_path, "https"
    match how:
        case "no certificate":
            shutil.copy(made.agent / "ca.crt", tmp_path)
        case "another authority's":
            directory = made.strangers
        case "no authority":
            shutil.copy(made.agent / "tls.crt", tmp_path)
            shutil.copy(made.agent / "tls.key", tmp_path)
        case _:
            directory, scheme = made.agent, "http"
    failed = exported(made.server, directory=directory, scheme=scheme)
    assert isinstance(failed, transport.Failed)
    assert failed.code == "UNAVAILABLE"


def test_who_is_asked_for_tls_does_not_speak_without(made: Pki) -> None:
    failed = exported(None, directory=made.agent)
    assert isinstance(failed, transport.Failed)
    assert failed.code == "UNAVAILABLE"


def test_certificates_that_are_replaced_are_taken_and_a_misfit_is_told_while_the_last_good_ones_stay(
    made: Pki, tmp_path: pathlib.Path
) -> None:
    said: list[str] = []
    shutil.copytree(made.strangers, tmp_path / "agent")

    async def scenario() -> None:
        async with asyncio.timeout(20), collector.serving(collector.Collector(), files=made.server) as port:
            sender = transport.Transport(told(f"https://127.0.0.1:{port}", tmp_path / "agent"), tell=said.append)
            assert isinstance(await sender.export(EMPTY, timeout_s=5), transport.Failed)
            for name in ("ca.crt", "tls.crt", "tls.key"):
                shutil.copy(made.agent / name, tmp_path / "new")
                os.replace(tmp_path / "new", tmp_path / "agent" / name)  # noqa: PTH105 - as kubelet does
            assert isinstance(await sender.export(EMPTY, timeout_s=5), wire.Answer)
            (tmp_path / "agent" / "tls.key").write_text("no key")
            assert isinstance(await sender.export(EMPTY, timeout_s=5), wire.Answer)
            assert isinstance(await sender.export(EMPTY, timeout_s=5), wire.Answer)
            await sender.close()

    asyncio.run(scenario())
    [told_once] = said
    assert "OTLP certificate" in told_once
    assert "the ones before stay in use" in told_once


def test_files_that_are_named_go_before_those_of_the_directory(made: Pki) -> None:
    named = told(
        "https://c:4317",
        made.strangers,
        CERTIFICATE=str(made.agent / "ca.crt"),
        CLIENT_CERTIFICATE=str(made.agent / "tls.crt"),
        CLIENT_KEY=str(made.agent / "tls.key"),
    )
    files = credentials.Credentials(named)._files()
    assert files == credentials.Files(
        authority=made.agent / "ca.crt", certificate=made.agent / "tls.crt", key=made.agent / "tls.key"
    )


@pytest.mark.parametrize(
    ("file", "content", "field"),
    [
        ("ca.crt", "no certificate", "OTLP authority"),
        ("ca.crt", "", "OTLP authority"),
        ("tls.crt", "no certificate", "OTLP certificate"),
        ("tls.key", None, "OTLP key"),
    ],
)
def test_files_that_cannot_be_used_end_the_start_and_say_which(
    made: Pki, tmp_path: pathlib.Path, file: str, content: str | None, field: str
) -> None:
    shutil.copytree(made.agent, tmp_path / "agent")
    if content is None:
        (tmp_path / "agent" / file).unlink()
    else:
        (tmp_path / "agent" / file).write_text(content)
    with pytest.raises(errors.InvalidInput) as caught:
        transport.Transport(told("https://c:4317", tmp_path / "agent"), tell=print)
    assert caught.value.field == field
    assert str(tmp_path / "agent" / file) in str(caught.value)


def test_without_tls_no_file_is_looked_at(made: Pki, tmp_path: pathlib.Path) -> None:
    (tmp_path / "ca.crt").write_text("no certificate")
    assert exported(None, directory=tmp_path, scheme="http") == wire.Answer(rejected=0, message="")
    assert made.agent.exists()
