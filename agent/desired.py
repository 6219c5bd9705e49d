"""The seam: what the datapath of one node shall enforce, as data.

The compiler writes it, a datapath brings the kernel into line with it. Neither side sees the other:
no selector, policy or Kubernetes object is below this line, no map, byte order or file descriptor
above it. Everything is derived from the present inputs alone, numbers included, so that any path to
one state gives one and the same DesiredState (design: level-triggered).

How a packet is judged, by every datapath alike:

1. A connection is normalised to its original direction (client -> server). Replies are judged as the
   connection they belong to (rule A38), so a revoked permission cuts live flows (rule A39).
2. Client is a local endpoint: `egress_set` judges the server's identity. Server is a local endpoint:
   `ingress_set` judges the client's identity. Both must agree (rule A16). Set 0 = not isolated: allow.
3. The identity of an address: `hosts`, else the longest prefix in `cidrs`, else WORLD.
4. In a set: the longest match (protocol, then port prefix) among the rows of that identity decides;
   without one, the longest among the rows of ANY; without one, denied (isolated, rule A15).
   The compiler has flattened tiers so that the row found is final.
5. What a side allows is put to its audit set, if it has one: a denial there passes all the same, and is told as
   AUDIT (rule A51). Nothing is held by an audit set.
6. Where the row that allows has a filter (`Row.asks`), datagrams are DNS queries and nothing else, and each passes
   where the class of the name that it asks for is among the filter's (rule E17). A Service is judged as it was dialled.

A new state takes effect at one instant for every endpoint of the node (`datapath/plan.py`).

Numbers: policy sets, endpoints, services and rules carry u32 digests of their content, never 0.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

from agent.fqdn import classes as classes_
from agent.model import endpoint, fqdn, identity, net, resources, verdict

NOT_ISOLATED = 0
"""The policy set of an endpoint that no policy selects in that direction."""
NO_RANK = 0xFFFF
"""Comes after every rank that a rule can have."""
ANY_PROTOCOL = 0
"""Protocol of a row that matches every protocol, ICMP included."""
ASKS_ANYTHING = 0
"""No filter: what is allowed need not be DNS."""
ASKS_NOTHING = 1
"""The filter that admits no name; below `numbers.FIRST`, so that no other has its number."""


class Action(enum.Enum):
    """What a row does; the value is what the map carries."""

    ALLOW = 1
    DENY = 2


class ServiceClass(enum.Enum):
    """What a policy set allows of a Service's backends; the value is what the map carries."""

    ALL = 1
    NONE = 2
    MIXED = 3
    """The hook lets it pass and FORWARD judges the chosen backend. There is a row only where that has a filter
    (`DesiredState.service_asks`), and none in `DesiredState.classes`."""


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class RowKey:
    """Matches ports that share the upper `port_bits` bits with `port`.

    `port_bits` is 0 (every port, then `port` is 0) to 16; protocol 0 = any, then `port_bits` is 0.
    """

    identity: int
    protocol: int
    port: int
    port_bits: int


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """What happens to what the key matches, and by which rule (a key of `DesiredState.rules`).

    Only sets that allow by name have ranks: a rule's place in the order in which the set's rules are asked. Of a
    static row, which speaks of an identity, `rank` is the deciding rule's and `passed` that of the first Pass it met.
    Of the row of a name class, which only allows, `rank` is that of the first Allow in the Admin tier, and `passed`
    that of the first one after it. A name allows what the static row denies where it comes first (`datapath.judge`).
    """

    action: Action
    rule: int
    rank: int = NO_RANK
    passed: int = NO_RANK
    asks: int = ASKS_ANYTHING
    """Of a row that allows: the filter that says which names may be asked for (`DesiredState.filters`)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """The rows of one direction, shared by every endpoint with the same policies.

    `digest` names the symbolic content (policies, rules, selectors, the subject's named ports), not the
    rows: rows are a function of it and of the identities present, so an identity that comes or goes
    adds or removes its rows in place, and every other change makes a new set with a new `id`.
    """

    id: int
    digest: bytes
    direction: net.Direction
    rows: Mapping[RowKey, Row]
    isolating: tuple[resources.ObjectRef, ...]
    """The policies that isolate; what a default deny is attributed to."""
    others: tuple[resources.ObjectRef, ...] = ()
    """Policies that have rules here and isolate nobody (rules D4, E2)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A local pod the datapath enforces on."""

    id: int
    """Digest of pod UID and network namespace cookie."""
    namespace: str
    pod: str
    uid: str
    labels: Mapping[str, str]
    netns_cookie: int
    veth_ifindex: int
    ingress_ifindex: int
    addresses: tuple[net.Address, ...]
    ingress_set: int
    egress_set: int
    held: bool = False
    """Not programmed yet and strict: nothing passes in either direction but the node's own traffic."""
    ingress_audit: int = NOT_ISOLATED
    """The set that would count were the policies in audit enforced too; 0: none of those that select it is (A51)."""
    egress_audit: int = NOT_ISOLATED


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Frontend:
    """Where a Service listens: cluster, external or load balancer address, or node address and node port."""

    address: net.Address
    port: int
    protocol: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DesiredState:
    """All a node enforces; `revision` counts inputs and is no part of the state."""

    revision: int = 0
    endpoints: Mapping[int, Endpoint] = dataclasses.field(default_factory=dict)
    sets: Mapping[int, PolicySet] = dataclasses.field(default_factory=dict)
    hosts: Mapping[net.Address, identity.NumericIdentity] = dataclasses.field(default_factory=dict)
    """ipcache, single addresses: every pod of the cluster."""
    cidrs: Mapping[net.Network, identity.NumericIdentity] = dataclasses.field(default_factory=dict)
    """ipcache, prefixes that policies mention."""
    frontends: Mapping[Frontend, int] = dataclasses.field(default_factory=dict)
    """Service frontend -> service number; frontends without endpoints are left out (kube-proxy refuses)."""
    classes: Mapping[tuple[int, int], tuple[ServiceClass, int]] = dataclasses.field(default_factory=dict)
    """(egress policy set, service) -> class, and the rule: for ALL, that which allows the first backend, for NONE, that
    which denies every one; 0 where there is no such rule."""
    held_ranges: frozenset[net.Network] = frozenset()
    """Addresses in here that are no endpoint's are held: this node's pod ranges, in strict mode."""
    deny_mode: endpoint.DenyMode = endpoint.DenyMode.REJECT
    rules: Mapping[int, verdict.RuleRef] = dataclasses.field(default_factory=dict)
    identities: Mapping[identity.NumericIdentity, identity.Identity] = dataclasses.field(default_factory=dict)
    services: Mapping[int, tuple[resources.ObjectRef, ...]] = dataclasses.field(default_factory=dict)
    """Service number -> the Services with that content, for people."""
    resolvers: frozenset[net.Address] = frozenset()
    """Whose DNS answers are believed."""
    names: classes_.Classes = dataclasses.field(default_factory=classes_.Classes)
    """Which classes of names there are, by which sets have rows and for which addresses are learned."""
    filters: Mapping[int, frozenset[int]] = dataclasses.field(default_factory=dict)
    """Filter -> the classes of the names that may be asked for; a u32 digest of its patterns, or ASKS_NOTHING."""
    service_asks: Mapping[tuple[int, int], int] = dataclasses.field(default_factory=dict)
    """(egress policy set, service) -> filter of what is sent to the Service's address: that of every backend that is
    allowed, ASKS_NOTHING where theirs differ; not there where none of them has one."""
    filter_patterns: Mapping[int, frozenset[fqdn.NamePattern]] = dataclasses.field(default_factory=dict)
    """Filter -> what policies say, for people."""
