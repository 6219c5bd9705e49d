"""Sets of addresses that endpoints learned by name: written while they are in use, unlike those of `ruleset`.

For each endpoint and class of names two sets a family: `fresh` has the addresses that a new connection may go to, each
with the time that is left of it, so that it ends in the kernel whether the agent lives or not; `kept` has them without
an end, for connections that have begun (requirement F17). Their names begin as those of all our sets and end in a
letter that no version of a set has: whoever removes everything finds them, whoever writes rulesets lets them be.

Not for two threads at once. Adding what is there renews it, deleting what is not there is no error.
"""

from __future__ import annotations

import dataclasses
import errno
import ipaddress
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from agent import errors
from agent.datapath.iptables import names_book, names_pairs, netlink, ruleset, sets
from agent.model import fqdn, net

KIND = "hash:ip"
REVISION = 3
"""The last one that every kernel since 3.15 has."""
ATTR_TIMEOUT = 6
TIMEOUT_MAX_S = 4_294_967
"""What the kernel counts in ms, in a u32."""
BUCKETS = 64
CAPACITY = 1 << 16
"""Many more than an endpoint can learn."""
MESSAGES_A_CALL = 200
SECOND_NS = 1_000_000_000
REFERRED = frozenset({4100, 4108})
"""A rule names the set (enum ipset_errno)."""

_NESTED, _NET = netlink.NLA_F_NESTED, netlink.NLA_F_NET_BYTEORDER
_U32 = struct.Struct(">I")


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """What sets there are, and what they hold."""

    pairs: frozenset[names_pairs.Pair]
    """Those with both sets."""
    learned: fqdn.LearnedAddresses


