"""What is in audit, asked and changed through the agent's own API (rule A51).

The socket answers root alone (`sockets.bound`): who may ask may also change. A change is answered once it is in force,
or after PATIENCE_S as not in force yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses

from agent import audits, errors, patience, reconciler
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.model import audit as audit_
from agent.rpc import views

PATIENCE_S = 4.0
"""Less than clients wait for an answer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """Answers for one running agent."""

    loop: reconciler.Reconciler
    ledger: audits.Ledger

    async def change(self, target: audit_.Target, *, enable: bool) -> views.AuditChange:
        """Put something into audit or take it out. Raises InvalidInput where the command could not be kept."""
        if enable:
            self.ledger.enable(target)
        else:
            self.ledger.disable(target)
        revision = self.loop.set_audit(self.ledger.setting)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience.seconds(PATIENCE_S)):
                await self.loop.reached(revision)
        now = self.loop.enforcement
        return views.AuditChange(
            in_force=now is not None and now.inputs.revision >= revision,
            held_by=tuple(means.value for means in self.ledger.holding(target)),
            trouble=self.ledger.trouble,
        )

    def entries(self) -> tuple[views.AuditEntry, ...]:
        """List everything in audit."""
        return tuple(
            views.AuditEntry(
                namespace=one.target.namespace,
                policy=one.target.policy,
                means=one.means.value,
                since_unix_ns=one.since_unix_ns,
                policies=one.policies,
                would_deny=one.would_deny,
            )
            for one in self.ledger.entries()
        )


def target_of(request: pb.SetAuditRequest) -> audit_.Target:
    """Read what is to be changed. Raises InvalidInput."""
    whole = audit_.target(request.namespace, field="namespace")
    if whole.policy:  # X/P means one policy to people, and here it would be a namespace's name
        remedy = "write the namespace alone, and the policy's name in policy"
        raise errors.InvalidInput(field="namespace", value=request.namespace, remedy=remedy)
    if not request.policy:
        return whole
    try:
        return audit_.target(f"{request.namespace}/{request.policy}", field="policy")
    except errors.InvalidInput as error:
        remedy = "write the name of a NetworkPolicy, or nothing for all of the namespace"
        raise errors.InvalidInput(field="policy", value=request.policy, remedy=remedy) from error


def set_message(target: audit_.Target, *, enable: bool) -> pb.SetAuditRequest:
    """Return the message that asks for a change."""
    return pb.SetAuditRequest(namespace=target.namespace, policy=target.policy, enable=enable)
