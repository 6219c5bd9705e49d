"""What is in audit, for verbs that judge by manifests: the agent's own flags, given to `agentctl` (rule A51).

Nothing is in audit unless it is named, and annotations count only where they are let: a reader of manifests has to see
what an agent with those flags would do. What names no policy of the manifests is refused: it would be a typing error.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from agent import errors, snapshot
from agent.cli import output
from agent.model import audit as audit_
from agent.policy import audited, reachability

NAMESPACE, POLICY, ANNOTATIONS = "--audit-namespace", "--audit-policy", "--allow-audit-annotations"
NAMED_MOST = 10


def options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the three flags; it gets `audit`."""

    @functools.wraps(command)
    def with_audit(
        *arguments: Any, audit_namespace: Sequence[str], audit_policy: Sequence[str], annotations: bool, **others: Any
    ) -> Any:
        try:
            audit = given(audit_namespace, audit_policy, annotations=annotations)
        except errors.InvalidInput as error:
            raise output.failure(error) from error
        return command(*arguments, audit=audit, **others)

    found: Callable[..., Any] = with_audit
    for option in (
        click.option(
            ANNOTATIONS, "annotations", is_flag=True, help=f"Let {audit_.ANNOTATION} on policies and namespaces count."
        ),
        click.option(
            POLICY, "audit_policy", multiple=True, metavar="NAMESPACE/NAME", help="This policy of -f is in audit."
        ),
        click.option(
            NAMESPACE, "audit_namespace", multiple=True, metavar="NAMESPACE", help="Its policies of -f are in audit."
        ),
    ):
        found = option(found)
    return found


def given(namespaces: Sequence[str], policies: Sequence[str], *, annotations: bool) -> audit_.Audit:
    """Return what the flags mean; raises InvalidInput."""
    asked: set[audit_.Target] = set()
    for option, names, named in ((NAMESPACE, namespaces, False), (POLICY, policies, True)):
        for text in names:
            target = audit_.target(text, field=option)
            if bool(target.policy) is not named:
                remedy = "write NAMESPACE/NAME" if named else f"write a namespace, or use {POLICY}"
                raise errors.InvalidInput(field=option, value=text, remedy=remedy)
            asked.add(target)
    return audit_.Audit(flags=frozenset(asked), annotations=annotations)


def used(audit: audit_.Audit) -> str:
    """Name one of the flags that were given."""
    if audit.annotations:
        return ANNOTATIONS
    return POLICY if any(target.policy for target in audit.flags) else NAMESPACE


def checked(cluster: snapshot.Snapshot, audit: audit_.Audit) -> Mapping[str, audit_.Audit]:
    """Return `audit` for every node, and tell on stderr which annotations do not count.

    Raises InvalidInput for a flag that means no policy.
    """
    for target in sorted(audit.flags):
        meant = any(
            ref.namespace == target.namespace
            and (not target.policy or (ref.kind, ref.name) == (audited.KIND, target.policy))
            for ref in cluster.policies
        )
        if not meant:
            option, value = (
                (POLICY, f"{target.namespace}/{target.policy}") if target.policy else (NAMESPACE, target.namespace)
            )
            have = ", ".join(sorted(map(str, cluster.policies))[:NAMED_MOST]) or "no policy at all"
            raise errors.InvalidInput(field=option, value=value, remedy=f"there is {have}")
    for problem in audited.find(cluster, audit).problems:
        where = output.escape(f"{problem.ref} {problem.path}")
        click.echo(f"problem: {where}: does not count without {ANNOTATIONS}: it is enforced", err=True)
    return reachability.everywhere(cluster, audit)
