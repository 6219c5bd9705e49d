"""The socket layer alone, and moving between it and both layers on one node: the maps are adopted either way."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent.datapath.bpf import conntrack, dns_loader, learner, names_filter, socket_loader, syscalls, tc
from agent.datapath.bpf import datapath as datapath_
from agent.model import net, verdict
from tests.bpf import conftest, node, packets, states, traffic
from tests.datapath import contract

pytestmark = pytest.mark.root
NAME = f"test-layers-{os.getpid()}"
SOCKET = frozenset({verdict.Layer.SOCKET})
PORT = 8080
PACKETS = 20
SECONDS = 0.8
WITHOUT_PACKETS = {*socket_loader.ATTACH_TYPES, *dns_loader.PROGRAMS, *names_filter.PROGRAMS}


@pytest.fixture(scope="module")
def home() -> Iterator[node.Node]:
    with node.running() as running:
        try:
            yield running
        finally:
            _datapath(running).uninstall()


@pytest.fixture
def socket_only(home: node.Node) -> Iterator[datapath_.BPFDatapath]:
    opened = _datapath(home, SOCKET)
    opened.open()
    opened.apply(contract.EMPTY)
    opened.remove_packet_layer()
    yield opened
    opened.close()


def _datapath(home: node.Node, layers: frozenset[verdict.Layer] = datapath_.EVERY_LAYER) -> datapath_.BPFDatapath:
    return datapath_.BPFDatapath(node=NAME, bpffs=conftest.BPFFS, cgroup_root=home.cgroup, layers=layers)


def _links(datapath: datapath_.BPFDatapath) -> set[str]:
    return {path.name for path in (datapath.events_path.parent / "links").iterdir()}


def _programs(datapath: datapath_.BPFDatapath) -> set[str]:
    return {path.name for path in datapath._program_directory().iterdir()}


def _holds_conntrack() -> bool:
    command = ("nft", "list", "table", "inet", conntrack.TABLE)
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _connect(address: net.Address) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        return client.connect_ex((str(address), PORT))


def _passes(home: node.Node) -> bool:
    """Tell whether one of many packets that no socket of an endpoint sends gets from the first pod to the second."""
    first, second = home.pods
    raw = packets.udp(first.address4, second.address4, PORT)

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as link:
            for _ in range(PACKETS):
                link.sendto(raw, ("eth0", packets.ETH_IPV4, 0, 0, first.mac))
                time.sleep(SECONDS / PACKETS)

    with second.started(traffic.receives(PORT, SECONDS)) as arrived:
        first.run(send)
        return arrived() > 0


def _learning(home: node.Node) -> set[str]:
    """Return the links of the learner at the pods' veths."""
    return {f"{hook.prefix}{pod.ifindex}" for hook in learner.HOOKS for pod in home.pods}


def test_the_socket_layer_alone_judges_no_packets_but_learns_names_for_who_does(
    socket_only: datapath_.BPFDatapath,
) -> None:
    assert _links(socket_only) == set(socket_loader.ATTACH_TYPES)
    assert _programs(socket_only) == WITHOUT_PACKETS
    assert socket_only.names_programs == socket_only._program_directory()
    assert not _holds_conntrack()


def test_the_socket_layer_alone_refuses_calls_and_leaves_packets_to_others(
    home: node.Node, socket_only: datapath_.BPFDatapath
) -> None:
    first, second = home.pods
    socket_only.attach_links(states.sandboxes(home, ingress_ifindex=1))
    assert _links(socket_only) == _learning(home).union(socket_loader.ATTACH_TYPES), "no check at a veth either"
    socket_only.apply(states.pods(home, egress={}))
    assert first.run(lambda: _connect(second.address4)) == errno.EACCES
    assert _passes(home)


def test_from_both_layers_to_the_socket_layer_nothing_is_out_of_force_until_packets_are_let_go(
    home: node.Node, socket_only: datapath_.BPFDatapath
) -> None:
    socket_only.close()
    both = _datapath(home)
    assert both.open().mode == datapath_.MODE
    both.apply(states.pods(home, egress={}))
    both.attach_links(states.sandboxes(home, ingress_ifindex=1))
    generation, links = both.tables().generation, _links(both)
    assert any(name.startswith(tc.SOURCE.prefix) for name in links)
    both.close()
    after = _datapath(home, SOCKET)
    assert after.open().mode == datapath_.SOCKET_MODE
    assert _links(after) == links, "what judged packets before goes on"
    assert not _passes(home)
    assert after.apply(states.pods(home, egress={})).generation == generation, "the maps were adopted"
    assert after.remove_packet_layer()
    assert _links(after) == _learning(home).union(socket_loader.ATTACH_TYPES)
    assert _programs(after) == WITHOUT_PACKETS
    assert not _holds_conntrack()
    assert _passes(home)
    assert not after.remove_packet_layer(), "there is nothing left to remove"
    first, second = home.pods
    assert first.run(lambda: _connect(second.address4)) == errno.EACCES
    after.close()


def test_from_the_socket_layer_to_both_the_maps_and_the_socket_programs_are_adopted(
    home: node.Node, socket_only: datapath_.BPFDatapath
) -> None:
    socket_only.apply(states.pods(home, egress={}))
    generation = socket_only.tables().generation
    pinned = socket_only._program_directory() / "nw_connect4"
    with syscalls.owned(syscalls.open_pin(pinned)) as program:
        before = syscalls.program_info(program).id
    socket_only.close()
    both = _datapath(home)
    both.open()
    assert not _passes(home), "the policy in the maps holds for packets as soon as programs are attached"
    assert both.apply(states.pods(home, egress={})).generation == generation
    with syscalls.owned(syscalls.open_pin(pinned)) as program:
        assert syscalls.program_info(program).id == before
    both.close()


def test_what_another_version_left_goes_with_the_first_policy_and_not_before(
    home: node.Node, socket_only: datapath_.BPFDatapath
) -> None:
    socket_only.close()
    old = socket_only.events_path.parents[1] / "v0"
    (old / "links").mkdir(parents=True)
    after = _datapath(home, SOCKET)
    after.open()
    assert old.exists()
    after.apply(contract.EMPTY)
    assert not old.exists()
    after.close()
