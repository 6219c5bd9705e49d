"""What an answer says of addresses, read from the message as the kernel copied it.

The problem: the kernel learned from the answer and told only the bytes; history needs the name and the TTLs. The rule:
the same reading as the kernel's (`bpf/include/dns_records.h`), so that both know the same: the name is the question's,
addresses are the A and AAAA records of the answer section whoever owns them, aliases only lend their TTLs, and what
comes before a fault counts (requirements F5 to F7, F14). Whoever owns the name has written the message: every length
is looked at before it is used, no pointer is followed, and nothing is raised.

Layout: RFC 1035 4.1.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import NamedTuple

from agent.fqdn import patterns
from agent.model import fqdn, net

RECORDS_MAX = 256
"""As many records as the kernel reads; no more than 4,096 bytes hold."""
HEADER = struct.Struct("!6H")
"""Number, flags, and how many questions, answers, authorities and additional records there are."""
QUESTION = struct.Struct("!2H")
RECORD = struct.Struct("!HHIH")
"""Type, class, TTL and length of what follows, behind the owner's name."""
IS_ANSWER, OPCODE, RCODE = 0x8000, 0x7800, 0x000F
INTERNET = 1
A, CNAME, AAAA, DNAME = 1, 5, 28, 39
ALIASES = frozenset({CNAME, DNAME})
ADDRESS_BYTES = {A: 4, AAAA: 16}
POINTER = 0xC0
LABELS_MAX = 128
NAME_MAX = 255
SPACE = 0x20
TYPES = {
    1: "A",
    2: "NS",
    5: "CNAME",
    6: "SOA",
    12: "PTR",
    15: "MX",
    16: "TXT",
    28: "AAAA",
    33: "SRV",
    64: "SVCB",
    65: "HTTPS",
    255: "ANY",
}
"""What people call the types that are asked for."""


class Told(NamedTuple):
    """An answer's addresses with their TTLs, and the TTLs of its aliases, in seconds as they were on the wire."""

    name: str
    """Of the question, as it was written."""
    addresses: tuple[tuple[net.Address, int], ...]
    alias_ttls_s: tuple[int, ...]


class _Record(NamedTuple):
    type: int
    ttl_s: int
    data: bytes
    end: int


def read(message: bytes) -> Told | None:
    """Return what a message tells; None for what is no good answer to one question about one host name."""
    if len(message) < HEADER.size:
        return None
    _, flags, questions, count, _, _ = HEADER.unpack_from(message)
    if flags & (IS_ANSWER | OPCODE) != IS_ANSWER or flags & RCODE or questions != 1:
        return None
    found = _question(message)
    if found is None:
        return None
    name, at = found
    addresses: list[tuple[net.Address, int]] = []
    aliases: list[int] = []
    for _ in range(min(count, RECORDS_MAX)):
        record = _record(message, at)
        if record is None:
            break
        if record.type in ALIASES:
            aliases.append(record.ttl_s)
        elif record.type in ADDRESS_BYTES:
            addresses.append((net.normalize(ipaddress.ip_address(record.data)), record.ttl_s))
        at = record.end
    return Told(name, tuple(addresses), tuple(aliases))


class Asked(NamedTuple):
    """A question: a name with the dot at its end, of printable ASCII alone, and a type."""

    name: str
    type: str


def asked(message: bytes) -> Asked | None:
    """Return the first question of a message, whatever it is; None: there is none that can be read."""
    labels: list[str] = []
    at = HEADER.size
    while at < len(message) and message[at]:
        length, at = message[at], at + 1
        if length > patterns.LABEL_MAX or at + length > len(message) or at > NAME_MAX + HEADER.size:
            return None
        labels.append("".join(map(_shown, message[at : at + length])))
        at += length
    if at + 1 + QUESTION.size > len(message):
        return None
    type_, _ = QUESTION.unpack_from(message, at + 1)
    return Asked(f"{'.'.join(labels)}.", TYPES.get(type_, f"TYPE{type_}"))


def _shown(byte: int) -> str:
    """Return a byte of a label as zone files have it (RFC 1035 5.1)."""
    character = chr(byte)
    if character in ".\\":
        return f"\\{character}"
    return character if character.isascii() and character.isprintable() and byte != SPACE else f"\\{byte:03}"


def answered(message: bytes, *, endpoint: int, at_ns: int) -> fqdn.Answered | None:
    """Return an answer that an endpoint received at `at_ns`, CLOCK_BOOTTIME; None: history has nothing to learn."""
    told = read(message)
    if told is None or not told.addresses:
        return None
    return fqdn.Answered(
        endpoint=endpoint, name=told.name, addresses=told.addresses, at_ns=at_ns, alias_ttls_s=told.alias_ttls_s
    )


def _question(message: bytes) -> tuple[str, int] | None:
    """Return the name that is asked for, and where the records begin; a label of other bytes is no host name's."""
    labels: list[str] = []
    at = HEADER.size
    while at < len(message) and message[at]:
        length, at = message[at], at + 1
        if length > patterns.LABEL_MAX or at + length > len(message):
            return None
        labels.append(message[at : at + length].decode("latin-1"))
        at += length
    at += 1
    name = ".".join(labels)
    if at + QUESTION.size > len(message) or any("." in label for label in labels) or patterns.canonical(name) is None:
        return None
    _, class_ = QUESTION.unpack_from(message, at)
    return (name, at + QUESTION.size) if class_ == INTERNET else None


def _record(message: bytes, at: int) -> _Record | None:
    """Read the record that begins at `at`; None: there is none that can be read. Of another class, it is of type 0."""
    begin = _behind_name(message, at)
    if begin is None or begin + RECORD.size > len(message):
        return None
    type_, class_, ttl_s, length = RECORD.unpack_from(message, begin)
    begin += RECORD.size
    if begin + length > len(message):
        return None
    if class_ != INTERNET:
        type_ = 0
    if length != ADDRESS_BYTES.get(type_, length):
        return None
    return _Record(type_, ttl_s, message[begin : begin + length], begin + length)


def _behind_name(message: bytes, at: int) -> int | None:
    """Return where an owner's name ends: behind its root, or behind the pointer to the rest of it."""
    for _ in range(LABELS_MAX + 1):
        if at >= len(message):
            return None
        length = message[at]
        if length >= POINTER:
            return at + 2
        if length == 0:
            return at + 1
        if length > patterns.LABEL_MAX:
            return None
        at += 1 + length
    return None
