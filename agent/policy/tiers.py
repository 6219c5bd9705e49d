"""The one internal form of every policy dialect: ordered tiers of ordered rules.

Kubernetes NetworkPolicy is one tier whose end is DENY for the pods it isolates (rules A14, A15), and
CiliumNetworkPolicy joins it, for what either allows is allowed unless one denies it (rule E6).
ClusterNetworkPolicy puts Admin and Baseline tiers around it (rule D1), Calico names its own (rule F2, F3).
The compiler reads this form. The evaluator does not: it is written from the numbered rules alone.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TypeAlias

from agent.model import fqdn, identity, labels, net, resources


class Action(enum.Enum):
    """What a rule does with the traffic it matches."""

    ALLOW = "Allow"
    DENY = "Deny"
    PASS = "Pass"
    """Leave this tier; the next one decides."""
    LOG = "Log"
    """Report and go on with the next rule."""


class EndOfTier(enum.Enum):
    """What happens to traffic of a selected pod that no rule of the tier matched."""

    DENY = "Deny"
    """Denied, if some policy isolates the pod in the direction; else the next tier decides (rules A14, E2)."""
    NEXT_TIER = "NextTier"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PodsPeer:
    """Pods whose namespace and own labels are selected; never bare addresses (rule A21)."""

    pods: labels.LabelSelector
    namespaces: labels.LabelSelector | None = None
    """None: only namespace `namespace`."""
    namespace: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlockPeer:
    """Addresses in `cidr` and in none of `excepts`, whoever owns them (rules A22, A23)."""

    cidr: net.Network
    excepts: tuple[net.Network, ...] = ()
    outside: bool = False
    """Only addresses that are no pod's and no node's (rule E11)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodesPeer:
    """Addresses of nodes that are no pod's own (rule E10)."""

    place: identity.NodePlace


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NamesPeer:
    """Addresses that DNS gave the subject for a name that one of `patterns` stands for; egress and Allow only."""

    patterns: tuple[fqdn.NamePattern, ...]


Peer: TypeAlias = PodsPeer | BlockPeer | NodesPeer | NamesPeer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Peers are ORed, ports are ORed, both must match (rule A17); None = any, () = none."""

    action: Action
    index: int
    peers: tuple[Peer, ...] | None = None
    ports: tuple[resources.PortMatch, ...] | None = None

    @property
    def asks(self) -> frozenset[fqdn.NamePattern]:
        """The patterns of the names that it lets pods ask for; empty: any, or it is no such rule (rule E17)."""
        return frozenset(pattern for match in self.ports or () for pattern in match.asks or ())


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One object's part in a tier: whom it selects and its rules, in order, by direction."""

    ref: resources.ObjectRef
    namespace: str
    """Selects pods of this namespace only (rule A19)."""
    subject: labels.LabelSelector
    directions: frozenset[net.Direction]
    """Those in which it isolates whom it selects."""
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()
    namespaces: labels.LabelSelector | None = None
    """Selects pods of namespaces with these labels instead (rule D7)."""
    priority: int = 0
    """Of an ordered tier: which place it asks for (rule D1)."""

    def speaks_of(self, direction: net.Direction) -> bool:
        """Tell whether it isolates or has rules there."""
        return direction in self.directions or bool(self.rules(direction))

    def rules(self, direction: net.Direction) -> tuple[Rule, ...]:
        """Return the rules of one direction."""
        return self.ingress if direction is net.Direction.INGRESS else self.egress


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Policies that are judged together, before the next tier."""

    name: str
    end: EndOfTier
    policies: tuple[Policy, ...]
    ordered: bool
    """True: the first matching rule decides. False: any matching Allow does (NetworkPolicy, rule A15)."""
