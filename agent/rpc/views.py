"""What the API says, as values: the server describes the agent with them, the client gives them back.

The wire form is `proto/nodewall/agent/v1/agent.proto`; `convert` maps one to the other and nothing is lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from agent.model import labels as labels_
from agent.model import net, resources


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What runs, since when, and what is wrong; times are nanoseconds since 1970, 0 for never."""

    node: str
    version: str
    mode: str
    """`socket+nfbpf`, `socket+iptables`, `iptables`, `memory`: what enforces."""
    mode_reasons: tuple[str, ...] = ()
    deny_mode: str = ""
    hold_mode: str = ""
    synced: bool = False
    """Every input has delivered its first whole list."""
    revision: int = 0
    enforced_revision: int = 0
    """Equal to `revision` when nothing is pending."""
    generation: int = 0
    started_unix_ns: int = 0
    enforced_unix_ns: int = 0
    last_error: str = ""
    endpoints: int = 0
    identities: int = 0
    policies: int = 0
    policy_sets: int = 0
    rows: int = 0
    problems: tuple[resources.Problem, ...] = ()
    counters: Mapping[str, int] = dataclasses.field(default_factory=dict)
    source: str = ""
    source_changed_unix_ns: int = 0
    enforced_source_digest: str = ""
    """Digest of the source's content that is enforced now."""
    sandboxes: int = 0
    held_endpoints: int = 0
    iptables: str = ""
    """`legacy` or `nft`, where an engine uses iptables."""
    last_repair: str = ""
    """What of ours others had changed and was put right last."""
    last_repair_unix_ns: int = 0
    repair_error: str = ""
    """Why what others changed is not put right; empty when nothing is wrong."""
    not_ready: tuple[str, ...] = ()
    """Each check of readiness that fails, and why; none: the agent is ready."""
    proved: tuple[str, ...] = ()
    """What was shown to hold at the start, by function or by its links alone."""
    audited_endpoints: int = 0
    """Pods of this node that a policy in audit selects."""
    audited: tuple[str, ...] = ()
    """What is in audit: `namespace x by flag`, `policy x/p by command`."""


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
class AuditEntry:
    """Something in audit."""

    namespace: str
    policy: str
    """"" for all policies of the namespace."""
    means: str
    since_unix_ns: int
    policies: int
    """How many policies that is now."""
    would_deny: int
    """Connections that would have been denied since the agent's start, a side each."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AuditChange:
    """What became of a command."""

    in_force: bool
    held_by: tuple[str, ...]
    """By which means it is in audit now."""
    trouble: str
    """Why a restart would forget the change."""
