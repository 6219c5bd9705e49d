"""The node's pods, with real network namespaces, real veths and real inotify."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import ipaddress
import json
import os
import pathlib
import secrets
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator

import pytest

from agent import clock, errors
from agent.datapath.bpf import cookies
from agent.model import endpoint
from agent.node import cni_cache, links, netns, sandboxes
from agent.sources import inotify
from tests.node import test_cni_cache

NETNS = pathlib.Path("/run/netns")


@pytest.fixture
def namespace() -> Iterator[str]:
    """Make a named network namespace with a veth into ours; its name is also the veth's."""
    name = f"nwt{secrets.token_hex(3)}"
    try:
        ip("netns", "add", name)
        ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
        yield name
    finally:
        for command in (("link", "delete", name), ("netns", "delete", name)):
            subprocess.run(["ip", *command], check=False, capture_output=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def write(
    results: pathlib.Path, name: str, *, pod: str = "a", interface: str = "eth0", address: str = "10.9.0.2/24"
) -> pathlib.Path:
    path = NETNS / name
    document = test_cni_cache.file(
        netns=str(path),
        ifName=interface,
        cniArgs=[["K8S_POD_NAMESPACE", "x"], ["K8S_POD_NAME", pod], ["K8S_POD_UID", "u"]],
        result={
            "interfaces": [{"name": name}, {"name": interface, "sandbox": str(path)}],
            "ips": [{"address": address, "interface": 1}],
        },
    )
    written = results / f"pods-{name}-{interface}"
    written.write_text(json.dumps(document))
    return written


@contextlib.asynccontextmanager
async def watching(results: pathlib.Path) -> AsyncIterator[AsyncIterator[sandboxes.Reading]]:
    with inotify.Inotify(concerns=lambda _name: True) as changes:
        readings = sandboxes.SandboxWatch(results, changes=changes, clock=clock.SystemClock()).watch()
        async with asyncio.timeout(10):
            yield readings


def test_a_node_without_a_cache_has_no_pods(tmp_path: pathlib.Path) -> None:
    async def scenario() -> None:
        async with watching(tmp_path / "later") as readings:
            assert (await anext(readings)).sandboxes == ()

    asyncio.run(scenario())


def test_a_pod_whose_namespace_is_not_there_yet_is_waited_for_and_hides_no_other(tmp_path: pathlib.Path) -> None:
    with inotify.Inotify(concerns=lambda _name: True) as changes:
        write(tmp_path, "nwt-nowhere")
        (tmp_path / "broken").write_text("{")
        (tmp_path / "empty").write_text("")
        reading = sandboxes.SandboxWatch(tmp_path, changes=changes, clock=clock.SystemClock(), dump_links=dict).read()
    assert reading.sandboxes == ()
    assert [attachment.pod for attachment in reading.waiting] == ["a"]
    assert [problem.ref.name for problem in reading.problems] == ["broken"]


def test_the_veth_is_found_beside_its_bridge_and_prerouting_sees_the_bridge() -> None:
    there = {
        "cni0": links.Link(index=3, kind="bridge", master=0),
        "veth1": links.Link(index=7, kind="veth", master=3),
        "veth2": links.Link(index=8, kind="veth", master=0),
    }
    assert links.pod_link(there, ("cni0", "veth1")) == (7, 3)
    assert links.pod_link(there, ("veth2",)) == (8, 8)
    assert links.pod_link(there, ("gone", "cni0")) == (0, 0)


def test_a_file_that_is_no_namespace_has_no_cookie(tmp_path: pathlib.Path) -> None:
    plain = tmp_path / "cni-1"
    plain.touch()
    assert netns.cookie(plain) is None
    assert netns.cookie(tmp_path / "cni-2") is None


def test_both_ways_to_a_cookie_give_what_a_socket_inside_says() -> None:
    with socket.socket() as inside:
        expected = int.from_bytes(inside.getsockopt(socket.SOL_SOCKET, cookies.SO_NETNS_COOKIE, 8), "little")
    assert netns.cookie(pathlib.Path("/proc/self/ns/net")) == expected


@pytest.mark.root
def test_a_thread_asks_inside_the_namespace_and_no_other_thread_moves(namespace: str) -> None:
    before = pathlib.Path("/proc/self/ns/net").readlink()
    with netns._opened(NETNS / namespace) as file:
        assert netns._asked_inside(file) == netns.cookie(NETNS / namespace)
    assert pathlib.Path("/proc/self/ns/net").readlink() == before
    assert netns.cookie(NETNS / namespace) != netns.cookie(pathlib.Path("/proc/self/ns/net"))


@pytest.mark.root
def test_a_pod_is_found_when_cni_has_written_its_result(tmp_path: pathlib.Path, namespace: str) -> None:
    async def scenario() -> None:
        async with watching(tmp_path) as readings:
            assert (await anext(readings)).sandboxes == ()
            write(tmp_path, namespace)
            (found,) = (await anext(readings)).sandboxes
        index = socket.if_nametoindex(namespace)
        assert found == endpoint.Sandbox(
            namespace="x",
            pod="a",
            uid="u",
            netns_cookie=netns.cookie(NETNS / namespace) or 0,
            veth_ifindex=index,
            ingress_ifindex=index,
            addresses=(ipaddress.ip_address("10.9.0.2"),),
        )

    asyncio.run(scenario())


def test_the_nodes_own_namespace_is_no_pods(tmp_path: pathlib.Path) -> None:
    """A file that outlived its pod may name a /proc/PID/ns/net that is a process of the node by now."""
    document = test_cni_cache.file(netns=f"/proc/{os.getpid()}/ns/net")
    (tmp_path / "stale").write_text(json.dumps(document))
    with inotify.Inotify(concerns=lambda _name: True) as changes:
        reading = sandboxes.SandboxWatch(tmp_path, changes=changes, clock=clock.SystemClock(), dump_links=dict).read()
    assert reading.sandboxes == ()
    assert reading.waiting == ()
    (problem,) = reading.problems
    assert "own network namespace" in problem.reason


@pytest.mark.root
def test_a_pod_is_known_without_a_cookie_where_the_kernel_tells_none(
    tmp_path: pathlib.Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets are judged by address: only the socket layer, which such a kernel has not, needs it."""

    def refused(_path: pathlib.Path) -> int:
        raise errors.NotSupported(feature=cookies.FEATURE, needs=cookies.NEEDS)

    monkeypatch.setattr(netns, "cookie", refused)
    write(tmp_path, namespace)
    with inotify.Inotify(concerns=lambda _name: True) as changes:
        reading = sandboxes.SandboxWatch(tmp_path, changes=changes, clock=clock.SystemClock()).read()
    assert [(one.pod, one.netns_cookie, bool(one.veth_ifindex)) for one in reading.sandboxes] == [("a", 0, True)]
    assert (reading.problems, reading.waiting) == ((), ())


@pytest.mark.root
def test_a_pod_without_a_known_veth_is_told_of(tmp_path: pathlib.Path, namespace: str) -> None:
    """Nobody checks the source of what it sends: not every CNI writes down the host's interface."""
    write(tmp_path, namespace)
    with inotify.Inotify(concerns=lambda _name: True) as changes:
        reading = sandboxes.SandboxWatch(tmp_path, changes=changes, clock=clock.SystemClock(), dump_links=dict).read()
        (found,), (problem,) = reading.sandboxes, reading.problems
        assert (found.veth_ifindex, found.ingress_ifindex) == (0, 0)
        assert str(problem.ref) == "Pod x/a"
        assert "source" in problem.reason
        assert sandboxes.SandboxWatch(tmp_path, changes=changes, clock=clock.SystemClock()).read().problems == ()


@pytest.mark.root
def test_cni_del_removes_the_sandbox(tmp_path: pathlib.Path, namespace: str) -> None:
    async def scenario() -> None:
        written = write(tmp_path, namespace)
        async with watching(tmp_path) as readings:
            assert len((await anext(readings)).sandboxes) == 1
            written.unlink()
            assert (await anext(readings)).sandboxes == ()

    asyncio.run(scenario())


@pytest.mark.root
def test_a_namespace_that_goes_away_without_cni_del_takes_its_sandbox_with_it(
    tmp_path: pathlib.Path, namespace: str
) -> None:
    async def scenario() -> None:
        write(tmp_path, namespace)
        async with watching(tmp_path) as readings:
            assert len((await anext(readings)).sandboxes) == 1
            ip("netns", "delete", namespace)
            assert (await anext(readings)).sandboxes == ()

    asyncio.run(scenario())


@pytest.mark.root
def test_a_namespace_file_that_is_bound_late_is_tried_again(tmp_path: pathlib.Path, namespace: str) -> None:
    late = f"{namespace}late"
    libc = ctypes.CDLL(None, use_errno=True)

    async def scenario() -> None:
        (NETNS / late).touch()
        write(tmp_path, late)
        async with watching(tmp_path) as readings:
            assert (await anext(readings)).sandboxes == ()
            await asyncio.sleep(0.03)
            assert libc.mount(os.fsencode(NETNS / namespace), os.fsencode(NETNS / late), None, 4096, None) == 0
            (found,) = (await anext(readings)).sandboxes
            assert found.netns_cookie == netns.cookie(NETNS / namespace)

    try:
        asyncio.run(scenario())
    finally:
        libc.umount2(os.fsencode(NETNS / late), 2)
        (NETNS / late).unlink(missing_ok=True)


@pytest.mark.root
def test_of_several_interfaces_of_one_pod_the_first_is_its_identity(tmp_path: pathlib.Path, namespace: str) -> None:
    write(tmp_path, namespace, interface="net1", address="192.168.7.2/24")
    write(tmp_path, namespace)
    with inotify.Inotify(concerns=lambda _name: True) as changes:
        (found,) = sandboxes.SandboxWatch(tmp_path, changes=changes, clock=clock.SystemClock()).read().sandboxes
    assert [str(address) for address in found.addresses] == ["10.9.0.2"]


def test_an_attachment_that_stays_unreadable_is_told_as_a_problem_of_its_pod() -> None:
    found = cni_cache.decode(json.dumps(test_cni_cache.file()).encode(), name="pods")
    assert isinstance(found, cni_cache.Attachment)
    problem = sandboxes._unreadable(found)
    assert str(problem.ref) == "Pod x/a"
    assert "/run/netns/cni-1" in problem.reason
