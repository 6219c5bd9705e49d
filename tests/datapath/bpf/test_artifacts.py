"""Objects are found in one place, and a changed source is another build."""

from __future__ import annotations

import pathlib

import pytest

from agent.datapath.bpf import artifacts


def _library(root: pathlib.Path) -> pathlib.Path:
    for name in ("bpf/include", "build/bpf", "build/bcc-headers"):
        (root / name).mkdir(parents=True)
    (root / "bpf" / "socket.bpf.c").write_text("int main;")
    (root / "bpf" / "include" / "types.h").write_text("struct event;")
    (root / "build" / "bpf" / artifacts.PACKET_OBJECT).write_bytes(b"packet")
    (root / "build" / "bpf" / artifacts.TC_OBJECT).write_bytes(b"tc")
    (root / "build" / "bpf" / artifacts.DNS_OBJECT).write_bytes(b"dns")
    (root / "build" / "bpf" / artifacts.DNS_PLAIN_OBJECT).write_bytes(b"dns plain")
    (root / "build" / "bpf" / artifacts.NAMES_OBJECT).write_bytes(b"names")
    return root


def test_the_environment_comes_first(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(artifacts.ENVIRONMENT, str(_library(tmp_path)))
    assert artifacts.find().root == tmp_path


@pytest.mark.parametrize(
    "name",
    [
        "bpf/include/types.h",
        "bpf/socket.bpf.c",
        "build/bpf/packet.bpf.o",
        "build/bpf/tc_source.bpf.o",
        "build/bpf/dns_learn.bpf.o",
        "build/bpf/dns_learn_plain.bpf.o",
        "build/bpf/names_filter.bpf.o",
    ],
)
def test_any_change_is_another_fingerprint(tmp_path: pathlib.Path, name: str) -> None:
    library = artifacts.Artifacts(_library(tmp_path))
    before = library.fingerprint()
    assert library.fingerprint() == before
    (tmp_path / name).write_text("changed")
    assert library.fingerprint() != before
