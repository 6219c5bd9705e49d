"""The checks at the veths, as text and, as root, on frames."""

from __future__ import annotations

import ipaddress
import json
import secrets
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent.datapath.iptables import netdev, prefix
from agent.model import endpoint, net

GENERATION = 77
VETH = 10
FOUR, SIX = ipaddress.IPv4Address("10.0.0.2"), ipaddress.IPv6Address("fd00::2")
OTHER4, OTHER6 = ipaddress.IPv4Address("10.0.0.3"), ipaddress.IPv6Address("fd00::3")
LOCAL6, NONE6 = ipaddress.IPv6Address("fe80::1"), ipaddress.IPv6Address("::")
SEND = (
    "import socket, sys\n"
    "with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:\n"
    "    out.bind(('pod', 0))\n"
    "    for line in sys.stdin:\n"
    "        out.send(bytes.fromhex(line))\n"
)
COUNTER = """
table netdev counting {
\tchain after {
\t\ttype filter hook ingress device "veth" priority 0; policy accept;
\t\tcounter
\t}
}
"""


def sandbox(index: int, *addresses: net.Address) -> endpoint.Sandbox:
    return endpoint.Sandbox(
        namespace="x",
        pod=f"p{index}",
        uid=f"u{index}",
        netns_cookie=index,
        veth_ifindex=index,
        ingress_ifindex=index,
        addresses=addresses,
    )


def test_without_a_veth_there_is_nothing_to_check() -> None:
    assert netdev.render([], {}, 1) == ""
    assert netdev.render([sandbox(0, FOUR), sandbox(VETH, FOUR)], {0: "lo"}, 1) == ""


def test_one_transaction_makes_the_table_anew() -> None:
    text = netdev.render([sandbox(VETH, FOUR, SIX), sandbox(11, OTHER4)], {VETH: "veth-a", 11: "veth-b"}, GENERATION)
    assert text.startswith("table netdev nodewall\ndelete table netdev nodewall\ntable netdev nodewall {\n")
    assert text.count("type filter hook ingress device") == 2
    assert "ip saddr 10.0.0.2 @ll,96,16 0x0800 accept" in text
    assert f'log prefix "{prefix.Prefix(GENERATION, prefix.Note.FORGED)}" group {prefix.GROUP} ' in text


def test_a_hook_never_drops_by_policy() -> None:
    """Such a chain would drop everything between its registration and the commit."""
    assert "policy drop" not in netdev.render([sandbox(VETH, FOUR)], {VETH: "veth-a"}, 1)


def test_names_that_nft_would_misread_are_left_out() -> None:
    for name in ('a"b', "veth*", "a\\b", "", "\n"):
        assert netdev.render([sandbox(VETH, FOUR)], {VETH: name}, 1) == ""


def test_order_of_sandboxes_does_not_matter() -> None:
    both = [sandbox(VETH, FOUR, SIX), sandbox(11, OTHER4, OTHER6)]
    names = {VETH: "veth-a", 11: "veth-b"}
    assert netdev.render(both, names, 1) == netdev.render(both[::-1], names, 1)


def ethernet(kind: int, payload: bytes) -> bytes:
    return bytes.fromhex("ffffffffffff 020000000001") + kind.to_bytes(2, "big") + payload


def arp(sender: net.Address) -> bytes:
    head = bytes.fromhex("0001 0800 06 04 0001 020000000001")
    return ethernet(0x0806, head + sender.packed + bytes(6) + OTHER4.packed)


def ipv4(source: net.Address, *, kind: int = 0x0800) -> bytes:
    header = bytes.fromhex("45000014 00000000 40fd0000") + source.packed + OTHER4.packed
    return ethernet(kind, header)


def ipv6(source: net.Address, payload: bytes, *, header: int, hops: int) -> bytes:
    head = bytes.fromhex("60000000") + len(payload).to_bytes(2, "big") + bytes((header, hops))
    return ethernet(0x86DD, head + source.packed + OTHER6.packed + payload)


def icmp6(source: net.Address, kind: int, *, hops: int = 255, target: net.Address = NONE6) -> bytes:
    return ipv6(source, bytes((kind, 0)) + bytes(6) + target.packed, header=58, hops=hops)


def tagged(frame: bytes) -> bytes:
    return frame[:12] + bytes.fromhex("8100 0005") + frame[12:]


