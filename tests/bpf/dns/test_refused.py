"""What a pod sees of its filter: sockets ask by a veth, and the kernel's own stack takes the answer or does not."""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
import pathlib
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from agent.datapath import base, plan
from agent.datapath.bpf import dns_loader, layout, rows, syscalls, tc
from agent.model import identity, net
from tests.bpf import node as node_
from tests.bpf import packets, traffic
from tests.bpf.dns import filtering, rig, server, wire

pytestmark = pytest.mark.root

ZONE = "cdn.example.net"
ADDRESS = ipaddress.IPv4Address("198.18.0.1")
ADMITTED = server.name_of(ADDRESS, ZONE)
PATIENCE_S = 5.0
SO_NO_CHECK, UDP_SEGMENT = 11, 103
SNMP, SNMP6 = pathlib.Path("/proc/self/net/snmp"), pathlib.Path("/proc/self/net/snmp6")
FRAGMENTED = 3000
"""Bytes of a query that no interface here sends in one piece."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """A pod whose veth has the filter, and a resolver outside."""

    learner: rig.Learner
    node: node_.Node

    @property
    def pod(self) -> node_.Guest:
        """The only one."""
        return self.node.pods[0]


@pytest.fixture(params=["tcx", "clsact"])
def scene(learner: rig.Learner, request: pytest.FixtureRequest) -> Iterator[Scene]:
    filtering.clear(learner)
    filtering.restrict(learner)
    with contextlib.ExitStack() as undo:
        node = undo.enter_context(node_.running(pods=1))
        undo.callback(filtering.clear, learner)
        ifindex, pair = node.pods[0].ifindex, layout.encode_pair((rig.ENDPOINT, rig.ENDPOINT))
        rows.update(learner.node.descriptor("ep_by_ifindex"), struct.pack("=I", ifindex), pair)
        outside = filtering.row_key(filtering.EGRESS, identity.WORLD)
        learner.node.upsert(plan.Table.POLICY, {outside: filtering.allowing()})
        learner.fqdn.trust(node_.addresses(node.outside))
        learner.know(ZONE, one=rig.API)
        _attach(learner, ifindex, undo, links=request.param == "tcx")
        ready = undo.enter_context(node.outside.started(server.serves()))
        assert ready() == "listens"
        yield Scene(learner, node)


def _attach(learner: rig.Learner, ifindex: int, undo: contextlib.ExitStack, *, links: bool) -> None:
    hooks = {tc.DNS_QUERY: dns_loader.QUERY, tc.DNS_ANSWER: dns_loader.ANSWER}
    filters = tc.Clsact()
    for hook, name in hooks.items():
        program = learner.programs[name]
        if links:
            try:
                link = syscalls.link_tcx(program, ifindex, tc.ATTACH_TYPES[hook.side])
            except OSError as error:
                pytest.skip(f"this kernel has no tcx (Linux 6.6): {error}")
            undo.enter_context(syscalls.owned(link))
        else:
            filters.attach(hook, program, ifindex)


def _resolvers(scene: Scene) -> tuple[net.Address, ...]:
    return node_.addresses(scene.node.outside)


def _asks(message: bytes, resolver: net.Address, *options: tuple[int, int, int]) -> Callable[[], bytes]:
    """Send a datagram from a connected socket and return what comes back; empty: nothing."""

    def action() -> bytes:
        with socket.socket(traffic.family(resolver), socket.SOCK_DGRAM) as client:
            for option in options:
                client.setsockopt(*option)
            client.settimeout(traffic.PATIENCE_SECONDS)
            client.connect((str(resolver), wire.PORT))
            client.send(message)
            try:
                return client.recv(4096)
            except TimeoutError:
                return b""

    return action


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_name_of_the_filter_is_resolved_and_another_is_refused_at_once(scene: Scene, family: int) -> None:
    resolver = _resolvers(scene)[family]
    answer = scene.pod.run(_asks(wire.query(ADMITTED), resolver))
    assert ADDRESS.packed in answer
    before = scene.learner.fqdn.counters()["unasked"]
    asked = wire.query(filtering.OTHER)
    refused = scene.pod.run(_asks(asked, resolver))
    assert refused == asked[:2] + b"\x81\x85" + asked[4:]
    assert scene.learner.fqdn.counters()["unasked"] == before, "the kernel's own answer is nobody's forgery"
    assert [one.outcome for one in scene.learner.reader.read()] == [base.Outcome.LEARNED, base.Outcome.REFUSED]


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_checksum_that_the_pod_has_worked_out_is_right_in_the_answer(scene: Scene, family: int) -> None:
    """Sent past the stack, which leaves it to the card otherwise and then looks at none."""
    resolver, hardware = _resolvers(scene)[family], scene.pod.mac
    own = node_.addresses(scene.pod)[family]
    query = bytearray(packets.udp(own, resolver, wire.PORT, payload=wire.query(filtering.OTHER), sport=41000))
    if family == 0:
        query[26:28] = filtering.udp_checksum(bytes(query)).to_bytes(2, "big")
    send = traffic.sends_raw(bytes(query), ethertype=packets.ethertype(own), to=hardware)

    def action() -> bytes:
        with socket.socket(traffic.family(own), socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE_S)
            client.bind((str(own), 41000))
            client.connect((str(resolver), wire.PORT))
            send()
            return client.recv(4096)

    assert scene.pod.run(action)[3] & 0xF == filtering.REFUSED
    assert _checksum_errors(scene) == 0


def _checksum_errors(scene: Scene) -> int:
    """Count the datagrams that the pod's stack has thrown away for their checksums."""

    def action() -> int:
        names, values = (line.split() for line in SNMP.read_text().splitlines() if line.startswith("Udp:"))
        counted = dict(zip(names, values, strict=True)) | dict(line.split() for line in SNMP6.read_text().splitlines())
        return int(counted["InCsumErrors"]) + int(counted["Udp6InCsumErrors"])

    return scene.pod.run(action)


