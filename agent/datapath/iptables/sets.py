"""Sets in the kernel: ipset's netlink protocol, in batches.

The problem: a cluster's addresses are a hundred thousand members that must be in place before a rule names them, and
the ipset command, or a library that sends a message a member, takes seconds for it. The rule: the members of one set
go by some hundreds into a message (IPSET_ATTR_ADT) and several messages into one system call. A batch that is refused
is sent again member by member, so that the error names the member; what was added before it stays, which is no harm in
a set that no rule refers to.

Needs protocol 6 and type revisions that every kernel since 3.17 has. Adding what is there and deleting what is not are
no errors. This module must not know what sets are for.
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import itertools
import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from agent import errors
from agent.datapath.iptables import netlink, ruleset
from agent.model import net

SUBSYSTEM = 6
PROTOCOL = 6
CREATE, DESTROY, FLUSH, LIST, ADD, DEL = 2, 3, 4, 7, 9, 10
"""enum ipset_cmd."""
ATTR_PROTOCOL, ATTR_SETNAME, ATTR_TYPENAME, ATTR_REVISION, ATTR_FAMILY, ATTR_FLAGS, ATTR_DATA, ATTR_ADT = range(1, 9)
ATTR_LINENO = 9
ATTR_IP, ATTR_CIDR, ATTR_PORT, ATTR_PROTO, ATTR_CADT_FLAGS, ATTR_IFACE = 1, 3, 4, 7, 8, 23
ATTR_HASHSIZE, ATTR_MAXELEM, ATTR_ELEMENTS, ATTR_REFERENCES = 18, 19, 24, 25
FLAG_LIST_HEADER = 1 << 2
FLAG_NOMATCH = 1 << 2
REVISIONS: Mapping[ruleset.SetKind, int] = {
    ruleset.SetKind.NETS: 6,
    ruleset.SetKind.NET_PORTS: 7,
    ruleset.SetKind.NET_INTERFACES: 6,
}
"""Of each type, the last revision that came without new needs (Linux 3.17)."""
FAMILIES: Mapping[net.Family, int] = {net.Family.IPV4: 2, net.Family.IPV6: 10}
"""NFPROTO_IPV4 and NFPROTO_IPV6."""
MEMBERS_A_MESSAGE = 500
"""An attribute holds 64 KiB, and a member takes up to 64 bytes."""
MESSAGES_A_CALL = 4
"""A quarter of the send buffer that every kernel grants."""
CAPACITY = 1 << 20
"""Most members of a set; a limit, nothing is allocated for it."""
MEMBERS_A_BUCKET = 4
LEAST_BUCKETS, MOST_BUCKETS = 64, 1 << 18
MOST_SETS = 65_534
"""Most sets of a network namespace (ip_set_id_t, less the invalid one)."""
NO_PROTOCOL = frozenset({errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EINVAL, errno.EOPNOTSUPP})
REASONS: Mapping[int, str] = {
    4097: "the kernel speaks another protocol",
    4098: "the kernel does not know this type of set",
    4099: "there are as many sets as the kernel can hold",
    4100: "a rule refers to the set",
    4102: "a set of this name has another type",
    4103: "it exists already",
    4104: "the prefix length is out of range",
    4106: "a member of the other IP family",
    4108: "a rule refers to the set",
    4352: "the set is full",
    4353: "there is a member like it",
    4354: "the protocol has no ports",
}
"""enum ipset_errno and the hash types' own."""

_NESTED, _NET = netlink.NLA_F_NESTED, netlink.NLA_F_NET_BYTEORDER
_U32 = struct.Struct(">I")
_CIDRS = tuple(netlink.attribute(ATTR_CIDR, bytes((bits,))) for bits in range(129))
_DATA = tuple(netlink.ATTRIBUTE.pack(size, ATTR_DATA | _NESTED) for size in range(129))
_NOMATCH = netlink.attribute(ATTR_CADT_FLAGS | _NET, _U32.pack(FLAG_NOMATCH))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the kernel says of a set without its members."""

    kind: str
    """The type's name, of `ruleset.SetKind` or another."""
    family: net.Family | None
    """None: the type has none."""
    elements: int
    references: int
    """How many rules name it."""


