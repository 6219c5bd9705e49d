"""A pod that may ask its resolvers for some names only: what the maps hold then, and what becomes of its packets."""

from __future__ import annotations

import dataclasses
import ipaddress
import struct
from collections.abc import Mapping

from agent import desired
from agent.datapath import plan
from agent.datapath.bpf import dns_loader, fqdn_layout, rows, syscalls
from agent.model import fqdn, net
from tests.bpf import packets
from tests.bpf.dns import rig, wire

EGRESS, AUDIT = 601, 602
FILTER = 0x0F117E50
RESTRICTED, FREE = 300, 301
"""Identities: DNS pods that may be asked for some names, and a pod that may be sent anything."""
SERVICE = 33
RULE = 71
DNS_POD4, DNS_POD6 = ipaddress.ip_address("10.244.2.53"), ipaddress.ip_address("fd00:244:2::53")
FREE_POD4, FREE_POD6 = ipaddress.ip_address("10.244.2.80"), ipaddress.ip_address("fd00:244:2::80")
PASSED, DROPPED, REDIRECTED = 0xFFFFFFFF, 2, 7
REFUSED, NO_SUCH_NAME = 5, 3
OTHER = "www.example.org"
HARDWARE = bytes.fromhex("02000000000a02000000000b")
"""Of whom it is sent to, and of the pod."""


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """What became of a frame."""

    action: int
    frame: bytes


def slot(*, asks: bool = True, audit: bool = False, held: bool = False, egress: int = EGRESS) -> plan.EndpointSlot:
    """Return a pod with a filter in its set, or in that in audit."""
    return plan.EndpointSlot(
        ingress_set=0,
        egress_set=egress,
        held=held,
        egress_audit=AUDIT if audit else 0,
        egress_asks=asks,
        egress_audit_asks=audit,
    )


def row_key(policy_set: int, identity: int, *, port: int = wire.PORT, protocol: int = packets.UDP) -> plan.PolicyKey:
    """Return the key of a row for one port, or for everything where there is no protocol."""
    return plan.PolicyKey(policy_set, identity, net.Direction.EGRESS, protocol, port, 16 if protocol else 0)


def allowing(asks: int = FILTER, rule: int = RULE) -> desired.Row:
    """Return a row that allows what a filter admits."""
    return desired.Row(desired.Action.ALLOW, rule, asks=asks)


def admitting(*classes: int, number: int = FILTER) -> Mapping[plan.PolicyKey, desired.Row]:
    """Return the rows of a filter."""
    row = desired.Row(desired.Action.ALLOW, 0)
    return {plan.PolicyKey(number, class_, plan.Asking.ASK, 0, 0, 0): row for class_ in classes}


def restrict(learner: rig.Learner, *slots: plan.EndpointSlot | None) -> None:
    """Have the pod be one that may ask for `rig.NAME` alone, by DNS pods' addresses and by their Service's."""
    pair = (slots * 2)[:2] if slots else (slot(), slot())
    node = learner.node
    learner.be(rig.ENDPOINT)
    learner.fqdn.store_filters(used=True)
    node.upsert(plan.Table.ENDPOINTS, {rig.ENDPOINT: plan.EndpointValue(slots=(pair[0], pair[1]), ingress_ifindex=0)})
    node.upsert(
        plan.Table.IPCACHE_HOST,
        {
            **dict.fromkeys((DNS_POD4, DNS_POD6), (RESTRICTED, RESTRICTED)),
            **dict.fromkeys((FREE_POD4, FREE_POD6), (FREE, FREE)),
        },
    )
    node.upsert(
        plan.Table.POLICY,
        {
            row_key(EGRESS, RESTRICTED): allowing(),
            row_key(EGRESS, FREE, port=0, protocol=0): allowing(asks=0),
            **admitting(rig.API),
        },
    )
    frontends = (desired.Frontend(address, wire.PORT, packets.UDP) for address in (rig.RESOLVER4, rig.RESOLVER6))
    node.upsert(plan.Table.FRONTEND, dict.fromkeys(frontends, (SERVICE, SERVICE)))
    of_service(learner, desired.ServiceClass.ALL)


def of_service(learner: rig.Learner, class_: desired.ServiceClass, asks: int = FILTER) -> None:
    """Say what the set allows of the Service."""
    learner.node.upsert(plan.Table.SERVICE_CLASS, {(EGRESS, SERVICE): plan.ClassValue(class_, RULE, asks)})


