"""The self-test with the DaemonSet's capabilities: what it shows, what it could not, and what it leaves alone."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest

from agent import errors
from agent.datapath import plan
from agent.datapath.bpf import attempts, cookies, layout, links, maps, packet_proof, selftest, socket_loader
from agent.datapath.bpf import datapath as datapath_
from agent.model import net, verdict
from tests.bpf import conftest, node
from tests.support import capabilities

pytestmark = pytest.mark.root

NAME = "test.selftest"
OPEN = """
import json, pathlib, sys
from agent.datapath.bpf import datapath
opened = datapath.BPFDatapath(node=sys.argv[1], bpffs=pathlib.Path(sys.argv[2]), cgroup_root=pathlib.Path(sys.argv[3]))
report = opened.open()
print(json.dumps({"proved": report.proved, "unproved": report.unproved, "reasons": report.reasons}))
"""
PROBE = (layout.ENDPOINT_PROBE, layout.ENDPOINT_PROBE)


@pytest.fixture(scope="module")
def home() -> Iterator[node.Node]:
    with node.running(pods=0) as running:
        try:
            yield running
        finally:
            opened(running).uninstall()


def opened(home: node.Node) -> datapath_.BPFDatapath:
    return datapath_.BPFDatapath(node=NAME, bpffs=conftest.BPFFS, cgroup_root=home.cgroup)


def open_as(names: tuple[str, ...], home: node.Node, *, inside: str = "") -> Mapping[str, list[str]]:
    """Open the datapath in a process with these capabilities alone, in the cgroup `inside` the node's."""
    command = [*capabilities.only(names), sys.executable, "-c", OPEN, NAME, str(conftest.BPFFS), str(home.cgroup)]
    joined = ["sh", "-c", 'echo $$ >"$0"/cgroup.procs && exec "$@"', str(home.cgroup / inside), *command]
    done = subprocess.run(joined if inside else command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout)
    return found


@contextlib.contextmanager
def read_only(home: node.Node) -> Iterator[str]:
    """Let nobody without CAP_DAC_OVERRIDE make a cgroup below the node's, and name one that is there."""
    group = home.cgroup / "agent"
    group.mkdir()
    home.cgroup.chmod(0o555)
    try:
        yield group.name
    finally:
        home.cgroup.chmod(0o755)
        group.rmdir()


def test_every_hook_is_shown_to_refuse_with_the_capabilities_of_the_daemonset(home: node.Node) -> None:
    """Must show 9: no CAP_SYS_ADMIN, and a cgroup tree that is read-only, as the container sees it."""
    assert capabilities.UNPRIVILEGED_BPF.read_text().strip() != "0", "BPF asks for no capability here"
    with read_only(home) as group:
        told = open_as(capabilities.DAEMONSET, home, inside=group)
    assert told["unproved"] == []
    sockets, packets, sources, attached = told["proved"]
    assert sockets.startswith(f"by function: {', '.join(attempts.HOOKS)} refused")
    assert packets.startswith("by function: nw_forward4 and nw_forward6")
    assert attached.startswith("by their links alone: ")
    assert sources == "by function: nw_source4, nw_source6 dropped what we forged"
    assert all((hook.program in attached) is (hook.program not in sources) for hook in links.HOOKS)


def test_an_agent_outside_the_cgroup_says_that_nothing_was_shown(home: node.Node) -> None:
    with read_only(home):
        told = open_as(capabilities.DAEMONSET, home)
    (line,) = told["unproved"]
    assert line.startswith("the socket layer is not proved: no cgroup can be made in")
    assert not any("connect4" in line for line in told["proved"])


def test_hooks_that_are_not_attached_are_found_out(home: node.Node) -> None:
    first = opened(home)
    first.open()
    for name in socket_loader.ATTACH_TYPES:
        first._links.detach(name)
    with pytest.raises(errors.NotSupported, match=r"the socket layer at .*connect4: Success"):
        run(first, home)
    first.close()


def test_a_source_check_that_is_not_at_its_hook_is_not_claimed_to_have_been_seen(home: node.Node) -> None:
    first = opened(home)
    first.open()
    first._links.detach("nw_source6")
    _, _, sources, attached = run(first, home).proved
    assert sources == "by function: nw_source4 dropped what we forged"
    assert "nw_source6" in attached
    first.close()


