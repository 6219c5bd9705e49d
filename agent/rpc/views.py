"""What the API says of the agent itself: the server describes it with these values, the client gives them back.

The wire form is `proto/nodewall/agent/v1/agent.proto`; `mirror` maps one to the other and nothing is lost.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from agent.model import resources


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
