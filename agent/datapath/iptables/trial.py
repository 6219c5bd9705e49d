"""The process that finds out whether this machine's iptables denies and allows, by talking to itself.

Run as `python -m agent.datapath.iptables.trial VARIANT`; it prints what it found as JSON.

It makes sets and rules of the very shapes this engine uses, through the very code that will, in a network namespace of
its own. Where it may not have one (CAP_SYS_ADMIN) it works in the node's: its chains are reached only by packets of the
loopback interface with a number of hops that nobody uses, so that no other packet meets more than one rule that does
not match; its mark is not the engine's, which the rules of an earlier agent may clear. All of it is removed again, and
what a trial leaves that is cut short goes by its names with the next trial, the first apply, or `removal`.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import fcntl
import ipaddress
import json
import os
import shlex
import socket
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence

from agent import errors
from agent.datapath import bridges
from agent.datapath.iptables import commands, dispatch, prefix, quoted, removal, ruleset, sets, text
from agent.model import net

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 1
PATIENCE_SECONDS = 2.0
DENIED_SECONDS = 0.1
"""How long to look for a datagram that must not arrive, after one beside it did."""
HOPS = 77
"""TTL of every packet of the trial; nobody's default."""
LOOPBACK: Mapping[net.Family, str] = {net.Family.IPV4: "127.0.0.1", net.Family.IPV6: "::1"}
PEERS: Mapping[net.Family, ruleset.Members] = {
    net.Family.IPV4: {
        ruleset.Member(ipaddress.ip_network("127.0.0.0/8")): True,
        ruleset.Member(ipaddress.ip_network("127.0.0.2/32")): False,
    },
    net.Family.IPV6: {ruleset.Member(ipaddress.ip_network("::1/128")): True},
}
HOLE4 = "127.0.0.2"
MARK = "0x2000/0x2000"
GUARDS: Mapping[ruleset.Table, ruleset.Jump] = {
    ruleset.Table.RAW: ruleset.Jump("PREROUTING", "NW-PROBE-RAW"),
    ruleset.Table.FILTER: ruleset.Jump("INPUT", "NW-PROBE-FILTER"),
    ruleset.Table.SECURITY: ruleset.Jump("INPUT", "NW-PROBE-SECURITY"),
}
"""Into the chain of each table that sends on what is the trial's."""
PORT_CHAIN = "NW-PROBE-PORT"
"""No packet comes by it."""
LINK_TABLE = f"""\
table {" ".join(removal.NETDEV_TRIAL)} {{
    chain probe {{
        type filter hook ingress device "lo" priority 0; policy accept;
    }}
}}
"""
ALLOWED = ("an allowed TCP connection", "an allowed datagram")
DENIED = ("a denied TCP connection", "a TCP connection from a hole in a set", "a denied datagram")
_LIBC = {net.Family.IPV4: socket.AF_INET, net.Family.IPV6: socket.AF_INET6}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Ports:
    """Ports of the loopback address that nobody had when they were looked for."""

    tcp: int
    closed_tcp: int
    udp: int
    closed_udp: int


def main() -> int:
    """Be the process."""
    variant = commands.Variant(sys.argv[1])
    answer: dict[str, object] = {"missing": "", "needs": "", "tables": [], "links": True, "ports": False}
    answer |= {"reasons": [], "unproved": ""}
    try:
        if _leave():
            _raise_loopback()
            answer |= _probe(variant, alone=True)
        else:
            _clean(variant)
            try:
                answer |= _probe(variant, alone=False)
            finally:
                _clean(variant)
    except errors.NotSupported as error:
        answer |= {"missing": error.feature, "needs": error.needs}
    sys.stdout.write(json.dumps(answer))
    return 0