class Sets:
    """The sets of the network namespace in which this was made. Not for two threads at once."""

    def __init__(self) -> None:
        """Open the socket. Raises NotSupported without ipset in the kernel."""
        try:
            self._netlink = netlink.Nfnetlink()
        except OSError as error:
            raise _missing() from error

    def close(self) -> None:
        """Let go of the socket; sets stay."""
        self._netlink.close()

    def headers(self, prefix: str = "") -> dict[str, Header]:
        """Return every set whose name begins with `prefix`. Raises NotSupported or ApplyFailed."""
        body = _protocol() + netlink.attribute(ATTR_FLAGS | _NET, _U32.pack(FLAG_LIST_HEADER))
        found = {}
        try:
            for payload in self._netlink.dump(_request(LIST, body)):
                outer = netlink.attributes(payload)
                name = outer[ATTR_SETNAME].rstrip(b"\0").decode(errors="replace")
                if name.startswith(prefix):
                    found[name] = _header(outer)
        except OSError as error:
            if error.errno in NO_PROTOCOL:
                raise _missing() from error
            raise errors.ApplyFailed(f"listing the sets of this network namespace: {error}") from error
        return found

    def read(self, name: str) -> ruleset.SetContent | None:
        """Return a set with all its members; None: there is none, or of a type that is not ours. Raises ApplyFailed."""
        found: dict[ruleset.Member, bool] = {}
        kind: ruleset.SetKind | None = None
        try:
            for payload in self._netlink.dump(_request(LIST, _protocol(name))):
                outer = netlink.attributes(payload)
                told = outer.get(ATTR_TYPENAME, b"").rstrip(b"\0").decode(errors="replace")
                kind = next((known for known in ruleset.SetKind if known.value == told), kind)
                found.update(_decoded(outer.get(ATTR_ADT, b"")))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise errors.ApplyFailed(f"reading the set {name}: {error}") from error
        return ruleset.SetContent(kind=kind, members=found) if kind is not None else None

    def create(self, name: str, kind: ruleset.SetKind, family: net.Family, *, members: int) -> None:
        """Make an empty set fit for `members`. Raises ApplyFailed if it is there; NotSupported without the type."""
        buckets = LEAST_BUCKETS
        while buckets * MEMBERS_A_BUCKET < members and buckets < MOST_BUCKETS:
            buckets *= 2
        size = netlink.attribute(ATTR_HASHSIZE | _NET, _U32.pack(buckets))
        most = netlink.attribute(ATTR_MAXELEM | _NET, _U32.pack(CAPACITY))
        body = b"".join(
            (
                _protocol(name),
                netlink.attribute(ATTR_TYPENAME, kind.value.encode() + b"\0"),
                netlink.attribute(ATTR_REVISION, bytes((REVISIONS[kind],))),
                netlink.attribute(ATTR_FAMILY, bytes((FAMILIES[family],))),
                netlink.attribute(ATTR_DATA | _NESTED, size + most),
            )
        )
        failure = self._send((_request(CREATE, body, flags=netlink.NLM_F_EXCL),))
        if failure is not None:
            if failure.code in {4098, *NO_PROTOCOL}:
                raise _missing(kind.value)
            raise _refused(f"making the set {name}", failure.code)

    def add(self, name: str, members: ruleset.Members) -> None:
        """Add all members, replacing like ones. Raises ApplyFailed naming set and member."""
        self._change(ADD, name, members.items())

    def remove(self, name: str, members: Iterable[ruleset.Member]) -> None:
        """Take out all members. Raises ApplyFailed naming set and member."""
        self._change(DEL, name, ((member, True) for member in members))

    def flush(self, name: str) -> None:
        """Empty a set. Raises ApplyFailed."""
        self._one(FLUSH, _protocol(name), f"emptying the set {name}")

    def destroy(self, name: str) -> bool:
        """Remove a set; False: a rule still refers to it. One that is not there is no error. Raises ApplyFailed."""
        failure = self._send((_request(DESTROY, _protocol(name)),))
        if failure is None or failure.code == errno.ENOENT:
            return True
        if failure.code in {4100, 4108}:
            return False
        raise _refused(f"destroying the set {name}", failure.code)

    def _send(self, requests: Sequence[netlink.Request]) -> netlink.Failure | None:
        """Send, and tell what the kernel refuses. Raises ApplyFailed where it is not even heard."""
        try:
            return self._netlink.send(requests)
        except OSError as error:
            raise errors.ApplyFailed(f"writing to sets: {error}") from error

    def _one(self, command: int, body: bytes, doing: str) -> None:
        failure = self._send((_request(command, body),))
        if failure is not None:
            raise _refused(doing, failure.code)

    def _change(self, command: int, name: str, members: Iterable[tuple[ruleset.Member, bool]]) -> None:
        batches = _batches(command, name, members)
        while call := tuple(itertools.islice(batches, MESSAGES_A_CALL)):
            failure = self._send(call)
            if failure is not None:
                self._blame(command, name, members, failure.code)

    def _blame(self, command: int, name: str, members: Iterable[tuple[ruleset.Member, bool]], code: int) -> None:
        """Find the member the kernel refuses, and raise."""
        doing = "adding {} to" if command == ADD else "deleting {} from"
        for member, request in _singles(command, name, members):
            failure = self._send((request,))
            if failure is not None:
                raise _refused(f"{doing.format(ruleset.describe(member))} the set {name}", failure.code)
        raise _refused(f"{doing.format('members')} the set {name}", code)


