"""The first two packets of an SCTP association, for kernels that were built without SCTP.

Policy has to hold for SCTP whether or not this kernel can speak it (rule A35). A raw socket sends INIT and a raw
socket answers INIT ACK; checksums and verification tags are right (RFC 9260 sections 3.1, 3.3 and 6.8), so conntrack
tracks the pair as it tracks a real association. This must not grow into an SCTP stack: nobody sends COOKIE ECHO.

Standard library only: the processes of pods import this module and nothing else of the agent.
"""

from __future__ import annotations

import dataclasses
import struct

PROTOCOL = 132
INIT = 1
INIT_ACK = 2
ABORT = 6
STATE_COOKIE = 7
WINDOW = 65536
STREAMS = 1
HEADER = struct.Struct("!HHI4s")
CHUNK = struct.Struct("!BBH")
INIT_BODY = struct.Struct("!IIHHI")
POLYNOMIAL = 0x82F63B78
"""CRC32c, reflected."""


def _entry(value: int) -> int:
    for _ in range(8):
        value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
    return value


TABLE = tuple(_entry(value) for value in range(256))


def checksum(packet: bytes) -> bytes:
    """Return the CRC32c of `packet`, whose checksum field is zero, as it goes onto the wire (little endian)."""
    crc = 0xFFFFFFFF
    for byte in packet:
        crc = crc >> 8 ^ TABLE[(crc ^ byte) & 0xFF]
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One packet with one chunk; ports in host byte order."""

    source_port: int
    destination_port: int
    tag: int
    """Verification tag: 0 in INIT, else the initiate tag the receiver chose."""
    chunk: int
    initiate_tag: int = 0
    """INIT and INIT ACK only."""
    cookie: bytes = b""
    """INIT ACK only: the state cookie, here the name of who answers."""


def encode(packet: Packet) -> bytes:
    """Return the bytes after the IP header."""
    body = b""
    if packet.chunk in (INIT, INIT_ACK):
        body = INIT_BODY.pack(packet.initiate_tag, WINDOW, STREAMS, STREAMS, packet.initiate_tag)
    if packet.chunk == INIT_ACK:
        parameter = struct.pack("!HH", STATE_COOKIE, 4 + len(packet.cookie)) + packet.cookie
        body += parameter + bytes(-len(parameter) % 4)
    chunk = CHUNK.pack(packet.chunk, 0, CHUNK.size + len(body)) + body
    ports = packet.source_port, packet.destination_port, packet.tag
    return HEADER.pack(*ports, checksum(HEADER.pack(*ports, bytes(4)) + chunk)) + chunk


def decode(payload: bytes) -> Packet | None:
    """Read the first chunk of `payload`, the bytes after the IP header; None if malformed, or the checksum is wrong."""
    if len(payload) < HEADER.size + CHUNK.size:
        return None
    source, destination, tag, given = HEADER.unpack_from(payload)
    if checksum(payload[:8] + bytes(4) + payload[12:]) != given:
        return None
    kind, _flags, length = CHUNK.unpack_from(payload, HEADER.size)
    body = payload[HEADER.size + CHUNK.size : HEADER.size + length]
    initiate_tag, cookie = 0, b""
    if kind in (INIT, INIT_ACK):
        if len(body) < INIT_BODY.size:
            return None
        initiate_tag = INIT_BODY.unpack_from(body)[0]
        cookie = _cookie(body[INIT_BODY.size :])
    return Packet(
        source_port=source,
        destination_port=destination,
        tag=tag,
        chunk=kind,
        initiate_tag=initiate_tag,
        cookie=cookie,
    )


def answer(packet: Packet, *, name: str, listening: bool, initiate_tag: int) -> bytes | None:
    """Return what a server says to `packet`: INIT ACK, or ABORT where nothing listens; None to all but INIT."""
    if packet.chunk != INIT:
        return None
    reply = Packet(
        source_port=packet.destination_port,
        destination_port=packet.source_port,
        tag=packet.initiate_tag,
        chunk=INIT_ACK if listening else ABORT,
        initiate_tag=initiate_tag if listening else 0,
        cookie=name.encode() if listening else b"",
    )
    return encode(reply)


def payload_of(datagram: bytes, *, with_header: bool) -> bytes:
    """Strip the IPv4 header that raw IPv4 sockets deliver and raw IPv6 sockets do not."""
    return datagram[(datagram[0] & 0x0F) * 4 :] if with_header and datagram else datagram


def _cookie(parameters: bytes) -> bytes:
    while len(parameters) >= 4:  # noqa: PLR2004 - type and length
        kind, length = struct.unpack_from("!HH", parameters)
        if kind == STATE_COOKIE:
            return parameters[4:length]
        parameters = parameters[max(length + -length % 4, 4) :]
    return b""
