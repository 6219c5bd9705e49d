"""What the agent says without each capability that its engine needs: the table of daemonset/README.md, row by row.

Each row starts the agent, as uid 0 and in a network namespace of its own, with what daemonset/ gives it less one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

import pytest

from agent import errors, patience
from agent.datapath import probe
from agent.rpc import client, views
from tests.bpf import node as node_
from tests.support import capabilities, kernel

pytestmark = [pytest.mark.root, pytest.mark.slow]

README = pathlib.Path(__file__).parents[2] / "daemonset" / "README.md"
BPFFS = pathlib.Path("/sys/fs/bpf")
NAME = "test.capabilities"
WAIT_S = 60.0
PROGRAM = "nodewall-agent: "


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table, as the manifests name engines and capabilities."""

    engine: str
    given: tuple[str, ...]
    without: str
    iptables: str = "nft"

    @property
    def title(self) -> str:
        variant = "" if self.engine in {"socket+nfbpf", "auto"} else f" ({self.iptables})"
        return f"{self.engine}{variant}"


BPF, IPTABLES = capabilities.DAEMONSET, capabilities.IPTABLES
ENDS = (
    *(Row(engine="socket+nfbpf", given=BPF, without=one) for one in BPF),
    *(Row(engine="socket+iptables", given=IPTABLES, without=one) for one in IPTABLES),
    *(
        Row(engine="iptables", given=("net_admin", "net_raw"), without=one, iptables=variant)
        for variant in ("nft", "legacy")
        for one in ("net_admin", "net_raw")
    ),
)
GOES_ON = (
    Row(engine="auto", given=IPTABLES, without="bpf"),
    Row(engine="auto", given=IPTABLES, without="perfmon"),
    Row(engine="auto", given=IPTABLES, without="net_raw"),
)


@pytest.fixture(scope="module", autouse=True)
def node() -> Iterator[node_.Node]:
    lacking = kernel.lacks_packet_layer()
    if lacking:
        pytest.skip(lacking)
    with node_.running(pods=0) as running:
        yield running


@pytest.fixture
def home(node: node_.Node, tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    for name in ("manifests", "cni"):
        (tmp_path / name).mkdir()
    yield tmp_path
    command = [*command_of(tmp_path, node, "uninstall"), "--node", NAME, "--state-dir", str(tmp_path / "state")]
    subprocess.run(command, check=True, capture_output=True)


def command_of(home: pathlib.Path, node: node_.Node, *words: str, given: Sequence[str] = IPTABLES) -> list[str]:
    """Return the agent's command in the node's cgroup, with the capabilities given."""
    joined = ["sh", "-c", 'echo $$ >"$0"/cgroup.procs && exec "$@"', str(node.cgroup)]
    lock = f"XTABLES_LOCKFILE={home / 'xtables.lock'}"
    return [*joined, *capabilities.only(given), "env", lock, sys.executable, "-m", "agent.daemon", *words]


def started(row: Row, home: pathlib.Path, node: node_.Node) -> subprocess.Popen[str]:
    flags = ["--node", NAME, "--source", str(home / "manifests"), "--state-dir", str(home / "state")]
    flags += ["--cni-results", str(home / "cni"), "--bpffs", str(BPFFS), "--cgroup-root", str(node.cgroup)]
    flags += ["--health-address", "none", "--metrics-address", "none", "--iptables", row.iptables]
    flags += ["--engine", row.engine.replace("socket+nfbpf", "nfbpf")]
    given = [one for one in row.given if one != row.without]
    return subprocess.Popen(command_of(home, node, *flags, given=given), stderr=subprocess.PIPE, text=True)


@contextlib.contextmanager
def ready(row: Row, home: pathlib.Path, node: node_.Node) -> Iterator[views.Status]:
    """Run an agent until it is ready."""
    process = started(row, home, node)
    try:
        yield _status(process, home / "state" / "agent.sock")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=patience.seconds(WAIT_S))
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def _status(process: subprocess.Popen[str], socket: pathlib.Path) -> views.Status:
    deadline = time.monotonic() + patience.seconds(WAIT_S)
    status = None
    with client.AgentClient(socket) as asked:
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(errors.Unreachable):
                status = asked.status()
                if not status.not_ready:
                    return status
            time.sleep(0.1)
    process.kill()
    pytest.fail(f"not ready: {status}\n{process.communicate()[1]}")


@pytest.mark.parametrize("variant", ["legacy", "nft"])
def test_iptables_may_ask_what_is_learned(variant: str, home: pathlib.Path, node: node_.Node) -> None:
    """The capabilities of `socket+iptables` are enough to learn names and to have rules ask for them."""
    with ready(Row(engine="socket+iptables", given=IPTABLES, without="", iptables=variant), home, node) as status:
        assert not [reason for reason in status.mode_reasons if "by their names" in reason]
        with client.AgentClient(home / "state" / "agent.sock") as asked:
            assert asked.names().learns


def in_table(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def test_with_every_capability_that_the_daemonset_gives_the_agent_is_ready_and_has_proved_it(
    home: pathlib.Path, node: node_.Node
) -> None:
    assert probe.cgroup_root(node.cgroup) == node.cgroup
    with ready(Row(engine="auto", given=BPF, without=""), home, node) as status:
        assert status.mode == "socket+nfbpf"
        assert status.proved[0].startswith("by function: connect4")


@pytest.mark.parametrize("row", ENDS, ids=lambda row: f"{row.title} without {row.without}")
def test_an_engine_that_was_asked_for_ends_in_one_line_that_names_capability_and_field(
    row: Row, home: pathlib.Path, node: node_.Node
) -> None:
    process = started(row, home, node)
    _, said = process.communicate(timeout=patience.seconds(WAIT_S))
    assert process.returncode == 1
    assert said.count("\n") == 1
    name = row.without.upper()
    assert f"CAP_{name}: run as root, or add {name} to securityContext.capabilities.add" in said
    line = in_table(f"`{row.title}`", f"`{name}`", "ends", said.strip().removeprefix(PROGRAM).partition(": run as")[0])
    assert line in README.read_text().splitlines()


@pytest.mark.parametrize("row", GOES_ON, ids=lambda row: f"{row.title} without {row.without}")
def test_left_to_choose_the_agent_takes_an_engine_that_can_do_without_and_says_why(
    row: Row, home: pathlib.Path, node: node_.Node
) -> None:
    with ready(row, home, node) as status:
        name = row.without.upper()
        why = [one.partition(": run as")[0] for one in status.mode_reasons if f"CAP_{name}" in one]
        line = in_table(f"`{row.title}`", f"`{name}`", f"runs `{status.mode}`", "; ".join(why) or "nothing: not needed")
        assert line in README.read_text().splitlines()


def test_uninstall_names_what_it_lacks(home: pathlib.Path, node: node_.Node) -> None:
    flags = ["uninstall", "--node", NAME, "--state-dir", str(home / "state"), "--bpffs", str(BPFFS)]
    (BPFFS / "nodewall" / NAME.replace(".", "_")).mkdir(parents=True)
    for without in IPTABLES:
        given = [one for one in IPTABLES if one != without]
        ended = subprocess.run(
            command_of(home, node, *flags, given=given), check=False, capture_output=True, text=True, env=os.environ
        )
        assert ended.returncode == 1
        assert f"removing what enforces is not available: it needs CAP_{without.upper()}" in ended.stderr
        assert ended.stderr.count("\n") == 1
