"""What the words of a rule match of a packet, one by one, as xtables' matches do.

Only what our rules use is known; any other word, and an option whose match was not loaded, is an InvalidAnswer: a rule
that cannot be followed is not guessed at. Pure.
"""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Protocol, TypeAlias

from agent import errors
from agent.datapath.iptables import asked, quoted, ruleset
from agent.model import net

PROTOCOLS: Mapping[str, int] = {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132}
CT_STATES = frozenset({"NEW", "ESTABLISHED", "RELATED", "INVALID"})
ASKED = frozenset(asked.PROGRAMS)
MODULE_OF: Mapping[str, tuple[str, ...]] = {
    "--dport": ("tcp", "udp", "sctp"),
    "--sport": ("tcp", "udp", "sctp"),
    "--dports": ("multiport",),
    "--sports": ("multiport",),
    "--match-set": ("set",),
    "--ctstate": ("conntrack",),
    "--ctstatus": ("conntrack",),
    "--ctdir": ("conntrack",),
    "--ctorigsrc": ("conntrack",),
    "--ctreplsrc": ("conntrack",),
    "--mark": ("mark",),
    "--src-type": ("addrtype",),
    "--dst-type": ("addrtype",),
    "--icmpv6-type": ("icmp6",),
    "--hl-eq": ("hl",),
    "--physdev-in": ("physdev",),
    "--bytecode": ("bpf",),
    "--object-pinned": ("bpf",),
    "--comment": ("comment",),
}
"""Option -> the matches of which one must be loaded."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """What rules can see of a packet."""

    source: net.Address
    destination: net.Address
    protocol: int
    source_port: int = 0
    destination_port: int = 0
    icmp_type: int = 0
    hop_limit: int = 64
    interface: str = "eth0"
    port: str = ""
    """Of the bridge `interface`; "" where it is none, or netfilter is not shown what it carries."""
    state: str = "NEW"
    reply: bool = False
    original_source: net.Address | None = None
    """conntrack's; None: the client is the source, or the destination of a reply."""
    reply_source: net.Address | None = None
    quoted: net.Address | None = None
    """An ICMP error's: whom the packet was for that it quotes."""
    mark: int = 0
    confirmed: bool = False
    """An earlier packet of the connection has left."""
    named: bool = False
    """The programs of ours that rules ask say that a name allows it."""


class Walking(Protocol):
    """A packet on its way: what it is, and what has become of it so far."""

    packet: Packet
    mark: int

    def has(self, name: str, directions: Sequence[str]) -> bool:
        """Ask a set whether it has the packet's `src`, `dst` or a pair of them."""


Matcher: TypeAlias = Callable[[Walking], bool]


def matchers(rule: ruleset.Rule, local: Container[net.Address]) -> tuple[tuple[Matcher, ...], tuple[str, ...]]:
    """Return what a packet must match, and the words from `-j` or `-g` on. Raises InvalidAnswer."""
    words = list(rule.words)
    modules: set[str] = set()
    found: list[Matcher] = []
    but = False
    while words and words[0] not in {"-j", "-g"}:
        word = words.pop(0)
        if word == "!":
            but = True
        elif word == "-m":
            modules.add(words.pop(0))
        else:
            if word in MODULE_OF and modules.isdisjoint(MODULE_OF[word]):
                raise not_followed(rule, f"{word} without its match")
            matcher = _matcher(word, words, rule, local)
            found.append(_negated(matcher) if but else matcher)
            but = False
    if not words:
        raise not_followed(rule, "no target")
    return tuple(found), tuple(words)


def not_followed(rule: ruleset.Rule, why: str) -> errors.InvalidAnswer:
    """Return what to raise where a rule is none of ours to follow."""
    return errors.InvalidAnswer(what=f"the rule {' '.join(rule.words)!r}", why=why)


def _negated(matcher: Matcher) -> Matcher:
    return lambda walking: not matcher(walking)


def _matcher(word: str, words: list[str], rule: ruleset.Rule, local: Container[net.Address]) -> Matcher:
    value = words.pop(0)
    if word == "--match-set":
        directions = words.pop(0).split(",")
        return lambda walking: walking.has(value, directions)
    if word in {"--src-type", "--dst-type"} and value == "LOCAL":
        name = "source" if word == "--src-type" else "destination"
        return lambda walking: getattr(walking.packet, name) in local
    try:
        matcher = _by_word(word, value)
    except ValueError as error:
        raise not_followed(rule, str(error)) from error
    if matcher is None:
        raise not_followed(rule, f"{word} {value} is none of ours")
    return matcher


def _by_word(word: str, value: str) -> Matcher | None:  # noqa: C901, PLR0911, PLR0912 - one case a word
    match word:
        case "--comment":
            return lambda _: True
        case "-s":
            network = ipaddress.ip_network(value)
            return lambda walking: walking.packet.source in network
        case "-d":
            network = ipaddress.ip_network(value)
            return lambda walking: walking.packet.destination in network
        case "-i":
            named = _name(value)
            return lambda walking: named(walking.packet.interface)
        case "--physdev-in":
            named = _name(value)
            return lambda walking: named(walking.packet.port)
        case "-p":
            number = PROTOCOLS.get(value) or int(value)
            return lambda walking: walking.packet.protocol == number
        case "--dport" | "--dports":
            inside = _ports(value)
            return lambda walking: inside(walking.packet.destination_port)
        case "--sport" | "--sports":
            inside = _ports(value)
            return lambda walking: inside(walking.packet.source_port)
        case "--ctstate" if value in CT_STATES:
            return lambda walking: walking.packet.state == value
        case "--ctdir" if value == "REPLY":
            return lambda walking: walking.packet.reply
        case "--ctorigsrc":
            address = ipaddress.ip_address(value)
            return lambda walking: walking.packet.original_source == address
        case "--ctreplsrc":
            address = ipaddress.ip_address(value)
            return lambda walking: walking.packet.reply_source == address
        case "--mark":
            wanted, mask = (int(part, 16) for part in value.split("/"))
            return lambda walking: walking.mark & mask == wanted
        case "--ctstatus" if value == "CONFIRMED":
            return lambda walking: walking.packet.confirmed
        case "--icmpv6-type":
            return lambda walking: walking.packet.icmp_type == int(value)
        case "--bytecode" if value in {quoted.words(family)[-1] for family in net.Family}:
            return lambda walking: walking.packet.quoted == walking.packet.source
        case "--object-pinned" if value.rpartition("/")[2] in ASKED:
            return lambda walking: walking.packet.named
        case "--hl-eq":
            return lambda walking: walking.packet.hop_limit == int(value)
        case _:
            return None


def _name(value: str) -> Callable[[str], bool]:
    """Match an interface's name; with `+` at its end, every name that begins so."""
    if value.endswith("+"):
        return lambda name: name.startswith(value[:-1])
    return lambda name: name == value


def _ports(value: str) -> Callable[[int], bool]:
    spans = [part.partition(":") for part in value.split(",")]
    bounds = [(int(first), int(last or first)) for first, _, last in spans]
    return lambda port: any(first <= port <= last for first, last in bounds)
