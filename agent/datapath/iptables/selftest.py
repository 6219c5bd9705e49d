"""Proof that this machine's iptables denies and allows, before the agent says so.

The problem: a tool may be there and the kernel lack a match, or a table; or the tool writes where no packet comes by.
The rule: a process in a network namespace of its own makes sets and rules of the very shapes this engine uses, through
the very code that will, and talks to itself over the loopback interface, TCP and UDP, IPv4 and IPv6: what a set names
must pass, what it has a hole for must be refused. What is missing is named.

Run as `python -m agent.datapath.iptables.selftest VARIANT` this file is that process; it prints what it found as JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import fcntl
import ipaddress
import json
import os
import shlex
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence

from agent import errors, patience
from agent.datapath.iptables import commands, prefix, quoted, ruleset, sets, text
from agent.model import net

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS = 0x8913, 0x8914
IFF_UP = 1
SECONDS = 60.0
PATIENCE_SECONDS = 2.0
DENIED_SECONDS = 0.1
"""How long to look for a datagram that must not arrive, after one beside it did."""
TCP_PORT, UDP_PORT, CLOSED_PORT = 4710, 4711, 4712
LOOPBACK: Mapping[net.Family, str] = {net.Family.IPV4: "127.0.0.1", net.Family.IPV6: "::1"}
PEERS: Mapping[net.Family, ruleset.Members] = {
    net.Family.IPV4: {
        ruleset.Member(ipaddress.ip_network("127.0.0.0/8")): True,
        ruleset.Member(ipaddress.ip_network("127.0.0.2/32")): False,
    },
    net.Family.IPV6: {ruleset.Member(ipaddress.ip_network("::1/128")): True},
}
HOLE4 = "127.0.0.2"
MARK = "0x1000/0x1000"
LINK_TABLE = """\
table netdev nodewall {
    chain probe {
        type filter hook ingress device "lo" priority 0; policy accept;
    }
}
"""
_LIBC = {net.Family.IPV4: socket.AF_INET, net.Family.IPV6: socket.AF_INET6}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What holds on this machine."""

    tables: tuple[ruleset.Table, ...]
    """The tables the kernel has."""
    links: bool
    """nftables can check sources at veths."""
    reasons: tuple[str, ...]
    """What does not hold, one line each."""


def run(variant: commands.Variant) -> Finding:
    """Test one variant. Raises NotSupported naming what is missing, or what does not enforce."""
    for family in net.Family:
        for verb in ("restore", "save"):
            commands.require(family, variant, verb)
    command = (sys.executable, "-m", "agent.datapath.iptables.selftest", variant.value)
    timeout_s = patience.seconds(SECONDS)
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return _unproved(variant, f"the probe process did not end within {timeout_s:.0f} s")
    if ended.returncode != 0:
        return _unproved(variant, ended.stderr.strip().rpartition("\n")[2] or "the probe process said nothing")
    found = json.loads(ended.stdout)
    if found["missing"]:
        raise errors.NotSupported(feature=found["missing"], needs=found["needs"])
    return Finding(
        tables=tuple(map(ruleset.Table, found["tables"])), links=found["links"], reasons=tuple(found["reasons"])
    )


def _unproved(variant: commands.Variant, why: str) -> Finding:
    """Take tables for there that can be read; where nothing was tried, the first write tells."""
    tables = []
    for table in ruleset.Table:
        with contextlib.suppress(errors.NotSupported):
            for family in net.Family:
                commands.save(family, variant, table)
            tables.append(table)
    return Finding(tables=tuple(tables), links=True, reasons=(f"iptables is not proved: {why}",))


