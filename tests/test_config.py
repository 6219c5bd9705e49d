"""The command line of nodewall-agent: checked once, before anything is touched."""

from __future__ import annotations

import pathlib

import pytest

from agent import config, errors
from agent.model import endpoint


def arguments(tmp_path: pathlib.Path, *more: str) -> list[str]:
    source = tmp_path / "manifests"
    source.mkdir(exist_ok=True)
    return ["--node", "node-1", "--source", str(source), "--state-dir", str(tmp_path / "state"), *more]


def test_flags_have_the_documented_defaults(tmp_path: pathlib.Path) -> None:
    parsed = config.parse(arguments(tmp_path))
    assert parsed.command is config.Command.RUN
    assert parsed.engine is config.Engine.AUTO
    assert parsed.deny_mode is endpoint.DenyMode.REJECT
    assert parsed.hold_mode is endpoint.HoldMode.AUTO
    assert parsed.bpffs == pathlib.Path("/sys/fs/bpf")
    assert parsed.cni_results == pathlib.Path("/var/lib/cni/results")
    assert parsed.socket == tmp_path / "state" / "agent.sock"


def test_every_flag_is_read(tmp_path: pathlib.Path) -> None:
    more = ("--bpffs", "/b", "--cgroup-root", "/c", "--cni-results", "/r", "--deny-mode", "drop", "--hold", "strict")
    parsed = config.parse(arguments(tmp_path, *more, "--engine", "nfbpf", "--log-level", "debug"))
    assert (parsed.bpffs, parsed.cgroup_root, parsed.cni_results) == tuple(map(pathlib.Path, ("/b", "/c", "/r")))
    assert parsed.deny_mode is endpoint.DenyMode.DROP
    assert parsed.hold_mode is endpoint.HoldMode.STRICT
    assert parsed.engine is config.Engine.NFBPF
    assert parsed.log_level == "debug"


def test_uninstall_needs_no_source(tmp_path: pathlib.Path) -> None:
    parsed = config.parse(["uninstall", "--node", "node-1", "--state-dir", str(tmp_path)])
    assert parsed.command is config.Command.UNINSTALL
    assert parsed.source is None


@pytest.mark.parametrize("name", ["", "Node", "../x", "a/b", "a..b", "-a", "a-", "a_b", "x" * 254])
def test_a_node_name_that_is_no_dns_name_is_refused_for_it_becomes_a_directory(
    tmp_path: pathlib.Path, name: str
) -> None:
    given = arguments(tmp_path)
    given[1] = name
    with pytest.raises(errors.InvalidInput, match="--node"):
        config.parse([f"--node={name}", *given[2:]])


def test_a_source_that_is_no_directory_is_refused(tmp_path: pathlib.Path) -> None:
    given = arguments(tmp_path)
    given[3] = str(tmp_path / "nowhere")
    with pytest.raises(errors.InvalidInput, match="--source"):
        config.parse(given)


def test_a_state_directory_too_long_for_a_unix_socket_is_refused(tmp_path: pathlib.Path) -> None:
    given = arguments(tmp_path)
    given[5] = "/" + "d" * 100
    with pytest.raises(errors.InvalidInput, match="107 bytes"):
        config.parse(given)


def test_an_unknown_flag_is_usage(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        config.parse(arguments(tmp_path, "--engin", "auto"))
    assert ended.value.code == 2
    assert "--engin" in capsys.readouterr().err
