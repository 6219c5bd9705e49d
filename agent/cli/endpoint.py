"""`agentctl endpoint`: the pods of one node that policy is enforced on."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import click

from agent.cli import connection, output, watching
from agent.rpc import client, details

COLUMNS = ("namespace", "pod", "addresses", "identity", "ingress", "egress", "policies", "audit")
WIDE = ("id", "labels", "veth", "netns_cookie", "uid")


@click.group()
def endpoint() -> None:
    """Pods of this node that policy is enforced on."""


@endpoint.command("list")
@connection.agent_options
@watching.watch_option
@output.output_option
def list_(socket: pathlib.Path, *, form: output.Form, watch: bool) -> None:
    """List them: `isolated` is closed but for what policies allow, `held` is closed until it is programmed."""
    with client.AgentClient(socket) as agent:
        watching.show(lambda: _listing(agent.endpoints()), form=form, watch=watch)


@endpoint.command("get")
@click.argument("pod", metavar="POD|ID")
@connection.agent_options
@output.output_option
def get(socket: pathlib.Path, pod: str, *, form: output.Form) -> None:
    """Show all that is known of one: NAMESPACE/NAME, a name that only one has, or its id."""
    with client.AgentClient(socket) as agent:
        found = agent.endpoint(pod)
    one = found.endpoint
    document = {"endpoint": output.plain(found)}
    click.echo(output.one([*_lines(found)], form=form, name=f"{one.namespace}/{one.pod}", document=document))


def _listing(endpoints: Sequence[details.Endpoint]) -> output.Listing:
    return output.Listing(
        rows=[_row(one) for one in endpoints],
        columns=COLUMNS,
        wide=WIDE,
        names=_names(endpoints),
        document={"endpoints": output.plain(endpoints)},
    )


def _names(endpoints: Sequence[details.Endpoint]) -> tuple[str, ...]:
    """Name each as `get` takes it: by its id where a pod has several sandboxes."""
    names = [f"{one.namespace}/{one.pod}" for one in endpoints]
    return tuple(name if names.count(name) == 1 else str(one.id) for name, one in zip(names, endpoints, strict=True))


def _lines(found: details.EndpointDetail) -> Iterator[tuple[str, object]]:
    one = found.endpoint
    yield "pod", output.Styled(f"{one.namespace}/{one.pod}", "bold")
    yield "id", one.id
    yield "uid", one.uid
    yield "labels", one.labels
    yield (
        "addresses",
        [f"{address} (identity {number})" for address, number in zip(one.addresses, one.identities, strict=False)],
    )
    if found.hold:
        yield "held", output.Styled(found.hold, "yellow")
    for name, side in (("ingress", found.ingress), ("egress", found.egress)):
        yield from _side(name, side)
    yield "services", [f"{ref.namespace}/{ref.name}" for ref in found.services]
    yield (
        "links",
        f"veth {one.veth_ifindex or 'unknown'}, packets come in at interface {found.ingress_ifindex or 'unknown'}",
    )
    yield "netns", f"cookie {one.netns_cookie or 'unknown'}"
    yield (
        "verdicts",
        ", ".join(f"{kind} {count}" for kind, count in found.recent.items()) or "none that the agent still has",
    )


def _side(name: str, side: details.EndpointSide) -> Iterator[tuple[str, object]]:
    if not side.isolated:
        yield name, output.Styled("open: no policy selects it in this direction (A15)", "dim")
        return
    yield name, f"isolated, policy set {side.policy_set} of {side.rows} rows"
    for policy in side.policies:
        yield "", f"  {policy.policy}"
        for rule in policy.rules or ("allows nothing",):
            yield "", f"    {rule}"


def _row(one: details.Endpoint) -> dict[str, object]:
    policies = sorted({ref.name for ref in (*one.ingress_policies, *one.egress_policies)})
    return {
        "namespace": one.namespace,
        "pod": one.pod,
        "addresses": one.addresses,
        "identity": sorted(set(one.identities)),
        "ingress": _state(one, isolated=one.ingress_isolated),
        "egress": _state(one, isolated=one.egress_isolated),
        "policies": policies,
        "id": one.id,
        "labels": one.labels,
        "veth": one.veth_ifindex or None,
        "netns_cookie": one.netns_cookie or None,
        "uid": one.uid,
        "audit": _audit(one),
    }


def _audit(one: details.Endpoint) -> output.Styled | None:
    """Say in which directions policies in audit select it, and which."""
    if not one.audit_ingress and not one.audit_egress:
        return None
    where = [name for name, refs in (("ingress", one.audit_ingress), ("egress", one.audit_egress)) if refs]
    names = sorted({ref.name for ref in (*one.audit_ingress, *one.audit_egress)})
    return output.Styled(f"AUDIT {', '.join(where)}: {', '.join(names)}", "yellow")


def _state(one: details.Endpoint, *, isolated: bool) -> output.Styled:
    if one.held:
        return output.Styled("held", "yellow")
    return output.Styled("isolated", "bold") if isolated else output.Styled("open", "dim")