class NameSets:
    """The sets of names of the network namespace in which this was made."""

    def __init__(self) -> None:
        """Open the socket. Raises NotSupported without ipset in the kernel."""
        try:
            self._netlink = netlink.Nfnetlink()
        except OSError as error:
            raise errors.NotSupported(feature="ipset", needs="a kernel with CONFIG_IP_SET (module ip_set)") from error

    def close(self) -> None:
        """Let go of the socket; sets stay."""
        self._netlink.close()

    def read(self, now_ns: int) -> Found:
        """Return what is there. Raises ApplyFailed."""
        halves: dict[names_pairs.Pair, set[str]] = {}
        expiries: dict[names_book.Entry, int] = {}
        try:
            for payload in self._netlink.dump(_request(sets.LIST, _protocol())):
                outer = netlink.attributes(payload)
                named = names_pairs.pair_of(outer[sets.ATTR_SETNAME].rstrip(b"\0").decode(errors="replace"))
                if named is None:
                    continue
                pair, letter = named
                halves.setdefault(pair, set()).add(letter)
                for address, left_s in _members(outer.get(sets.ATTR_ADT, b"")):
                    entry = names_book.Entry(pair.endpoint, pair.class_number, address)
                    expires_ns = now_ns + left_s * SECOND_NS if letter == names_pairs.FRESH else 0
                    expiries[entry] = max(expires_ns, expiries.get(entry, 0))
        except OSError as error:
            raise errors.ApplyFailed(f"reading the sets of names: {error}") from error
        return Found(frozenset(pair for pair, both in halves.items() if len(both) > 1), _by_place(expiries))

    def content(self, name: str) -> ruleset.SetContent | None:
        """Return a set as rules see it; None: there is none. Raises ApplyFailed."""
        found: dict[ruleset.Member, bool] = {}
        try:
            for payload in self._netlink.dump(_request(sets.LIST, _protocol(name))):
                listed = netlink.attributes(payload).get(sets.ATTR_ADT, b"")
                found.update((ruleset.Member(net.host_network(address)), True) for address, _ in _members(listed))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise errors.ApplyFailed(f"reading the set {name}: {error}") from error
        return ruleset.SetContent(kind=ruleset.SetKind.NETS, members=found)

    def create(self, pairs: Iterable[names_pairs.Pair]) -> None:
        """Make both sets of each pair, empty; those that are there stay as they are. Raises ApplyFailed."""
        requests = [
            _request(sets.CREATE, _creation(name, pair.family, has_end=name == pair.fresh))
            for pair in pairs
            for name in (pair.fresh, pair.kept)
        ]
        self._send(requests, "making sets of names")

    def add(self, entries: Iterable[names_book.Entry], now_ns: int) -> None:
        """Add addresses to the sets of their pairs, which must be there. Raises ApplyFailed."""
        requests: list[netlink.Request] = []
        for entry in entries:
            pair = names_pairs.pair_for(entry)
            left_s = min(-(-(entry.expires_ns - now_ns) // SECOND_NS), TIMEOUT_MAX_S)
            if left_s > 0:
                requests.append(_request(sets.ADD, _protocol(pair.fresh) + _data(entry.address, left_s)))
            requests.append(_request(sets.ADD, _protocol(pair.kept) + _data(entry.address, None)))
        self._send(requests, "adding to sets of names")

    def remove(self, entries: Iterable[names_book.Entry]) -> None:
        """Take addresses out. Raises ApplyFailed."""
        requests = [
            _request(sets.DEL, _protocol(name) + _data(entry.address, None))
            for entry in entries
            for name in (names_pairs.pair_for(entry).fresh, names_pairs.pair_for(entry).kept)
        ]
        self._send(requests, "deleting from sets of names")

    def destroy(self, pairs: Iterable[names_pairs.Pair]) -> frozenset[names_pairs.Pair]:
        """Destroy sets; return the pairs of which a rule still names one. Raises ApplyFailed."""
        referred: set[names_pairs.Pair] = set()
        for pair in pairs:
            for name in (pair.fresh, pair.kept):
                failure = self._netlink.send([_request(sets.DESTROY, _protocol(name))])
                if failure is not None and failure.code in REFERRED:
                    referred.add(pair)
                elif failure is not None and failure.code != errno.ENOENT:
                    raise _refused(f"destroying the set {name}", failure.code)
        return frozenset(referred)

    def _send(self, requests: Sequence[netlink.Request], doing: str) -> None:
        """Send all, some at a time; raises ApplyFailed for the first that is refused, the others are carried out."""
        refused = 0
        for call in _calls(requests):
            try:
                failure = self._netlink.send(call)
            except OSError as error:
                raise errors.ApplyFailed(f"{doing}: {error}") from error
            refused = refused or (failure.code if failure is not None else 0)
        if refused:
            raise _refused(doing, refused)


def _calls(requests: Sequence[netlink.Request]) -> Iterator[Sequence[netlink.Request]]:
    return (requests[begin : begin + MESSAGES_A_CALL] for begin in range(0, len(requests), MESSAGES_A_CALL))


def content(name: str) -> ruleset.SetContent | None:
    """Return one of these sets as rules see it; None: there is none. Raises NotSupported, ApplyFailed."""
    opened = NameSets()
    try:
        return opened.content(name)
    finally:
        opened.close()


def _by_place(expiries: Mapping[names_book.Entry, int]) -> fqdn.LearnedAddresses:
    found: dict[fqdn.Place, list[fqdn.Learned]] = {}
    for entry, expires_ns in expiries.items():
        place = entry.endpoint, entry.address
        found.setdefault(place, []).append(fqdn.Learned(entry.class_number, expires_ns))
    return {place: tuple(several) for place, several in found.items()}


def _members(listed: bytes) -> Iterator[tuple[net.Address, int]]:
    """Yield addresses, and the seconds that are left of each, as the kernel rounds them."""
    for payload in netlink.each(listed):
        told = netlink.attributes(payload)
        packed = next(iter(netlink.attributes(told[sets.ATTR_IP]).values()))
        left_s: int = _U32.unpack(told[ATTR_TIMEOUT])[0] if ATTR_TIMEOUT in told else 0
        yield ipaddress.ip_address(packed), left_s


def _creation(name: str, family: net.Family, *, has_end: bool) -> bytes:
    options = netlink.attribute(sets.ATTR_HASHSIZE | _NET, _U32.pack(BUCKETS))
    options += netlink.attribute(sets.ATTR_MAXELEM | _NET, _U32.pack(CAPACITY))
    if has_end:
        options += netlink.attribute(ATTR_TIMEOUT | _NET, _U32.pack(1))
    return b"".join(
        (
            _protocol(name),
            netlink.attribute(sets.ATTR_TYPENAME, KIND.encode() + b"\0"),
            netlink.attribute(sets.ATTR_REVISION, bytes((REVISION,))),
            netlink.attribute(sets.ATTR_FAMILY, bytes((sets.FAMILIES[family],))),
            netlink.attribute(sets.ATTR_DATA | _NESTED, options),
        )
    )


def _data(address: net.Address, left_s: int | None) -> bytes:
    kind = 1 if address.version == net.Family.IPV4.value else 2  # IPSET_ATTR_IPADDR_IPV4, _IPV6
    content = netlink.attribute(sets.ATTR_IP | _NESTED, netlink.attribute(kind | _NET, address.packed))
    if left_s is not None:
        content += netlink.attribute(ATTR_TIMEOUT | _NET, _U32.pack(left_s))
    return netlink.attribute(sets.ATTR_DATA | _NESTED, content)


def _protocol(name: str | None = None) -> bytes:
    head = netlink.attribute(sets.ATTR_PROTOCOL, bytes((sets.PROTOCOL,)))
    return head if name is None else head + netlink.attribute(sets.ATTR_SETNAME, name.encode() + b"\0")


def _request(command: int, body: bytes) -> netlink.Request:
    return netlink.Request(kind=sets.SUBSYSTEM << 8 | command, family=sets.FAMILIES[net.Family.IPV4], body=body)


def _refused(doing: str, code: int) -> errors.ApplyFailed:
    return errors.ApplyFailed(f"{doing}: {sets.REASONS.get(code) or os.strerror(code)} ({code})")
