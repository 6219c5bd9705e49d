"""What is in audit: policies whose denials pass and are told (rule A51), and who said so.

Three means: flags of the agent and commands to it, both the node's admin's; and an annotation that whoever may write
policies can write, which therefore counts only where the admin allows it. This module must not look at policies.
"""

from __future__ import annotations

import dataclasses
import enum
import re

from agent import errors

ANNOTATION = "nodewall.io/audit"
"""On a NetworkPolicy or a Namespace: `true` asks for audit, `false` for nothing; anything else is a problem."""


_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


class Means(enum.Enum):
    """How something came into audit."""

    FLAG = "flag"
    COMMAND = "command"
    ANNOTATION = "annotation"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Target:
    """A NetworkPolicy, or with `policy` "" every policy of a namespace."""

    namespace: str
    policy: str = ""

    def __str__(self) -> str:
        """Show as `policy x/p` or `namespace x`."""
        return f"policy {self.namespace}/{self.policy}" if self.policy else f"namespace {self.namespace}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """All that an agent was told, but for annotations, which are the cluster's."""

    flags: frozenset[Target] = frozenset()
    commands: frozenset[Target] = frozenset()
    annotations: bool = False
    """Whether annotations count."""


NOTHING = Audit()


def target(text: str, *, field: str) -> Target:
    """Read `x`, a namespace, or `x/p`, a policy. Raises InvalidInput that names `field`."""
    namespace, slash, policy = text.partition("/")
    if _LABEL.fullmatch(namespace) is None or (slash and _NAME.fullmatch(policy) is None):
        raise errors.InvalidInput(field=field, value=text, remedy="write NAMESPACE, or NAMESPACE/NAME of a policy")
    return Target(namespace, policy)
