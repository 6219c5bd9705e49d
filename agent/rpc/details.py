"""One thing each, listed or whole: what the API says of an endpoint, an identity, a policy, an address, a Service.

Fields are called as in agent.proto, and `mirror` maps one to the other. Texts in words hold names from manifests:
whoever prints them escapes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from agent.model import labels as labels_
from agent.model import net, resources
from agent.policy import words


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A pod of this node that policy is enforced on."""

    id: int
    namespace: str
    pod: str
    uid: str
    labels: labels_.Labels = labels_.NO_LABELS
    addresses: tuple[net.Address, ...] = ()
    identities: tuple[int, ...] = ()
    """One an address, in the same order."""
    netns_cookie: int = 0
    veth_ifindex: int = 0
    ingress_isolated: bool = False
    egress_isolated: bool = False
    ingress_policies: tuple[resources.ObjectRef, ...] = ()
    egress_policies: tuple[resources.ObjectRef, ...] = ()
    held: bool = False
    audit_ingress: tuple[resources.ObjectRef, ...] = ()
    """Policies in audit that select it."""
    audit_egress: tuple[resources.ObjectRef, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A numeric identity, what it stands for, and who has it."""

    id: int
    namespace: str = ""
    labels: labels_.Labels = labels_.NO_LABELS
    namespace_labels: labels_.Labels = labels_.NO_LABELS
    named_ports: tuple[str, ...] = ()
    """`http=8080/TCP`."""
    blocks: tuple[net.Network, ...] = ()
    addresses: tuple[net.Address, ...] = ()
    """The first of them."""
    address_count: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A policy in force, and what it does on this node."""

    ref: resources.ObjectRef
    directions: tuple[str, ...] = ()
    selected_endpoints: int = 0
    ingress_rules: int = 0
    egress_rules: int = 0
    problems: tuple[resources.Problem, ...] = ()
    audit: tuple[str, ...] = ()
    """By which means it is in audit: `flag`, `command`, `annotation`; none: it is enforced."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyWords:
    """The rules of one policy in one direction."""

    policy: resources.ObjectRef
    rules: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSide:
    """What holds for an endpoint in one direction."""

    isolated: bool = False
    policy_set: int = 0
    """0: none."""
    rows: int = 0
    policies: tuple[PolicyWords, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EndpointDetail:
    """A pod of this node."""

    endpoint: Endpoint
    ingress: EndpointSide
    egress: EndpointSide
    ingress_ifindex: int = 0
    """Where its packets come in: its veth, or the bridge that is on."""
    hold: str = ""
    """Why it is held; "" where it is not."""
    recent: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Verdicts the agent still has of it, by direction and verdict: `ingress dropped`."""
    services: tuple[resources.ObjectRef, ...] = ()
    """Those it is behind."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Who has an address."""

    address: net.Address
    owner: resources.ObjectRef


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class IdentityDetail:
    """An identity, and who has it."""

    identity: Identity
    reserved: str = ""
    """Its name, where it has one."""
    meaning: str = ""
    holders: tuple[Holder, ...] = ()
    prefixes: tuple[net.Network, ...] = ()
    rows: int = 0
    """Of this node's policy sets that name it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SelectedEndpoint:
    """A pod of this node that a policy selects."""

    id: int
    namespace: str
    pod: str
    directions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """A row of a policy set that exists for a policy."""

    policy_set: int
    direction: str
    identity: int
    """0: any."""
    peer: str
    protocol: str
    ports: str
    """`all`, `80`, `8080-8087`."""
    action: str
    rule_index: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyDetail:
    """A policy as it was read, what it selects here, and its rows."""

    policy: Policy
    uid: str = ""
    subject: str = ""
    rules: tuple[words.RuleText, ...] = ()
    endpoints: tuple[SelectedEndpoint, ...] = ()
    rows: tuple[PolicyRow, ...] = ()
    """The first of them."""
    row_count: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServicePoint:
    """Where a Service listens at an address."""

    port: int
    protocol: str
    service: resources.ObjectRef


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class PolicyMatch:
    """A selector or block of a policy that matches."""

    policy: resources.ObjectRef
    path: str
    """In the API's spelling: `spec.ingress[0].from`."""
    because: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AddressDetail:
    """Who an address is, and which policies speak of it."""

    address: net.Address
    owners: tuple[resources.ObjectRef, ...] = ()
    endpoint: int = 0
    """0: none of this node."""
    identity: int = 0
    reserved: str = ""
    prefix: str = ""
    """What the identity was found by; "" by nothing."""
    found: str = ""
    """Likewise, in words."""
    services: tuple[ServicePoint, ...] = ()
    selected_by: tuple[PolicyMatch, ...] = ()
    peer_of: tuple[PolicyMatch, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceFrontend:
    """Where a Service listens."""

    address: net.Address
    port: int
    protocol: str
    number: int = 0
    """Of the backends as policy sees them; 0: there are none, and nothing listens."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceBackend:
    """What is behind a Service."""

    address: net.Address
    port: int
    protocol: str
    identity: int = 0
    owner: resources.ObjectRef | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceClass:
    """What an egress policy set allows of the backends with a number."""

    number: int
    policy_set: int
    allows: str
    """`all`, `none`, `mixed`."""
    rule: str = ""
    """That allows the first backend."""
    pods: tuple[str, ...] = ()
    """Endpoints with that set."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Service of the cluster, as this node resolves it."""

    namespace: str
    name: str
    frontends: tuple[ServiceFrontend, ...] = ()
    backends: tuple[ServiceBackend, ...] = ()
    classes: tuple[ServiceClass, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Something the agent was told."""

    name: str
    value: str
    origin: str
    """`command line`, `default`, `found` (by looking at this machine), `agentctl`."""
    changeable: bool = False
    """While the agent runs."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MetricSample:
    """One number of a scrape."""

    name: str
    kind: str
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    value: float = 0.0
    help: str = ""
