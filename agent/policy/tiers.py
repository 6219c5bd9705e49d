"""The one internal form of every policy dialect: ordered tiers of ordered rules.

Kubernetes NetworkPolicy is one tier whose end is DENY for the pods it selects (rules A14, A15);
ClusterNetworkPolicy puts Admin and Baseline tiers around it, Calico names its own (rule F2, F3).
The compiler reads this form. The evaluator does not: it is written from the numbered rules alone.
"""

from __future__ import annotations

import dataclasses
import enum
from typing import TypeAlias

from agent.model import labels, net, resources


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


Peer: TypeAlias = PodsPeer | BlockPeer


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Peers are ORed, ports are ORed, both must match (rule A17); None = any, () = none."""

    action: Action
    index: int
    peers: tuple[Peer, ...] | None = None
    ports: tuple[resources.PortMatch, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One object's part in a tier: whom it selects and its rules, in order, by direction."""

    ref: resources.ObjectRef
    namespace: str
    """Selects pods of this namespace only (rule A19)."""
    subject: labels.LabelSelector
    directions: frozenset[net.Direction]
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()

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