def clear(learner: rig.Learner) -> None:
    """Leave nothing of it."""
    for table in plan.Table:
        learner.node.delete(table, frozenset(learner.node.read(table)))
    learner.node.store_generation(0)
    learner.node.store_verdict_interval(0)
    learner.fqdn.store_filters(used=False)
    learner.fqdn.store_reject(fqdn.Reject.REFUSED)


def sent(learner: rig.Learner, frame: bytes) -> Done:
    """Have the pod send a frame."""
    done = syscalls.program_test_run(learner.programs[dns_loader.QUERY], frame)
    return Done(done.verdict, done.data)


def asking(name: str, resolver: net.Address = rig.RESOLVER4, *, port: int = wire.PORT) -> bytes:
    """Return the frame of a query."""
    return frame(wire.query(name), resolver, port=port)


def frame(
    message: bytes, receiver: net.Address = rig.RESOLVER4, *, port: int = wire.PORT, summed: bool = True
) -> bytes:
    """Return the frame of a datagram of the pod, with a checksum unless that is left out."""
    pod = rig.POD4 if receiver.version == net.Family.IPV4.value else rig.POD6
    packet = bytearray(packets.udp(pod, receiver, port, payload=message, sport=rig.CLIENT_PORT))
    if isinstance(receiver, ipaddress.IPv4Address) and summed:
        packet[26:28] = udp_checksum(bytes(packet)).to_bytes(2, "big")
    return ethernet(bytes(packet))


def ethernet(packet: bytes) -> bytes:
    """Put an Ethernet header before a packet."""
    type_ = packets.ETH_IPV4 if packet[0] >> 4 == net.Family.IPV4.value else packets.ETH_IPV6
    return HARDWARE + struct.pack(">H", type_) + packet


def udp_checksum(packet: bytes) -> int:
    """Return the checksum that a datagram should have, its own taken as zero."""
    if packet[0] >> 4 == net.Family.IPV4.value:
        begin, addresses = (packet[0] & 0xF) * 4, packet[12:20]
    else:
        begin, addresses = packets.IPV6_BYTES, packet[8:40]
    datagram = packet[begin : begin + 6] + bytes(2) + packet[begin + 8 :]
    pseudo = addresses + struct.pack(">II", len(datagram), packets.UDP)
    return packets.checksum(pseudo + datagram) or 0xFFFF


def refusal_of(frame_: bytes, rcode: int) -> bytes:
    """Return the frame that answers a query so: made anew, not by changing one."""
    packet = frame_[14:]
    if packet[0] >> 4 == net.Family.IPV4.value:
        begin, head = (packet[0] & 0xF) * 4, packet[:12] + packet[16:20] + packet[12:16]
        head += packet[20:begin]
    else:
        begin, head = packets.IPV6_BYTES, packet[:8] + packet[24:40] + packet[8:24]
    ports, length, sum_, message = packet[begin:][:4], packet[begin:][4:6], packet[begin:][6:8], packet[begin:][8:]
    flags = bytes([(message[2] & 0x79) | 0x80, (message[3] & 0x10) | 0x80 | rcode])
    answer = head + ports[2:] + ports[:2] + length + sum_ + message[:2] + flags + message[4:]
    if sum_ != bytes(2):
        answer = answer[: begin + 6] + udp_checksum(answer).to_bytes(2, "big") + answer[begin + 8 :]
    return frame_[6:12] + frame_[:6] + frame_[12:14] + answer


def remembered(learner: rig.Learner) -> int:
    """Count the queries whose answer is waited for."""
    return sum(1 for _ in rows.dump(learner.fqdn.descriptor("fqdn_pending")))


def automaton_for(learner: rig.Learner, last_letter: str, class_: int, *, first: int) -> int:
    """Write one that accepts every name that ends with a letter; return where it begins."""
    ends = first + 1
    begin = tuple(ends if symbol == last_letter else 0 for symbol in fqdn_layout.ALPHABET)
    rest = (ends,) * len(fqdn_layout.ALPHABET)
    states = [fqdn_layout.DfaState(following=begin), fqdn_layout.DfaState(following=rest, class_=class_)]
    learner.fqdn.write_states(first, states)
    return first