def main() -> int:
    """Be the probe process."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        sys.stderr.write(f"a network namespace of its own: {os.strerror(ctypes.get_errno())}\n")
        return 1
    _raise_loopback()
    answer: dict[str, object] = {"missing": "", "needs": "", "tables": [], "links": True, "reasons": []}
    try:
        answer |= _probe(commands.Variant(sys.argv[1]))
    except errors.NotSupported as error:
        answer |= {"missing": error.feature, "needs": error.needs}
    sys.stdout.write(json.dumps(answer))
    return 0


def _probe(variant: commands.Variant) -> dict[str, object]:
    reasons = []
    tables = _tables(variant)
    if ruleset.Table.SECURITY not in tables:
        reasons.append(
            "nothing holds while others flush FORWARD: the kernel has no security table (CONFIG_IP_NF_SECURITY)"
        )
    with contextlib.closing(sets.Sets()) as kernel:
        for family in net.Family:
            _make_sets(kernel, family)
            _write_rules(variant, family, tables)
            _prove(family)
    links = True
    try:
        commands.nft(LINK_TABLE)
    except errors.DatapathError as error:
        links = False
        reasons.append(f"forged fragments and ARP of pods are not checked: {error}")
    return {"tables": [table.value for table in tables], "links": links, "reasons": reasons}


def _tables(variant: commands.Variant) -> tuple[ruleset.Table, ...]:
    """Return the tables there are for both families. Raises NotSupported without raw or filter."""
    found = []
    for table in ruleset.Table:
        try:
            for family in net.Family:
                commands.restore(family, variant, f"*{table.value}\nCOMMIT\n")
        except errors.ApplyFailed as error:
            if table is not ruleset.Table.SECURITY:
                needs = f"a kernel with that table ({error})"
                raise errors.NotSupported(
                    feature=f"the table {table.value} of iptables-{variant.value}", needs=needs
                ) from error
            continue
        found.append(table)
    return tuple(found)


def _make_sets(kernel: sets.Sets, family: net.Family) -> None:
    address = net.host_network(ipaddress.ip_address(LOOPBACK[family]))
    for kind, members in (
        (ruleset.SetKind.NETS, PEERS[family]),
        (ruleset.SetKind.NET_PORTS, {ruleset.Member(address, protocol=17, port=UDP_PORT): True}),
        (ruleset.SetKind.NET_INTERFACES, {ruleset.Member(address, interface="lo"): True}),
    ):
        name = _set(kind, family)
        kernel.create(name, kind, family, members=len(members))
        kernel.add(name, members)


def _set(kind: ruleset.SetKind, family: net.Family) -> str:
    return f"probe{family.value}-{kind.value}"


def _write_rules(variant: commands.Variant, family: net.Family, tables: Sequence[ruleset.Table]) -> None:
    """Write all rules in one transaction. Raises NotSupported naming the rule that this machine does not take."""
    for table, rules, jumps in (
        (ruleset.Table.RAW, _raw(family), (ruleset.Jump("PREROUTING", "NW-SOURCE"),)),
        (ruleset.Table.FILTER, _filter(family), (ruleset.Jump("INPUT", "NW-INPUT"),)),
        (ruleset.Table.SECURITY, _security(), (ruleset.Jump("INPUT", "NW-BACKSTOP"),)),
    ):
        if table not in tables:
            continue
        write = {
            chain: tuple(text.rule_text(ruleset.Rule(tuple(shlex.split(line))), {}) for line in lines)
            for chain, lines in rules.items()
        }
        try:
            commands.restore(family, variant, text.transaction({table: text.TableChange(write=write, insert=jumps)}))
        except errors.ApplyFailed as error:
            feature = f"a rule of this engine in iptables-{variant.value} ({error})"
            raise errors.NotSupported(feature=feature, needs="the kernel's module for its match or target") from error


def _raw(family: net.Family) -> dict[str, tuple[str, ...]]:
    return {
        "NW-SOURCE": (
            f"-m set --match-set {_set(ruleset.SetKind.NET_INTERFACES, family)} src,src -j RETURN",
            "-i nwprobe+ -g NW-FORGED",
        ),
        "NW-FORGED": (
            f"-j NFLOG --nflog-prefix nodewall --nflog-group {prefix.GROUP} --nflog-size 128",
            "-j DROP",
        ),
    }


def _filter(family: net.Family) -> dict[str, tuple[str, ...]]:
    six = family is net.Family.IPV6
    peers, ports = _set(ruleset.SetKind.NETS, family), _set(ruleset.SetKind.NET_PORTS, family)
    own = LOOPBACK[family]
    prohibited = "icmp6-adm-prohibited" if six else "icmp-admin-prohibited"
    errors_ = ("-p ipv6-icmp -m hl --hl-eq 255 -m icmp6 --icmpv6-type 135 -g NW-QUIET",) if six else ()
    return {
        "NW-INPUT": (
            "-m conntrack --ctdir REPLY -g NW-QUIET",
            f"-s {own} -m conntrack --ctstate RELATED -m conntrack ! --ctorigsrc {own} -g NW-DENY",
            f"-m conntrack --ctstate RELATED {shlex.join(quoted.words(family))} -g NW-QUIET",
            *errors_,
            "-m addrtype ! --dst-type LOCAL -g NW-DENY",
            "-g NW-SET",
        ),
        "NW-SET": (
            f"-p tcp -m set --match-set {peers} src -m tcp --dport {TCP_PORT}:{TCP_PORT} -g NW-QUIET",
            f"-p sctp -m set --match-set {peers} src -m multiport --dports 1,2:3 -g NW-QUIET",
            f"-m set --match-set {ports} src,dst -g NW-PASS",
            "-g NW-DENY",
        ),
        "NW-DENY": (
            "-p tcp -m conntrack --ctstate NEW -j REJECT --reject-with tcp-reset",
            f"-m conntrack --ctstate NEW -j REJECT --reject-with {prohibited}",
            "-j DROP",
        ),
        "NW-PASS": (
            "-m conntrack --ctstate NEW ! --ctstatus CONFIRMED -j NW-QUIET",
            "-g NW-QUIET",
        ),
        "NW-QUIET": (f"-j MARK --set-xmark {MARK}",),
    }


def _security() -> dict[str, tuple[str, ...]]:
    return {"NW-BACKSTOP": (f"-m mark --mark {MARK} -j RETURN", "-j DROP")}


def _prove(family: net.Family) -> None:
    """Talk to ourselves. Raises NotSupported if anything but what the rules say happens."""
    own = LOOPBACK[family]
    with _listening(family, TCP_PORT) as server, _listening(family, CLOSED_PORT):
        found = {
            "an allowed TCP connection": _connects(family, own, TCP_PORT, own) and _accepts(server),
            "a denied TCP connection": not _connects(family, own, CLOSED_PORT, own),
        }
        if family is net.Family.IPV4:
            found["a TCP connection from a hole in a set"] = not _connects(family, own, TCP_PORT, HOLE4)
    found["an allowed datagram"] = _arrives(family, own, UDP_PORT, within=PATIENCE_SECONDS)
    found["a denied datagram"] = not _arrives(family, own, CLOSED_PORT, within=DENIED_SECONDS)
    wrong = [what for what, as_expected in found.items() if not as_expected]
    if wrong:
        feature = f"enforcement by iptables (IPv{family.value}: {', '.join(wrong)} was not treated so)"
        raise errors.NotSupported(feature=feature, needs="iptables and ipset that work in a network namespace")


@contextlib.contextmanager
def _listening(family: net.Family, port: int) -> Iterator[socket.socket]:
    with socket.socket(_LIBC[family], socket.SOCK_STREAM) as server:
        server.bind((LOOPBACK[family], port))
        server.listen()
        server.settimeout(PATIENCE_SECONDS)
        yield server


def _connects(family: net.Family, address: str, port: int, source: str) -> bool:
    with socket.socket(_LIBC[family], socket.SOCK_STREAM) as client:
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
        server.bind((address, port))
        server.settimeout(within)  # when send returns, a busy machine may not have delivered it yet
        try:
            client.connect((address, port))
            client.send(b"nodewall")
            return bool(server.recv(16))
        except OSError:
            return False


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH22x", b"lo", 0)
        flags = struct.unpack_from("=H", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request), 16)[0]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | IFF_UP))


if __name__ == "__main__":
    sys.exit(main())
