"""Where a flow comes by on one node: at which hook, and at which end this node enforces.

As the programs and rules are placed: what crosses the node is judged at both ends that are its endpoints, what a pod
sends to the node itself at the pod's (rules A18, A37), what the node sends of its own passes by position. Pure.
"""

from __future__ import annotations

import dataclasses

from agent import desired as desired_
from agent import snapshot as snapshot_
from agent.datapath import judge
from agent.model import net, resources
from agent.policy import evaluator


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Path:
    """Where a flow comes by."""

    hook: judge.Hook | None
    why: str
    egress: bool = False
    """This node judges the flow's egress."""
    ingress: bool = False
    netns_cookie: int = 0
    """Of the endpoint that dials; 0: none of this node's does."""
    veth_ifindex: int = 0
    """The host side of the veth that its packets come by; 0: of none of this node's endpoints."""


def path(  # noqa: PLR0911 - one a rule
    flow: evaluator.Flow, node: str, snapshot: snapshot_.Snapshot, state: desired_.DesiredState, *, dialled: bool
) -> Path:
    """Return where `flow` comes by on `node`; `dialled`: its destination was reached by a Service's address."""
    known = snapshot.nodes.get(node)
    own = known.addresses if known is not None else ()
    client, server = (endpoint_at(state, address) for address in (flow.source_address, flow.destination_address))
    cookie = client.netns_cookie if client is not None else 0
    veth = client.veth_ifindex if client is not None else 0
    if flow.source_address == flow.destination_address:
        if dialled:
            why = "the pod is sent back to itself by its own Service"
            return Path(hook=None, why=why, netns_cookie=cookie, veth_ifindex=veth)
        return Path(hook=None, why="it never leaves the pod (rule A40)")
    if flow.source_address in own:
        return Path(hook=None, why=f"what node {node} itself sends passes by position (rules A18, A37)")
    if flow.destination_address in own:
        if client is None:
            return Path(hook=None, why=f"it is for node {node} itself, from none of its pods (rule A18)")
        why = f"for node {node} itself"
        return Path(hook=judge.Hook.LOCAL_IN, why=why, egress=True, netns_cookie=cookie, veth_ifindex=veth)
    here = [
        found is not None or _is_on(party, node) for found, party in ((client, flow.source), (server, flow.destination))
    ]
    if not any(here):
        return Path(hook=None, why=f"neither end is a pod of node {node}")
    return Path(
        hook=judge.Hook.FORWARD,
        why=f"forwarded by node {node}",
        egress=client is not None,
        ingress=server is not None,
        netns_cookie=cookie,
        veth_ifindex=veth,
    )


def endpoint_at(state: desired_.DesiredState, address: net.Address) -> desired_.Endpoint | None:
    """Return whose address it is; of two that claim one, the one with the greater number, as in `plan`."""
    claimants = (item for item in state.endpoints.values() if address in item.addresses)
    return max(claimants, key=lambda item: item.id, default=None)


def _is_on(party: evaluator.Party, node: str) -> bool:
    return isinstance(party, resources.Pod) and party.node == node and not party.host_network
