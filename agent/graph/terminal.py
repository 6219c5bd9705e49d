"""The graph as lines of text: each workload below its namespace, and below it where it goes.

    shop
      frontend  2 pods
        ━━▶ shop/backend   8080   36 seen    shop/frontend-to-backend egress[0]
        ╌╌✕ shop/db        5432   12 denied  shop/default-deny
        ··▶ world  443

What was denied comes first, then what policies in audit would deny, then what was seen; what is only allowed, or only
would be denied, takes few words. No line is wider than asked.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from agent.graph import model, says, words

LEAST = 60
TARGET_MOST, PORTS_MOST = 34, 22
COUNT_WIDTH = 14
PREFIX = "NetworkPolicy "
"""Of nearly every policy's name; it tells nothing."""


class Style(enum.Enum):
    """How a piece of a line looks; the value is what rich calls it."""

    PLAIN = ""
    HEADING = "bold"
    QUIET = "dim"
    SEEN = "green"
    DENIED = "bold red"
    AUDIT = "magenta"
    OPEN = "yellow"


class Piece(NamedTuple):
    """Text in one style."""

    text: str
    style: Style = Style.PLAIN


MARKS = {
    model.State.DENIED: Piece("╌╌✕ ", Style.DENIED),
    model.State.AUDIT: Piece("╍╍▶ ", Style.AUDIT),
    model.State.SEEN: Piece("━━▶ ", Style.SEEN),
    model.State.UNSEEN: Piece("··▶ ", Style.QUIET),
}


def lines(graph: model.Graph, *, width: int) -> Iterator[tuple[Piece, ...]]:
    """Yield lines of at most `width` columns, which counts from LEAST."""
    width = max(width, LEAST)
    out: dict[int, list[model.Edge]] = {}
    for edge in graph.edges:
        out.setdefault(edge.source, []).append(edge)
    names = [_short(graph, edge.target, edge.source) for edge in graph.edges if edge.tried]
    target = min(max([words.columns(name) for name in names], default=0), TARGET_MOST, max(12, width // 3))
    before: str | None = None
    for place, node in enumerate(graph.nodes):
        if not node.key.namespace and place not in out:
            continue
        if node.key.namespace != before:
            if before is not None:
                yield ()
            before = node.key.namespace
            yield (Piece(words.fitted(before or "outside", width), Style.HEADING),)
        yield _node(node, width)
        yield from _edges(graph, out.get(place, []), target, width)
    yield ()
    yield from ((Piece(words.fitted(line, width), Style.QUIET),) for line in _legend(graph))


def _node(node: model.Node, width: int) -> tuple[Piece, ...]:
    openness, kind = says.openness(node), says.kind(node)
    room = width - 6 - len(kind) - len(openness)
    name = Piece("  " + words.fitted(node.key.name, room))
    more = (Piece("  " + openness, Style.OPEN),) if openness else ()
    return (name, Piece("  " + kind, Style.QUIET), *more)


def _edges(graph: model.Graph, edges: Sequence[model.Edge], target: int, width: int) -> Iterator[tuple[Piece, ...]]:
    for state in (model.State.DENIED, model.State.AUDIT, model.State.SEEN):
        for edge in edges:
            if edge.state is state and edge.tried:
                yield _line(graph, edge, target, width)
    for state in (model.State.AUDIT, model.State.UNSEEN):
        yield from _untried(graph, [edge for edge in edges if edge.state is state and not edge.tried], state, width)


def _untried(
    graph: model.Graph, edges: Sequence[model.Edge], state: model.State, width: int
) -> Iterator[tuple[Piece, ...]]:
    texts = [f"{_short(graph, edge.target, edge.source)} {says.ports(edge)}" for edge in edges]
    line = ""
    for text in texts:
        text = words.fitted(text, width - 8)  # noqa: PLW2901 - the same, cut
        if line and words.columns(line) + 2 + words.columns(text) > width - 8:
            yield Piece("    "), MARKS[state], Piece(line, Style.QUIET)
            line = ""
        line += (", " if line else "") + text
    if line:
        yield Piece("    "), MARKS[state], Piece(line, Style.QUIET)


def _line(graph: model.Graph, edge: model.Edge, target: int, width: int) -> tuple[Piece, ...]:
    name = words.padded(words.fitted(_short(graph, edge.target, edge.source), target), target)
    ports = words.padded(words.fitted(says.ports(edge), min(PORTS_MOST, width // 5)), min(PORTS_MOST, width // 5))
    counted, style = _counted(edge)
    lanes = [lane for lane in edge.lanes if lane.state is edge.state]
    by = dict.fromkeys(policy.removeprefix(PREFIX) for lane in lanes for policy in lane.policies)
    outdated = any(lane.outdated for lane in lanes)
    pieces = [Piece("    "), MARKS[edge.state], Piece(name), Piece(f"  {ports}", Style.QUIET)]
    pieces.append(Piece(f"  {counted:<{COUNT_WIDTH}}", style))
    left = width - sum(words.columns(piece.text) for piece in pieces)
    said = ("policies now say otherwise; " if outdated else "") + ", ".join(by)
    if left > 0 and said:
        pieces.append(Piece(words.fitted(said, left), Style.OPEN if outdated else Style.QUIET))
    return tuple(pieces)


def _counted(edge: model.Edge) -> tuple[str, Style]:
    match edge.state:
        case model.State.DENIED:
            return f"{edge.denied} denied", Style.DENIED
        case model.State.AUDIT:
            return f"{edge.audited} audited" if edge.audited else f"{edge.forwarded} seen", Style.AUDIT
        case _:
            return f"{edge.forwarded} seen", Style.SEEN


def _short(graph: model.Graph, place: int, seen_from: int) -> str:
    """Return a node's name, without the namespace it shares with who looks at it."""
    node, other = graph.nodes[place], graph.nodes[seen_from]
    if node.key.namespace and node.key.namespace == other.key.namespace:
        return words.plain(node.key.name)
    return says.name(node)


def _legend(graph: model.Graph) -> Iterator[str]:
    always, others = (model.State.DENIED, model.State.SEEN, model.State.UNSEEN), (model.State.AUDIT,)
    for states in (always, [state for state in others if graph.of(state)]):
        if states:
            yield "   ".join(f"{MARKS[state].text.strip()} {says.STATES[state]}: {graph.of(state)}" for state in states)
    yield says.summary(graph)
