"""The learner at a pod's veth: what it learns from a resolver, and what a pod cannot tell itself (F12, F12b, F15)."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import pathlib
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from agent.datapath.bpf import dns_loader, fqdn_layout, layout, rows, syscalls
from agent.model import net
from tests.bpf import node as node_
from tests.bpf import packets, traffic
from tests.bpf.dns import rig, server, wire

pytestmark = pytest.mark.root

ZONE = "cdn.example.net"
FIRST = ipaddress.IPv4Address("198.18.0.1")
FRESH = 100
PIPELINED = 2000
PORT = 41000
PATIENCE_S = 5.0
SILENT = f"{server.SILENT}.{ZONE}"
FORGED = ipaddress.IPv4Address("198.18.99.99")
OWN_HARDWARE = bytes.fromhex("020000000001")


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """A pod whose veth has the learner, and a resolver outside that is trusted."""

    learner: rig.Learner
    node: node_.Node

    @property
    def pod(self) -> node_.Guest:
        """The only one."""
        return self.node.pods[0]


@pytest.fixture
def scene(learner: rig.Learner) -> Iterator[Scene]:
    with contextlib.ExitStack() as undo:
        node = undo.enter_context(node_.running(pods=1))
        key, number = struct.pack("=I", node.pods[0].ifindex), (rig.ENDPOINT, rig.ENDPOINT)
        rows.update(learner.node.descriptor("ep_by_ifindex"), key, layout.encode_pair(number))
        learner.fqdn.trust(node_.addresses(node.outside))
        learner.know(ZONE, one=rig.API)
        hooks = syscalls.AttachType
        for name, hook in ((dns_loader.QUERY, hooks.TCX_INGRESS), (dns_loader.ANSWER, hooks.TCX_EGRESS)):
            try:
                link = syscalls.link_tcx(learner.programs[name], node.pods[0].ifindex, hook)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                pytest.skip("this kernel has no tcx (Linux 6.6)")
            undo.enter_context(syscalls.owned(link))
        ready = undo.enter_context(node.outside.started(server.serves()))
        assert ready() == "listens"
        yield Scene(learner, node)
        rows.delete(learner.node.descriptor("ep_by_ifindex"), key)


def _asks(resolver: net.Address, learned: int, count: int, *, tcp: bool = False) -> Callable[[], list[str]]:
    """Resolve fresh names; return the addresses that were not learned yet when their answer had come."""

    def action() -> list[str]:
        missing = []
        for index in range(count):
            address = FIRST + index
            query = wire.query(server.name_of(address, ZONE), number=index)
            kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
            with socket.socket(traffic.family(resolver), kind) as client:
                client.settimeout(PATIENCE_S)
                client.connect((str(resolver), wire.PORT))
                client.sendall(wire.prefixed(query) if tcp else query)
                answer = client.recv(4096)
            key = fqdn_layout.LEARNED_KEY.pack(rig.ENDPOINT, layout.encode_address(address))
            if address.packed not in answer or rows.lookup(learned, key, fqdn_layout.LEARNED_VALUE.size) is None:
                missing.append(str(address))
        return missing

    return action


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_an_address_is_learned_before_the_answer_is_there(scene: Scene, family: int, *, tcp: bool) -> None:
    """F15: at the moment the pod has the answer, every time."""
    resolver = node_.addresses(scene.node.outside)[family]
    learned, count = scene.learner.fqdn.descriptor("fqdn_learned"), FRESH // 10 if tcp else FRESH
    assert scene.pod.run(_asks(resolver, learned, count, tcp=tcp)) == []
    assert len(scene.learner.learned()) == count


def _pipelines(resolver: net.Address, learned: int, count: int) -> Callable[[], list[str]]:
    """Ask for many names at once; return the addresses that were not learned yet when all answers had come."""

    def action() -> list[str]:
        addresses = [FIRST + index for index in range(count)]
        queries = [wire.query(server.name_of(one, ZONE), number=index) for index, one in enumerate(addresses)]
        length = sum(len(wire.answer(server.name_of(one, ZONE), wire.address(one))) + 2 for one in addresses)
        with socket.socket(traffic.family(resolver), socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE_S)
            client.connect((str(resolver), wire.PORT))
            client.sendall(b"".join(map(wire.prefixed, queries)))
            while length:
                length -= len(client.recv(length))
        keys = [fqdn_layout.LEARNED_KEY.pack(rig.ENDPOINT, layout.encode_address(one)) for one in addresses]
        size = fqdn_layout.LEARNED_VALUE.size
        return [str(one) for one, key in zip(addresses, keys, strict=True) if rows.lookup(learned, key, size) is None]

    return action


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_hundreds_of_questions_at_once_are_answered_and_learned(scene: Scene, family: int) -> None:
    """F28: in segments as long as this kernel makes them, which begin and end anywhere in a message."""
    resolver = node_.addresses(scene.node.outside)[family]
    before = scene.learner.fqdn.counters()
    learned = scene.learner.fqdn.descriptor("fqdn_learned")
    missing = scene.pod.run(_pipelines(resolver, learned, PIPELINED))
    after = scene.learner.fqdn.counters()
    assert missing == [], {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert len(scene.learner.learned()) == PIPELINED
    assert after["split"] == before["split"]


def _forged(scene: Scene) -> bytes:
    """Return the packet that would answer the query that stays open."""
    answer = wire.answer(SILENT, wire.address(FORGED))
    return packets.udp(scene.node.outside.address4, scene.pod.address4, PORT, payload=answer, sport=wire.PORT)


def _is_told(scene: Scene, forge: Callable[[], None]) -> Callable[[], bool]:
    """Ask, forge the answer, and say whether the socket that asked got it."""
    resolver = str(scene.node.outside.address4)

    def action() -> bool:
        _trust_everybody()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.bind(("", PORT))
            client.settimeout(PATIENCE_S)
            client.sendto(wire.query(SILENT), (resolver, wire.PORT))
            time.sleep(0.05)
            forge()
            return FORGED.packed in client.recv(4096)

    return action


def _trust_everybody() -> None:
    """Have this namespace take packets from anywhere, as a pod with CAP_NET_ADMIN can."""
    for path in pathlib.Path("/proc/sys/net/ipv4/conf").glob("*"):
        for switch, value in (("rp_filter", "0"), ("accept_local", "1")):
            (path / switch).write_text(value)


def test_a_pod_cannot_answer_itself_over_its_loopback_interface(scene: Scene) -> None:
    """F12: it believes what it sends itself from the resolver's address; the learner does not see it."""
    packet = _forged(scene)

    def forge() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            raw.sendto(packet, (str(scene.pod.address4), 0))

    assert scene.pod.run(_is_told(scene, forge))
    assert scene.learner.learned() == []