def _leave() -> bool:
    """Enter a network namespace of one's own; False: that is not permitted. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0:
        return True
    code = ctypes.get_errno()
    if code != errno.EPERM:
        raise OSError(code, f"a network namespace of its own: {os.strerror(code)}")
    return False


def _clean(variant: commands.Variant) -> None:
    """Remove what a trial has made, or one that was cut short has left; what is not there is no error."""
    for family in net.Family:
        every = {ruleset.Table.RAW: {**_raw(family), PORT_CHAIN: ()}, ruleset.Table.SECURITY: _security(family)}
        every[ruleset.Table.FILTER] = _filter(family, _Ports(tcp=1, closed_tcp=1, udp=1, closed_udp=1))
        for table, chains in every.items():
            gone = text.TableChange(remove=tuple(chains), delete=(GUARDS[table],))
            with contextlib.suppress(errors.ApplyFailed):
                commands.restore(family, variant, text.transaction({table: gone}))
    with contextlib.suppress(errors.DatapathError):
        commands.nft(f"delete table {' '.join(removal.NETDEV_TRIAL)}\n")
    with contextlib.closing(sets.Sets()) as kernel:
        for family in net.Family:
            for kind in ruleset.SetKind:
                kernel.destroy(_set(kind, family))


def _probe(variant: commands.Variant, *, alone: bool) -> dict[str, object]:
    """Make and try everything. Raises NotSupported; `alone`: what else does not go as it shall is our doing too."""
    reasons = []
    tables = _tables(variant)
    if ruleset.Table.SECURITY not in tables:
        reasons.append(
            "nothing holds while others flush FORWARD: the kernel has no security table (CONFIG_IP_NF_SECURITY)"
        )
    unproved = ""
    with contextlib.closing(sets.Sets()) as kernel:
        for family in net.Family:
            ports = _free_ports(family)
            before = _talk(family, ports, patient=True)
            _make_sets(kernel, family, ports)
            _write_rules(variant, family, tables, ports)
            after = _talk(family, ports, patient=False)
            unproved = unproved or _judge(family, before, after, alone=alone)
    links = True
    try:
        commands.nft(LINK_TABLE)
    except errors.DatapathError as error:
        links = False
        reasons.append(f"forged fragments and ARP of pods are not checked: {error}")
    bridged = bool(bridges.filtered())
    try:
        if bridged:
            _match_ports(variant)
    except errors.ApplyFailed as error:
        bridged = False
        reasons.append(f"forged sources of pods on a bridge are checked by nftables alone: {error}")
    found = {"tables": [table.value for table in tables], "links": links, "ports": bridged}
    return {**found, "reasons": reasons, "unproved": unproved}


def _judge(family: net.Family, before: Mapping[str, bool], after: Mapping[str, bool], *, alone: bool) -> str:
    """Return why nothing follows from what came through; "" where all is as it shall be. Raises NotSupported."""
    refused = [what for what, came in before.items() if not came]
    if refused:
        return f"IPv{family.value} to the node's own loopback address is refused without us ({', '.join(refused)})"
    wrong = [what for what, came in after.items() if came is not (what in ALLOWED)]
    if not wrong:
        return ""
    if not alone and not set(wrong) & set(DENIED):
        return f"IPv{family.value}: other rules of this node interfere ({', '.join(wrong)} was not treated so)"
    feature = f"enforcement by iptables (IPv{family.value}: {', '.join(wrong)} was not treated so)"
    raise errors.NotSupported(feature=feature, needs="iptables and ipset that work in a network namespace")


def _tables(variant: commands.Variant) -> tuple[ruleset.Table, ...]:
    """Return the tables there are for both families. Raises NotSupported without those that everything needs."""
    found = []
    for table in ruleset.Table:
        try:
            for family in net.Family:
                commands.restore(family, variant, f"*{table.value}\nCOMMIT\n")
        except errors.ApplyFailed as error:
            if table in {ruleset.Table.RAW, ruleset.Table.FILTER}:
                needs = f"a kernel with that table ({error})"
                raise errors.NotSupported(
                    feature=f"the table {table.value} of iptables-{variant.value}", needs=needs
                ) from error
            continue
        found.append(table)
    return tuple(found)


def _make_sets(kernel: sets.Sets, family: net.Family, ports: _Ports) -> None:
    address = net.host_network(ipaddress.ip_address(LOOPBACK[family]))
    for kind, members in (
        (ruleset.SetKind.NETS, PEERS[family]),
        (ruleset.SetKind.NET_PORTS, {ruleset.Member(address, protocol=17, port=ports.udp): True}),
        (ruleset.SetKind.NET_INTERFACES, {ruleset.Member(address, interface="lo"): True}),
    ):
        name = _set(kind, family)
        kernel.create(name, kind, family, members=len(members))
        kernel.add(name, members)


def _set(kind: ruleset.SetKind, family: net.Family) -> str:
    return text.set_name(f"{ruleset.SET_PREFIX}probe{family.value}-{kind.value}", text.VERSIONS[0])


def _write_rules(variant: commands.Variant, family: net.Family, tables: Sequence[ruleset.Table], ports: _Ports) -> None:
    """Write all rules, a table a transaction. Raises NotSupported naming the rule that this machine does not take."""
    for table, rules in (
        (ruleset.Table.RAW, _raw(family)),
        (ruleset.Table.FILTER, _filter(family, ports)),
        (ruleset.Table.SECURITY, _security(family)),
    ):
        if table not in tables:
            continue
        write = {
            chain: tuple(text.rule_text(ruleset.Rule(tuple(shlex.split(line))), {}) for line in lines)
            for chain, lines in rules.items()
        }
        change = text.TableChange(write=write, insert=(GUARDS[table],))
        try:
            commands.restore(family, variant, text.transaction({table: change}))
        except errors.ApplyFailed as error:
            feature = f"a rule of this engine in iptables-{variant.value} ({error})"
            raise errors.NotSupported(feature=feature, needs="the kernel's module for its match or target") from error


def _match_ports(variant: commands.Variant) -> None:
    """Write a rule that asks for a bridge's port. Raises ApplyFailed where this machine does not take it."""
    rule = text.rule_text(ruleset.Rule((*dispatch.ByPort().prefix("nwprobe"), "-j", "DROP")), {})
    for family in net.Family:
        change = text.TableChange(write={PORT_CHAIN: (rule,)})
        commands.restore(family, variant, text.transaction({ruleset.Table.RAW: change}))


