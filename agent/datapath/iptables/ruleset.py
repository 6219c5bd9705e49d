"""What the kernel shall hold of one IP family: chains, rules and sets, as values.

The seam inside this engine: `render` makes it from a DesiredState, `changes` finds the way to it, everything else only
carries it out. A set's name here says what the set means and nothing of how it came about; in the kernel each exists
in up to two versions, `<name>a` and `<name>b`, so that members can change in the version no rule refers to and one
table commit moves everything at once. This module must not know processes, files or byte order.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from agent.model import net

CHAIN_PREFIX = "NW-"
"""What the name of every chain of ours begins with, and nobody else's."""
SET_PREFIX = "NW"
"""What the name of every set of ours begins with, and nobody else's."""


class Table(enum.Enum):
    """The iptables tables with chains of ours, in the order in which they are committed."""

    RAW = "raw"
    """PREROUTING: the source check."""
    MANGLE = "mangle"
    """FORWARD and INPUT, before filter: what names allow, where that has to be asked for."""
    FILTER = "filter"
    """FORWARD and INPUT: the judgement."""
    SECURITY = "security"
    """FORWARD and INPUT, after filter: what left filter unjudged does not pass."""


class SetKind(enum.Enum):
    """The set types used; the value is ipset's name of it."""

    NETS = "hash:net"
    NET_PORTS = "hash:net,port"
    NET_INTERFACES = "hash:net,iface"


class Member(NamedTuple):
    """One element of a set; what the kind lacks is 0 or empty. `network` is never /0: ipset has no such prefix."""

    network: net.Network
    protocol: int = 0
    """IANA number, `hash:net,port` only."""
    port: int = 0
    interface: str = ""
    """Name, `hash:net,iface` only."""


def describe(member: Member) -> str:
    """Write a member as the ipset command does."""
    ports = f",{member.protocol}:{member.port}" if member.protocol else ""
    return f"{member.network}{ports}{',' if member.interface else ''}{member.interface}"


Members: TypeAlias = Mapping[Member, bool]
"""Element -> whether it matches; False is ipset's `nomatch`, a hole in a shorter prefix."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SetContent:
    """A set and all its elements."""

    kind: SetKind
    members: Members


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """One rule: the words after `-A CHAIN`, in the order in which iptables-save prints them, without the comment.

    A word that is a key of `Ruleset.sets` stands for whichever version of that set is in force.
    """

    words: tuple[str, ...]
    sets: tuple[str, ...] = ()
    """The words that are sets' names."""


@dataclasses.dataclass(frozen=True, slots=True)
class Jump:
    """The first rule of a built-in chain: `-A <builtin> -j <chain>`."""

    builtin: str
    chain: str


Chains: TypeAlias = Mapping[str, tuple[Rule, ...]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """Everything of one family."""

    family: net.Family
    chains: Mapping[Table, Chains]
    """Own chains only, all with the prefix `NW-`; at most 28 bytes (XT_EXTENSION_MAXNAMELEN less one)."""
    jumps: Mapping[Table, tuple[Jump, ...]]
    sets: Mapping[str, SetContent]
    """By name, SET_PREFIX first, at most 30 bytes (IPSET_MAXNAMELEN less NUL and the version's letter)."""