def test_a_pod_cannot_answer_itself_over_a_pair_of_interfaces_it_made(scene: Scene) -> None:
    """F12b (CAP_NET_ADMIN)."""
    packet = _forged(scene)

    def forge() -> None:
        node_.ip("link add own0 type veth peer name own1")
        node_.ip(f"link set own1 address {OWN_HARDWARE.hex(':')}", "link set own0 up", "link set own1 up")
        _trust_everybody()
        time.sleep(0.1)
        traffic.sends_raw(packet, interface="own0", to=OWN_HARDWARE)()

    assert scene.pod.run(_is_told(scene, forge))
    assert scene.learner.learned() == []


def test_the_same_packet_from_outside_would_teach(scene: Scene) -> None:
    """The control of the two above: what they forge is complete."""
    packet, hardware = _forged(scene), node_.within(scene.pod.namespace, lambda: node_.mac_of("eth0"))
    veth = socket.if_indextoname(scene.pod.ifindex)
    with scene.pod.started(_is_told(scene, lambda: None)) as told:
        end = time.monotonic() + PATIENCE_S
        while not list(rows.dump(scene.learner.fqdn.descriptor("fqdn_pending"))) and time.monotonic() < end:
            time.sleep(0.01)
        traffic.sends_raw(packet, interface=veth, to=hardware)()
        assert told()
    assert [one.address for one in scene.learner.learned()] == [FORGED]