def _header(outer: Mapping[int, bytes]) -> Header:
    inner = netlink.attributes(outer.get(ATTR_DATA, b""))
    number = outer.get(ATTR_FAMILY, b"\0")[0]
    return Header(
        family=next((family for family, known in FAMILIES.items() if known == number), None),
        kind=outer[ATTR_TYPENAME].rstrip(b"\0").decode(errors="replace"),
        elements=_U32.unpack(inner[ATTR_ELEMENTS])[0] if ATTR_ELEMENTS in inner else 0,
        references=_U32.unpack(inner[ATTR_REFERENCES])[0] if ATTR_REFERENCES in inner else 0,
    )


def _decoded(listed: bytes) -> Iterator[tuple[ruleset.Member, bool]]:
    """Read the members in one answer to LIST."""
    for payload in netlink.each(listed):
        told = netlink.attributes(payload)
        packed = next(iter(netlink.attributes(told[ATTR_IP]).values()))
        address = ipaddress.ip_address(packed)
        length = told[ATTR_CIDR][0] if ATTR_CIDR in told else address.max_prefixlen
        member = ruleset.Member(
            network=ipaddress.ip_network((packed, length)),
            protocol=told[ATTR_PROTO][0] if ATTR_PROTO in told else 0,
            port=int.from_bytes(told.get(ATTR_PORT, b""), "big"),
            interface=told.get(ATTR_IFACE, b"").rstrip(b"\0").decode(errors="replace"),
        )
        flags = _U32.unpack(told[ATTR_CADT_FLAGS])[0] if ATTR_CADT_FLAGS in told else 0
        yield member, not flags & FLAG_NOMATCH


def _batches(command: int, name: str, members: Iterable[tuple[ruleset.Member, bool]]) -> Iterator[netlink.Request]:
    # The kernel takes no IPSET_ATTR_ADT without a line number, where it writes which member failed; ours all have none.
    head = _protocol(name) + netlink.attribute(ATTR_LINENO | _NET, _U32.pack(0))
    encoded = map(_encoder(), members)
    while batch := b"".join(itertools.islice(encoded, MEMBERS_A_MESSAGE)):
        yield _request(command, head + netlink.attribute(ATTR_ADT | _NESTED, batch))


def _singles(
    command: int, name: str, members: Iterable[tuple[ruleset.Member, bool]]
) -> Iterator[tuple[ruleset.Member, netlink.Request]]:
    head, encode = _protocol(name), _encoder()
    for member, matches in members:
        yield member, _request(command, head + encode((member, matches)))


def _encoder() -> Callable[[tuple[ruleset.Member, bool]], bytes]:
    """Return what writes one member as IPSET_ATTR_DATA; written for speed, as it runs for every address."""
    heads = {bits: _address_head(bits) for bits in (32, 128)}
    endings: dict[tuple[int, int, str, bool], bytes] = {}

    def encode(item: tuple[ruleset.Member, bool]) -> bytes:
        (network, protocol, port, interface), matches = item
        ending = endings.get((protocol, port, interface, matches))
        if ending is None:
            ending = endings[protocol, port, interface, matches] = _ending(protocol, port, interface, matches=matches)
        body = heads[network.max_prefixlen] + network.network_address.packed + _CIDRS[network.prefixlen] + ending
        return _DATA[len(body) + 4] + body

    return encode


def _address_head(bits: int) -> bytes:
    """Return what precedes an address: the nest IPSET_ATTR_IP and the attribute of the family in it."""
    size = bits // 8
    kind = 1 if bits == 32 else 2  # noqa: PLR2004 - IPSET_ATTR_IPADDR_IPV4, _IPV6
    outer = netlink.ATTRIBUTE.pack(8 + size, ATTR_IP | _NESTED)
    return outer + netlink.ATTRIBUTE.pack(4 + size, kind | _NET)


def _ending(protocol: int, port: int, interface: str, *, matches: bool) -> bytes:
    ports = interfaces = b""
    if protocol:
        ports = netlink.attribute(ATTR_PORT | _NET, port.to_bytes(2, "big"))
        ports += netlink.attribute(ATTR_PROTO, bytes((protocol,)))
    if interface:
        interfaces = netlink.attribute(ATTR_IFACE, interface.encode() + b"\0")
    return ports + interfaces + (b"" if matches else _NOMATCH)


def _protocol(name: str | None = None) -> bytes:
    head = netlink.attribute(ATTR_PROTOCOL, bytes((PROTOCOL,)))
    return head if name is None else head + netlink.attribute(ATTR_SETNAME, name.encode() + b"\0")


def _request(command: int, body: bytes, *, flags: int = 0) -> netlink.Request:
    return netlink.Request(kind=SUBSYSTEM << 8 | command, family=FAMILIES[net.Family.IPV4], body=body, flags=flags)


def _refused(doing: str, code: int) -> errors.ApplyFailed:
    return errors.ApplyFailed(f"{doing}: {REASONS.get(code) or os.strerror(code)} ({code})")


def _missing(kind: str = "") -> errors.NotSupported:
    feature = f"the set type {kind}" if kind else "ipset"
    return errors.NotSupported(feature=feature, needs="a kernel with CONFIG_IP_SET (module ip_set)")
