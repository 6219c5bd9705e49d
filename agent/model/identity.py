"""Identities: numbers for sets of policy-relevant facts (facts, not objects: replicas share one).

The number is derived from the facts, not from the order of events: the same facts give the same
number on every node, after every restart and along every path (see `identity/allocator.py`).
"""

from __future__ import annotations

import dataclasses
import enum
from typing import NewType

from agent.model import labels as labels_
from agent.model import net, resources

NumericIdentity = NewType("NumericIdentity", int)
"""u32; produced by `identity.allocator` and by the reserved ones below."""

ANY = NumericIdentity(0)
"""Not an identity: the peer of map rows that hold for every peer."""
HOST = NumericIdentity(1)
"""This node itself (verdicts only: its traffic passes by position, rule A37)."""
WORLD = NumericIdentity(2)
"""An address nothing is known of: no pod, in no prefix that a policy mentions."""
UNMANAGED = NumericIdentity(3)
"""An address of this node's pod range, or a network namespace, whose pod is not programmed yet (rule A45)."""
FIRST_ALLOCATED = 256
FIRST_NAME_CLASS = 1 << 31
"""From here on numbers stand for classes of DNS names (`fqdn.classes`), below for identities: one number space."""


class NodePlace(enum.Enum):
    """Which node an address is of, seen from the node that compiles."""

    HOST = "host"
    REMOTE = "remote-node"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything a policy of the present snapshot can tell an address by.

    `namespace` is None for addresses that are no pod's. `labels` and `namespace_labels` hold only keys
    that some selector mentions; `ports` only those named ports that some rule names; `blocks` every
    prefix (cidr or except) of some rule that contains the address (rules A22, A23).
    """

    namespace: str | None = None
    labels: labels_.Labels = labels_.NO_LABELS
    namespace_labels: labels_.Labels = labels_.NO_LABELS
    ports: tuple[resources.ContainerPort, ...] = ()
    blocks: tuple[net.Network, ...] = ()
    node: NodePlace | None = None
    """Whose address it is, if a node's and no pod's; only where a policy tells nodes from others (rules E10, E11)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A numeric identity and what it stands for."""

    id: NumericIdentity
    facts: Facts
