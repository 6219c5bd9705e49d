"""What the pictures say in words: of a node, of an edge and its ports, of the whole. All of it plain."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from agent.graph import model, words

PORTS_SHOWN = 3
SECOND_NS = 1_000_000_000
KINDS = {
    model.Kind.SERVICE: "Service",
    model.Kind.NODE: "node",
    model.Kind.NAME: "outside",
    model.Kind.RANGE: "addresses",
    model.Kind.WORLD: "any other address",
}
STATES = {
    model.State.DENIED: "tried and denied",
    model.State.AUDIT: "in audit, would be denied",
    model.State.SEEN: "allowed and seen",
    model.State.UNSEEN: "allowed, never seen",
}


def name(node: model.Node) -> str:
    """Return `shop/web`, or the name of what is outside."""
    key = node.key
    return words.plain(f"{key.namespace}/{key.name}" if key.namespace else key.name)


def kind(node: model.Node) -> str:
    """Return what a node is, in a word or two: `3 pods`, `Service`."""
    if node.kind in KINDS:
        return KINDS[node.kind]
    return words.counted(len(node.pods), "pod")


def openness(node: model.Node) -> str:
    """Say where no policy isolates a node; "" where one does in both directions."""
    match node.open_ingress, node.open_egress:
        case True, True:
            return "open"
        case True, False:
            return "open in"
        case False, True:
            return "open out"
        case _:
            return ""


def ports(edge: model.Edge) -> str:
    """Return the ports of an edge that have its state, in few characters: `443, 53/UDP`."""
    lanes = [lane for lane in edge.lanes if lane.state is edge.state]
    texts = dict.fromkeys(words.port(lane.port, lane.protocol).removesuffix("/TCP") for lane in lanes)
    return words.listed(texts, PORTS_SHOWN)


def lane(one: model.Lane) -> str:
    """Return a port and what became of it, in a line."""
    said = [words.port(one.port, one.protocol)]
    if one.denied:
        said.append(f"{one.denied} denied")
    if one.forwarded:
        said.append(f"{one.forwarded} seen")
    if not one.tried:
        said.append("never seen")
    if one.audited or one.would_deny:
        said.append(f"{one.audited} would be denied" if one.audited else "would be denied")
    if one.outdated:
        said.append("policies now say otherwise")
    if one.partial:
        said.append("only some pods")
    by = words.listed(map(words.plain, one.policies), PORTS_SHOWN)
    return ", ".join(said) + (f" ({by})" if by else "")


def edge(graph: model.Graph, one: model.Edge) -> Iterator[str]:
    """Yield lines about an edge: its ends, then its ports."""
    yield f"{name(graph.nodes[one.source])} → {name(graph.nodes[one.target])}: {STATES[one.state]}"
    yield from (lane(each) for each in one.lanes)


def summary(graph: model.Graph) -> str:
    """Return what the graph has, in a line."""
    pods = sum(len(node.pods) for node in graph.nodes)
    said = [
        words.counted(pods, "pod"),
        words.counted(len(graph.namespaces), "namespace"),
        words.counted(graph.policies, "policy", "policies") if graph.policies else "no policies given",
    ]
    if graph.verdicts:
        said.append(
            f"{words.counted(graph.verdicts, 'verdict')} from {moment(graph.first_ns)} to {moment(graph.last_ns)}"
        )
    else:
        said.append("no recorded verdicts")
    if graph.lost:
        said.append(f"{words.counted(graph.lost, 'verdict')} lost")
    return " · ".join(said)


def moment(unix_ns: int) -> str:
    """Return a time in UTC; "never" for 0, and the number itself where no calendar has it."""
    if not unix_ns:
        return "never"
    try:
        at = dt.datetime.fromtimestamp(unix_ns // SECOND_NS, tz=dt.UTC)
    except (ValueError, OverflowError, OSError):
        return str(unix_ns)
    return at.strftime("%Y-%m-%d %H:%M:%SZ")