def _guard(family: net.Family, chain: str) -> str:
    match = f"-m hl --hl-eq {HOPS}" if family is net.Family.IPV6 else f"-m ttl --ttl-eq {HOPS}"
    return f"-i lo {match} -g {chain}"


def _raw(family: net.Family) -> dict[str, tuple[str, ...]]:
    return {
        GUARDS[ruleset.Table.RAW].chain: (_guard(family, "NW-PROBE-SOURCE"),),
        "NW-PROBE-SOURCE": (
            f"-m set --match-set {_set(ruleset.SetKind.NET_INTERFACES, family)} src,src -j RETURN",
            "-i nwprobe+ -g NW-PROBE-FORGED",
        ),
        "NW-PROBE-FORGED": (
            f"-j NFLOG --nflog-prefix nodewall --nflog-group {prefix.GROUP} --nflog-size 128",
            "-j DROP",
        ),
    }


def _filter(family: net.Family, ports: _Ports) -> dict[str, tuple[str, ...]]:
    six = family is net.Family.IPV6
    peers, servers = _set(ruleset.SetKind.NETS, family), _set(ruleset.SetKind.NET_PORTS, family)
    own = LOOPBACK[family]
    prohibited = "icmp6-adm-prohibited" if six else "icmp-admin-prohibited"
    errors_ = ("-p ipv6-icmp -m hl --hl-eq 255 -m icmp6 --icmpv6-type 135 -g NW-PROBE-QUIET",) if six else ()
    return {
        GUARDS[ruleset.Table.FILTER].chain: (_guard(family, "NW-PROBE-JUDGE"),),
        "NW-PROBE-JUDGE": (
            "-m conntrack --ctdir REPLY -g NW-PROBE-QUIET",
            f"-s {own} -m conntrack --ctstate RELATED -m conntrack ! --ctorigsrc {own} -g NW-PROBE-DENY",
            f"-m conntrack --ctstate RELATED {shlex.join(quoted.words(family))} -g NW-PROBE-QUIET",
            *errors_,
            "-m addrtype ! --dst-type LOCAL -g NW-PROBE-DENY",
            "-g NW-PROBE-SET",
        ),
        "NW-PROBE-SET": (
            f"-p tcp -m set --match-set {peers} src -m tcp --dport {ports.tcp}:{ports.tcp} -g NW-PROBE-QUIET",
            f"-p sctp -m set --match-set {peers} src -m multiport --dports 1,2:3 -g NW-PROBE-QUIET",
            f"-m set --match-set {servers} src,dst -g NW-PROBE-PASS",
            "-g NW-PROBE-DENY",
        ),
        "NW-PROBE-DENY": (
            "-p tcp -m conntrack --ctstate NEW -j REJECT --reject-with tcp-reset",
            f"-m conntrack --ctstate NEW -j REJECT --reject-with {prohibited}",
            "-j DROP",
        ),
        "NW-PROBE-PASS": (
            "-m conntrack --ctstate NEW ! --ctstatus CONFIRMED -j NW-PROBE-QUIET",
            "-g NW-PROBE-QUIET",
        ),
        "NW-PROBE-QUIET": (f"-j MARK --set-xmark {MARK}",),
    }