def test_nothing_of_the_test_is_left_even_by_one_that_was_cut_short(home: node.Node) -> None:
    first = opened(home)
    first.open()
    empty = first.tables()
    assert not any(empty.content(table) for table in plan.Table)
    cut_short(first._maps, cookie=cookies.own())
    first._maps.upsert(plan.Table.EP_BY_IP, {packet_proof.SUBJECT4: PROBE})
    assert first._maps.tables() != empty
    assert not run(first, home).unproved
    assert first._maps.tables() == empty
    first.close()


def test_what_a_test_leaves_that_is_cut_short_denies_one_address_and_port_by_udp(home: node.Node) -> None:
    first = opened(home)
    first.open()
    cut_short(first._maps, cookie=cookies.own())
    other = ipaddress.ip_address("192.0.2.2")
    udp, tcp = socket.SOCK_DGRAM, socket.SOCK_STREAM
    server, port = attempts.SERVERS[0], attempts.PORT
    assert refused(home, udp, server, port)
    assert not any(refused(home, *dialled) for dialled in ((udp, server, port + 1), (udp, other, port)))
    assert not any(refused(home, *dialled) for dialled in ((tcp, server, port), (tcp, other, port)))
    first.close()
    first.open()
    assert not refused(home, udp, server, port), "the next agent removes what is left"
    first.close()


def test_no_other_process_of_the_node_is_refused_while_the_test_runs(home: node.Node) -> None:
    """The rows speak of the namespace that all of them live in."""
    first = opened(home)
    first.open()
    child = subprocess.Popen(
        ["sh", "-c", 'echo $$ >"$0"/cgroup.procs && exec "$@"', str(home.cgroup), sys.executable, "-c", DIALS],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "dialling\n"
        for _ in range(3):
            assert not run(first, home).unproved
        out, _ = child.communicate("\n", timeout=node.CHILD_SECONDS)
    finally:
        child.kill()
        child.wait()
    dialled, refusals = json.loads(out)
    assert dialled > 0 == refusals
    first.close()


DIALS = """
import json, select, socket, sys
print("dialling", flush=True)
dialled = refused = 0
while not select.select([sys.stdin], [], [], 0.0005)[0]:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for host in ("192.0.2.2", "127.0.0.1"):
            with socket.socket(socket.AF_INET, kind) as one:
                one.setblocking(False)
                dialled += 1
                refused += one.connect_ex((host, 9)) in (1, 13)
print(json.dumps([dialled, refused]))
"""


def run(first: datapath_.BPFDatapath, home: node.Node) -> selftest.Finding:
    test = selftest.SelfTest(first._maps, first._program_directory(), home.cgroup)
    return test.run(frozenset(verdict.Layer))


def cut_short(written: maps.Maps, *, cookie: int) -> None:
    for table, content in (*selftest._probe_rows(), (plan.Table.EP_BY_NETNS, {cookie: PROBE})):
        written.upsert(table, content)


def refused(home: node.Node, kind: socket.SocketKind, server: net.Address, port: int) -> bool:
    """Tell whether a process of the node is refused."""
    dial = (
        "import socket, sys\n"
        f"with socket.socket(socket.AF_INET, {kind.value}) as one:\n"
        f"    one.setblocking(False)\n    print(one.connect_ex(({str(server)!r}, {port})))"
    )
    joined = ["sh", "-c", 'echo $$ >"$0"/cgroup.procs && exec "$@"', str(home.cgroup), sys.executable, "-c", dial]
    return int(subprocess.run(joined, check=True, capture_output=True, text=True).stdout) in {1, 13}


def test_a_layer_of_its_own_says_only_what_it_has(home: node.Node) -> None:
    only = datapath_.BPFDatapath(
        node=NAME, bpffs=conftest.BPFFS, cgroup_root=home.cgroup, layers=frozenset({verdict.Layer.SOCKET})
    )
    (line,) = only.open().proved
    assert line.startswith("by function: connect4")
    only.close()
