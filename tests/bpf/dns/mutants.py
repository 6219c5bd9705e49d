"""Answers with something wrong in them: true ones, cut, stretched and overwritten. The same seed gives the same."""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterator

from tests.bpf.dns import rig, wire

FOUR, SIX = ipaddress.ip_address("203.0.113.7"), ipaddress.ip_address("2001:db8::7")
OWNER = wire.name("lb.example.net")
NAMES = frozenset({rig.NAME, "a.b-c.example_x.net"})
TRUE = (
    wire.answer(rig.NAME, wire.address(FOUR)),
    wire.answer(rig.NAME, *(wire.address(FOUR + index, index) for index in range(4)), wire.address(SIX)),
    wire.answer(rig.NAME, wire.alias("lb.example.net", 9), wire.address(FOUR, owner=OWNER), wire.alias("x.net", 7)),
    wire.answer("a.b-c.example_x.net", wire.address(SIX, 30, owner=wire.name("q.w.e.r.t.z"))),
    wire.answer(
        rig.NAME,
        wire.Record(type=wire.RRSIG, ttl=3, data=bytes(70)),
        wire.address(FOUR),
        authority=(wire.address(FOUR + 9),),
        additional=(wire.Record(type=41, ttl=0, data=b"", owner=b"\0", class_=1232),),
    ),
    wire.answer(rig.NAME, *(wire.address(FOUR + index) for index in range(40))),
)
COUNTS, HEADER = slice(4, 12), 12


def mutants(seed: int) -> Iterator[bytes]:
    """Yield messages without end."""
    source = random.Random(seed)
    while True:
        message = bytearray(source.choice(TRUE))
        for _ in range(source.randint(0, 5)):
            _spoil(source, message)
        yield bytes(message)


def _spoil(source: random.Random, message: bytearray) -> None:
    """Change something."""
    behind = min(source.choice([2, HEADER, 35]), len(message))
    at = source.randint(behind, len(message))
    match source.randrange(6):
        case 0 if at < len(message):
            message[at] = source.randrange(256)
        case 1 if at < len(message):
            message[at] ^= 1 << source.randrange(8)
        case 2:
            del message[at:]
        case 3:
            message[at:at] = source.randbytes(source.randint(1, 20))
        case 4 if len(message) > HEADER:
            message[6:8] = struct.pack(">H", source.choice([0, 1, 2, 255, 65535]))
        case _:
            del message[at : at + source.randint(1, 8)]
