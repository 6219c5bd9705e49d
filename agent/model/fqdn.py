"""DNS names as policies write them, and what endpoints were told about names.

A pattern belongs to a dialect because one text means different things: `*.example.com` is one label more in a
CiliumNetworkPolicy and one or more in a ClusterNetworkPolicy (requirement F2). The dialect is what the API kind says,
never a guess. Values only: who reads patterns is `agent/fqdn/patterns.py`, who matches names there too.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import TypeAlias

from agent.model import net


class Dialect(enum.StrEnum):
    """Whose wildcards a pattern has; the value is the API kind, and orders patterns."""

    CLUSTER_NETWORK_POLICY = "ClusterNetworkPolicy"
    CILIUM = "CiliumNetworkPolicy"


class Reject(enum.Enum):
    """What a pod gets that asks for a name which no policy lets it ask for; the value is the flag's."""

    REFUSED = "refused"
    NAME_ERROR = "nameError"
    """That there is no such name: resolvers with a search list go on, where REFUSED stops some."""
    DROP = "drop"
    """Nothing."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class NamePattern:
    """A set of DNS names; made by `fqdn.patterns` alone, which says what is allowed in it."""

    dialect: Dialect
    text: str
    """Canonical: lower case, no trailing dot, runs of `*` shortened; `*` alone is every name (Cilium's dialect)."""

    @property
    def exact(self) -> bool:
        """Whether it stands for one name only."""
        return "*" not in self.text

    def __str__(self) -> str:
        """Show the text; every character of it is printable ASCII."""
        return self.text


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One DNS answer an endpoint received, as far as addresses go."""

    endpoint: int
    name: str
    """The name that was asked for: neither an alias on the way nor the owner of a record (requirement F5)."""
    addresses: tuple[tuple[net.Address, int], ...]
    """Each address with the TTL of its own record, in seconds, as it was on the wire: u32."""
    at_ns: int
    """CLOCK_BOOTTIME, as the kernel counts expiry."""
    alias_ttls_s: tuple[int, ...] = ()
    """The TTLs of the CNAME records in the answer, likewise."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """That an endpoint learned an address by a name."""

    endpoint: int
    name: str
    """Canonical, as in `NamePattern.text`."""
    address: net.Address
    answered_ns: int
    """CLOCK_BOOTTIME of the last answer that said so."""
    expires_ns: int
    """CLOCK_BOOTTIME; grace included."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Learned:
    """One class of names by which an endpoint may reach an address, until when."""

    class_number: int
    """u32 of at least `identity.FIRST_NAME_CLASS`."""
    expires_ns: int
    """CLOCK_BOOTTIME; grace included."""


Place: TypeAlias = tuple[int, net.Address]
"""An endpoint, and an address that it learned."""
LearnedAddresses: TypeAlias = Mapping[Place, tuple[Learned, ...]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the kernel has learned at one moment."""

    addresses: LearnedAddresses = dataclasses.field(default_factory=dict)
    """Expired or not."""
    used: frozenset[Place] = frozenset()
    """Those that some flow has needed: its connection goes on as long as the class is allowed (requirement F17)."""