BROKEN = bytes((58, 255)) + bytes(6)
"""A destination options header longer than the packet."""
GENUINE = {
    "own IPv4": ipv4(FOUR),
    "own ARP": arp(FOUR),
    "ARP probe": arp(ipaddress.IPv4Address("0.0.0.0")),
    "own UDP": ipv6(SIX, bytes(8), header=17, hops=64),
    "own echo, 255 hops": icmp6(SIX, 128),
    "own solicitation": icmp6(SIX, 135),
    "own advertisement": icmp6(SIX, 136, target=SIX),
    "own advertisement, link-local": icmp6(SIX, 136, target=LOCAL6),
    "link-local solicitation": icmp6(LOCAL6, 135),
    "link-local advertisement of its own": icmp6(LOCAL6, 136, target=SIX),
    "duplicate address detection": icmp6(NONE6, 135),
    "router solicitation": icmp6(LOCAL6, 133),
    "listener report": icmp6(NONE6, 143, hops=1),
    "own, headers that cannot be followed, routable": ipv6(SIX, BROKEN, header=60, hops=64),
}
FORGED = {
    "foreign IPv4": ipv4(OTHER4),
    "foreign ARP": arp(OTHER4),
    "short ARP": arp(FOUR)[:30],
    "foreign UDP": ipv6(OTHER6, bytes(8), header=17, hops=64),
    "link-local UDP": ipv6(LOCAL6, bytes(8), header=17, hops=64),
    "link-local echo": icmp6(LOCAL6, 128),
    "solicitation from afar": icmp6(LOCAL6, 135, hops=64),
    "listener report from afar": icmp6(LOCAL6, 143, hops=64),
    "router advertisement": icmp6(LOCAL6, 134),
    "own router advertisement": icmp6(SIX, 134),
    "own redirect": icmp6(SIX, 137),
    "advertisement for another": icmp6(SIX, 136, target=OTHER6),
    "link-local advertisement for another": icmp6(LOCAL6, 136, target=OTHER6),
    "advertisement cut short": icmp6(SIX, 136)[:-20],
    "own, headers that cannot be followed, on link": ipv6(SIX, BROKEN, header=60, hops=255),
    "tagged": tagged(ipv4(FOUR)),
    "other protocol": ipv4(FOUR, kind=0x88B5),
}


@pytest.fixture(scope="module")
def node() -> Iterator[str]:
    """Run the check on a veth in a namespace of its own; what it lets pass is counted behind it."""
    name = f"nw-netdev-{secrets.token_hex(3)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        for command in ("add veth type veth peer name pod", "set veth up", "set pod up"):
            subprocess.run(["ip", "-n", name, "link", *command.split()], check=True)
        text = netdev.render([sandbox(VETH, FOUR, SIX)], {VETH: "veth"}, GENERATION)
        for each in (text, text, COUNTER):
            subprocess.run(["ip", "netns", "exec", name, "nft", "-f", "-"], input=each, text=True, check=True)
        yield name
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


def passed(node: str, frames: list[bytes]) -> int:
    """Send frames by the pod's end and count those that got past the check."""
    counts = []
    for send in (False, True):
        if send:
            text = "".join(f"{frame.hex()}\n" for frame in frames)
            subprocess.run(["ip", "netns", "exec", node, sys.executable, "-c", SEND], input=text, text=True, check=True)
        command = ["ip", "netns", "exec", node, "nft", "-j", "list", "table", "netdev", "counting"]
        listed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        rules = [item["rule"] for item in listed["nftables"] if "rule" in item]
        counts.append(rules[0]["expr"][0]["counter"]["packets"])
    return int(counts[1] - counts[0])


REPEATED = 40
"""More often than the pod's interface sends packets of its own accord while a test looks."""


@pytest.mark.root
@pytest.mark.parametrize("name", GENUINE)
def test_what_a_pod_may_send_passes(node: str, name: str) -> None:
    assert passed(node, [GENUINE[name]] * REPEATED) >= REPEATED


@pytest.mark.root
@pytest.mark.parametrize("name", FORGED)
def test_what_is_forged_is_dropped(node: str, name: str) -> None:
    assert passed(node, [FORGED[name]] * REPEATED) < REPEATED / 2