def _security(family: net.Family) -> dict[str, tuple[str, ...]]:
    return {
        GUARDS[ruleset.Table.SECURITY].chain: (_guard(family, "NW-PROBE-UNMARKED"),),
        "NW-PROBE-UNMARKED": (f"-m mark --mark {MARK} -j RETURN", "-j DROP"),
    }


def _free_ports(family: net.Family) -> _Ports:
    with contextlib.ExitStack() as held:
        numbers = []
        for kind in (socket.SOCK_STREAM, socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_DGRAM):
            one = held.enter_context(socket.socket(_LIBC[family], kind))
            one.bind((LOOPBACK[family], 0))
            numbers.append(one.getsockname()[1])
    tcp, closed_tcp, udp, closed_udp = numbers
    return _Ports(tcp=tcp, closed_tcp=closed_tcp, udp=udp, closed_udp=closed_udp)


def _talk(family: net.Family, ports: _Ports, *, patient: bool) -> Mapping[str, bool]:
    """Return what comes through; `patient`: what the rules deny too is waited for."""
    own = LOOPBACK[family]
    with _listening(family, ports.tcp) as server, _listening(family, ports.closed_tcp):
        found = {
            ALLOWED[0]: _connects(family, own, ports.tcp, own) and _accepts(server),
            DENIED[0]: _connects(family, own, ports.closed_tcp, own),
        }
        if family is net.Family.IPV4:
            found[DENIED[1]] = _connects(family, own, ports.tcp, HOLE4)
    found[ALLOWED[1]] = _arrives(family, own, ports.udp, within=PATIENCE_SECONDS)
    within = PATIENCE_SECONDS if patient else DENIED_SECONDS
    found[DENIED[2]] = _arrives(family, own, ports.closed_udp, within=within)
    return found


@contextlib.contextmanager
def _listening(family: net.Family, port: int) -> Iterator[socket.socket]:
    with socket.socket(_LIBC[family], socket.SOCK_STREAM) as server:
        _show(server, family)
        server.bind((LOOPBACK[family], port))
        server.listen()
        server.settimeout(PATIENCE_SECONDS)
        yield server


def _connects(family: net.Family, address: str, port: int, source: str) -> bool:
    with socket.socket(_LIBC[family], socket.SOCK_STREAM) as client:
        _show(client, family)
        client.settimeout(PATIENCE_SECONDS)
        client.bind((source, 0))
        return client.connect_ex((address, port)) == 0


def _accepts(server: socket.socket) -> bool:
    server.accept()[0].close()
    return True


def _arrives(family: net.Family, address: str, port: int, *, within: float) -> bool:
    with (
        socket.socket(_LIBC[family], socket.SOCK_DGRAM) as server,
        socket.socket(_LIBC[family], socket.SOCK_DGRAM) as client,
    ):
        _show(client, family)
        server.bind((address, port))
        server.settimeout(within)  # when send returns, a busy machine may not have delivered it yet
        try:
            client.connect((address, port))
            client.send(b"nodewall")
            return bool(server.recv(16))
        except OSError:
            return False


def _show(one: socket.socket, family: net.Family) -> None:
    """Give what a socket sends the number of hops by which the rules know it."""
    if family is net.Family.IPV6:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, HOPS)
    else:
        one.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, HOPS)


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack_from("=H", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


if __name__ == "__main__":
    sys.exit(main())
