"""Messages of nfnetlink_log are read whatever is in them, and what the kernel logs arrives or is counted."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import hypothesis
import pytest
from hypothesis import strategies

from agent import clock, errors
from agent.datapath import merged
from agent.datapath.iptables import logged as logged_
from agent.datapath.iptables import nflog, prefix, subscription, verdicts
from agent.model import net, verdict
from agent.observer import observer
from tests.bpf import node as node_
from tests.bpf import packets
from tests.datapath.iptables import logged
from tests.states import pictures

XA, XB, *_ = (pod.addresses[0] for pod in pictures.PODS)
BURST = 20_000
VARIANTS = ("legacy", "nft")
PORT = 7000


def test_messages_are_read_in_order() -> None:
    sent = [
        logged.packet(logged.flow(XA, XB, 6, port), prefix.Note.DENIED)._replace(sequence=port)
        for port in range(80, 90)
    ]
    datagram = b"".join(logged.message(one, sequence=one.sequence or 0) for one in sent)
    assert logged_.decode(datagram) == sent


def test_what_is_not_whole_is_left_out() -> None:
    one = logged.packet(logged.flow(XA, XB, 6, 80), prefix.Note.DENIED)
    message = logged.message(one)
    assert logged_.decode(message + message[:-1]) == [one]
    assert logged_.decode(message[:19]) == []
    other = message[:4] + bytes([0xFF]) + message[5:]
    assert logged_.decode(other + message) == [one]


@hypothesis.given(strategies.binary(max_size=600))
def test_no_bytes_are_too_much(datagram: bytes) -> None:
    logged_.decode(datagram)


@hypothesis.given(strategies.data())
def test_no_damage_to_a_message_is_too_much(data: strategies.DataObject) -> None:
    message = bytearray(logged.message(logged.packet(logged.flow(XA, XB, 6, 80), prefix.Note.DENIED)) * 2)
    for _ in range(data.draw(strategies.integers(1, 6))):
        message[data.draw(strategies.integers(0, len(message) - 1))] = data.draw(strategies.integers(0, 255))
    attribution = verdicts.Attribution(moments())
    for found in logged_.decode(bytes(message)):
        attribution.events(found, 0)


def moments() -> verdicts.Moments:
    known = verdicts.Moments()
    known.staged(3, pictures.named("isolated"))
    known.tell(3, 30)
    return known


class Watched:
    """A reader, and what it decoded since it was asked last."""

    def __init__(self, reader: nflog.NflogReader) -> None:
        """Watch `reader`."""
        self.reader = reader

    def packets(self, count: int, *, seconds: float = 5) -> list[logged_.Logged]:
        """Return the next `count` packets."""
        found: list[logged_.Logged] = []
        for _ in self._waits(seconds):
            while (datagram := self.reader._subscription.receive()) is not None:
                found += logged_.decode(datagram)
            if len(found) >= count:
                break
        return found

    def events(self, count: int, *, seconds: float = 5) -> list[verdicts.Event]:
        """Return the next `count` events."""
        found: list[verdicts.Event] = []
        for _ in self._waits(seconds):
            found += self.reader.read()
            if len(found) >= count:
                break
        return found

    def _waits(self, seconds: float) -> Iterator[None]:
        poll = select.poll()
        poll.register(self.reader.fd, select.POLLIN)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            poll.poll(100)
            yield


@contextlib.contextmanager
def inside() -> Iterator[Watched]:
    """Live in a fresh network namespace with a reader."""
    namespace = node_._namespace()
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        node_._setns(namespace)
        node_.ip("link set lo up")
        with contextlib.closing(nflog.NflogReader(prefix.GROUP, moments(), clock=clock.SystemClock())) as reader:
            yield Watched(reader)
    finally:
        node_._setns(home)
        os.close(home)
        os.close(namespace)


@pytest.fixture
def watched() -> Iterator[Watched]:
    with inside() as one:
        yield one


def log(variant: str, rule: str, note: prefix.Note, *, family: net.Family = net.Family.IPV4) -> None:
    """Append a rule that logs as the engine's do."""
    program = f"ip{'6' if family is net.Family.IPV6 else ''}tables-{variant}"
    words = f"{program} -w -A {rule} -j NFLOG --nflog-group {prefix.GROUP} --nflog-size {nflog.COPIED_BYTES}".split()
    subprocess.run([*words, "--nflog-prefix", str(prefix.Prefix(3, note))], check=True, capture_output=True)


