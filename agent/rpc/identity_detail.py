"""What an identity stands for, in words, and who has it."""

from __future__ import annotations

from collections.abc import Mapping

from agent import errors, reconciler
from agent.model import identity as identity_
from agent.model import resources
from agent.rpc import describe, details

RESERVED: Mapping[int, tuple[str, str]] = {
    identity_.ANY: ("any", "every peer, in rows of policy sets"),
    identity_.HOST: ("host", "this node itself; its traffic passes (A37)"),
    identity_.WORLD: ("world", "addresses that are no pod's and in no block of a policy"),
    identity_.UNMANAGED: ("unmanaged", "addresses of this node's pod ranges whose pod is not programmed yet (A45)"),
}
"""Number -> name, and meaning in words."""
UNKNOWN = identity_.Facts()


def detail(now: reconciler.Enforcement, number: int) -> details.IdentityDetail:
    """Describe an identity; raises NotFound."""
    name, meaning = RESERVED.get(number, ("", ""))
    known = next((one for one in describe.identities(now) if one.id == number), None)
    if known is None and not name:
        remedy = "no address of the present cluster has that identity; `agentctl identity list` shows all"
        raise errors.NotFound(field="identity", value=number, remedy=remedy)
    state = now.state
    owners = {address: pod for pod in now.snapshot.pods.values() if pod.has_identity for address in pod.addresses}
    holders = tuple(
        details.Holder(address=address, owner=_owner(owners.get(address)))
        for address in (known.addresses if known is not None else ())
    )
    return details.IdentityDetail(
        identity=known or details.Identity(id=number),
        reserved=name,
        meaning=meaning or words(now, number),
        holders=holders,
        prefixes=tuple(prefix for prefix, found in state.cidrs.items() if found == number),
        rows=sum(key.identity == number for one in state.sets.values() for key in one.rows),
    )


def words(now: reconciler.Enforcement, number: int) -> str:
    """Say what an identity stands for."""
    if number in RESERVED:
        return RESERVED[number][0]
    known = now.state.identities.get(identity_.NumericIdentity(number))
    facts = known.facts if known is not None else UNKNOWN
    blocks = " and ".join(str(block) for block in facts.blocks)
    if facts.namespace is None:
        return f"addresses in {blocks}" if blocks else f"identity {number}"
    labels = ", ".join(f"{key}={value}" for key, value in facts.labels.items())
    return f"pods in {facts.namespace}{f' with {labels}' if labels else ''}{f', in {blocks}' if blocks else ''}"


def _owner(pod: resources.Pod | None) -> resources.ObjectRef:
    return resources.ObjectRef("Pod", pod.namespace, pod.name) if pod is not None else resources.ObjectRef("", "", "")