def test_a_wrong_checksum_is_not_made_right(scene: Scene) -> None:
    """The control of the one above: the pod's stack does look."""
    own, resolver = scene.pod.address4, _resolvers(scene)[0]
    query = bytearray(packets.udp(own, resolver, wire.PORT, payload=wire.query(filtering.OTHER), sport=41000))
    query[26:28] = (filtering.udp_checksum(bytes(query)) ^ 0x0101).to_bytes(2, "big")
    send = traffic.sends_raw(bytes(query), to=scene.pod.mac)

    def action() -> bool:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(traffic.PATIENCE_SECONDS)
            client.bind((str(own), 41000))
            send()
            try:
                return bool(client.recv(4096))
            except TimeoutError:
                return False

    assert not scene.pod.run(action)
    assert _checksum_errors(scene) == 1


def test_who_sends_without_checksums_is_answered_too(scene: Scene) -> None:
    answer = scene.pod.run(
        _asks(wire.query(filtering.OTHER), _resolvers(scene)[0], (socket.SOL_SOCKET, SO_NO_CHECK, 1))
    )
    assert answer[3] & 0xF == filtering.REFUSED


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_several_queries_in_one_buffer_do_not_get_through(scene: Scene, family: int) -> None:
    """The card would cut them apart (GSO), and the second would come by unseen."""
    admitted = wire.query(ADMITTED)
    other = wire.query(server.name_of(ADDRESS, "evil.org").ljust(len(ADMITTED), "x")[: len(ADMITTED)], number=0x4321)
    assert len(admitted) == len(other)
    option = (socket.SOL_UDP, UDP_SEGMENT, len(admitted))
    assert scene.pod.run(_asks(admitted + other, _resolvers(scene)[family], option)) == b""
    assert [one.message for one in scene.learner.reader.read()] == [b""]


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_query_in_several_packets_does_not_get_through(scene: Scene, family: int) -> None:
    """Its parts arrive without the first one, and so does nothing."""
    resolver = _resolvers(scene)[family]
    assert scene.pod.run(_asks(wire.query(ADMITTED).ljust(FRAGMENTED, b"\0"), resolver)) == b""
    assert [(one.outcome, one.message) for one in scene.learner.reader.read()] == [(base.Outcome.REFUSED, b"")]
    filtering.restrict(scene.learner, filtering.slot(asks=False))
    key, pair = struct.pack("=I", scene.pod.ifindex), layout.encode_pair((rig.ENDPOINT, rig.ENDPOINT))
    rows.update(scene.learner.node.descriptor("ep_by_ifindex"), key, pair)
    answer = scene.pod.run(_asks(wire.query(ADMITTED).ljust(FRAGMENTED, b"\0"), resolver))
    assert ADDRESS.packed in answer, "as long as the pod has no filter"


def test_names_are_refused_as_fast_as_the_pod_can_ask(scene: Scene) -> None:
    """Every one of them: an answer that is lost is a time-out."""
    resolver, count = _resolvers(scene)[0], 200

    def action() -> int:
        refused = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE_S)
            client.connect((str(resolver), wire.PORT))
            for number in range(count):
                client.send(wire.query(filtering.OTHER, number=number))
                refused += struct.unpack_from(">HH", client.recv(4096)) == (number, 0x8185)
        return refused

    assert scene.pod.run(action) == count