def send(address: str, port: int, *, content: bytes = b"x", times: int = 1) -> int:
    """Send datagrams; return the port they come from."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        for _ in range(times):
            with contextlib.suppress(ConnectionRefusedError):
                sender.sendto(content, (address, port))
        own: int = sender.getsockname()[1]
        return own


@pytest.mark.root
@pytest.mark.parametrize("variant", VARIANTS)
def test_logged_packets_arrive_with_prefix_hook_addresses_and_ports(watched: Watched, variant: str) -> None:
    for family, address in ((net.Family.IPV4, "127.0.0.1"), (net.Family.IPV6, "::1")):
        log(variant, f"INPUT -p udp --dport {PORT}", prefix.Note.DENIED, family=family)
        own = send(address, PORT, content=bytes(1000))
        (one,) = watched.packets(1)
        assert prefix.parse(one.prefix.decode()) == prefix.Prefix(3, prefix.Note.DENIED)
        assert (one.hook, one.in_ifindex, one.out_ifindex) == (1, 1, 0)
        assert len(one.payload) == nflog.COPIED_BYTES
        (event,) = verdicts.Attribution(moments()).events(one, 5)
        assert (str(event.source), str(event.destination)) == (address, address)
        assert (event.source_port, event.destination_port, event.protocol) == (own, PORT, 17)
        assert (event.verdict, event.generation, event.time_ns) == (verdict.Verdict.DROPPED.value, 30, 5)


@pytest.mark.root
@pytest.mark.parametrize("variant", VARIANTS)
def test_forwarded_packets_are_told_for_the_pods_they_concern(variant: str) -> None:
    with node_.running(pods=2) as node:
        first, second = node.pods
        with contextlib.closing(nflog.NflogReader(prefix.GROUP, moments(), clock=clock.SystemClock())) as reader:
            watched = Watched(reader)
            for family, address in ((net.Family.IPV4, second.address4), (net.Family.IPV6, second.address6)):
                log(variant, f"FORWARD -p udp --dport {PORT}", prefix.Note.DENIED, family=family)
                node_.within(first.namespace, functools.partial(send, str(address), PORT))
                (one,) = watched.packets(1)
                assert (one.hook, one.in_ifindex, one.out_ifindex) == (2, first.ifindex, second.ifindex)


@pytest.mark.root
def test_what_the_veth_check_logs_arrives_whatever_the_protocol() -> None:
    with node_.running(pods=1) as node:
        (pod,) = node.pods
        text = str(prefix.Prefix(3, prefix.Note.FORGED))
        rule = f'log prefix "{text}" group {prefix.GROUP} snaplen {nflog.COPIED_BYTES} drop'
        chain = "type filter hook ingress device veth0 priority -500"
        rules = f"table netdev nodewall {{\n chain ingress {{\n {chain};\n {rule}\n }}\n}}\n"
        with contextlib.closing(nflog.NflogReader(prefix.GROUP, moments(), clock=clock.SystemClock())) as reader:
            watched = Watched(reader)
            watched.packets(100, seconds=0.2)
            subprocess.run(["nft", "-f", "-"], input=rules, text=True, check=True, capture_output=True)
            victim4, victim6 = ipaddress.ip_address("10.244.1.99"), ipaddress.ip_address("fd00:244:1::99")
            for ethertype, payload, source in (
                (packets.ETH_IPV4, packets.udp(victim4, node_.OUTSIDE4, 53), victim4),
                (packets.ETH_IPV6, packets.udp(victim6, node_.OUTSIDE6, 53), victim6),
                (packets.ETH_ARP, packets.arp_reply(victim4, bytes(6), pod.address4), victim4),
            ):
                node_.within(pod.namespace, _sending(pod.mac, ethertype, payload))
                arrived = watched.packets(1)
                (one,) = [each for each in arrived if each.payload.startswith(payload[: nflog.COPIED_BYTES])]
                assert (one.family, one.ethertype, one.in_ifindex) == (logged_.NFPROTO_NETDEV, ethertype, pod.ifindex)
                (event,) = verdicts.Attribution(moments()).events(one, 5)
                assert (event.source, event.reason) == (source, verdict.Reason.SOURCE_SPOOFED.value)


def _sending(mac: bytes, ethertype: int, payload: bytes) -> Callable[[], None]:
    def action() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", ethertype))
            raw.send(mac + bytes(6) + ethertype.to_bytes(2, "big") + payload)

    return action


@pytest.mark.root
@pytest.mark.parametrize("variant", VARIANTS)
def test_of_a_burst_what_is_read_and_what_is_lost_is_what_was_sent(watched: Watched, variant: str) -> None:
    log(variant, f"OUTPUT -p udp --dport {PORT}", prefix.Note.DENIED)
    send("127.0.0.1", PORT, times=BURST)
    events = watched.events(BURST)
    assert len(events) + watched.reader.lost == BURST
    assert watched.reader.lost == 0  # the buffer is made for it


@pytest.mark.root
def test_nothing_is_lost_unseen(watched: Watched) -> None:
    log("nft", f"OUTPUT -p udp --dport {PORT}", prefix.Note.DENIED)
    watched.reader._subscription._socket.setsockopt(socket.SOL_SOCKET, subscription.SO_RCVBUFFORCE, 128 << 10)
    send("127.0.0.1", PORT, times=BURST)
    read = len(watched.events(BURST, seconds=0.5))
    assert 1 <= watched.reader.lost < BURST  # that there was an overrun is seen at once, how large with the next packet
    send("127.0.0.1", PORT)
    read += len(watched.events(1))
    assert watched.reader.lost > BURST // 2
    assert read + watched.reader.lost == BURST + 1
    counted = {name: count for name, count in watched.reader.counters().items() if count}
    assert counted == {"events_lost": watched.reader.lost, "attribution_disagreed": read}


@pytest.mark.root
def test_a_verdict_is_there_within_fifty_milliseconds(watched: Watched) -> None:
    log("legacy", f"OUTPUT -p udp --dport {PORT}", prefix.Note.DENIED)
    waits = []
    for _ in range(5):
        began = time.monotonic()
        send("127.0.0.1", PORT)
        assert len(watched.events(1)) == 1
        waits.append(time.monotonic() - began)
    assert min(waits) + observer.GATHER_S < 0.06


@pytest.mark.root
def test_a_group_has_one_reader_and_is_free_again_once_it_is_closed(watched: Watched) -> None:
    with pytest.raises(errors.DatapathError, match="another process"):
        nflog.NflogReader(prefix.GROUP, moments(), clock=clock.SystemClock())
    watched.reader.close()
    nflog.NflogReader(prefix.GROUP, moments(), clock=clock.SystemClock()).close()


@pytest.mark.root
def test_it_merges_with_another_reader(watched: Watched) -> None:
    log("legacy", f"OUTPUT -p udp --dport {PORT}", prefix.Note.DENIED)
    with contextlib.closing(nflog.NflogReader(prefix.GROUP + 1, moments(), clock=clock.SystemClock())) as other:
        both: observer.Reader = merged.Merged((other, watched.reader))
        send("127.0.0.1", PORT)
        poll = select.poll()
        poll.register(both.fd, select.POLLIN)
        assert poll.poll(5000)
        assert [event.destination_port for event in both.read()] == [PORT]
