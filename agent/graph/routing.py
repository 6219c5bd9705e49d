"""Ways of edges between cards: through the gaps of the columns they pass, never across a name.

An edge leaves a card at its side, where its end is above those that end lower. In each column between its ends it
takes the gap nearest to a straight line, rather one between two panels than one between the cards of a third panel;
edges that share a gap run side by side. An edge within a column bows out to the right of it.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from agent.graph import layout as layout_
from agent.graph import model

Point: TypeAlias = tuple[float, float]
SPREAD = layout_.CARD_HEIGHT - 8
"""Of a card's side, how much edges may leave from."""
STEP = 12.0
"""Between edges at one side of a card, where there is room: the height of a label."""
LEAD = 42.0
"""Of an edge that has words, how much is level before its end."""
APART = 4.0
"""Between edges that share a gap."""
STRANGERS = 70.0
"""How far out of its way an edge goes to pass between panels and not through one."""
ROUND = 24.0
"""What edges may go beyond everything."""
BOW_LEAST, BOW_MOST = 26.0, 76.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """The way of one edge."""

    edge: int
    path: str
    """As SVG writes it."""
    label: Point | None
    """Where words about it may stand, around this point; None where others leave no room."""
    top: float
    bottom: float


@dataclasses.dataclass(frozen=True, slots=True)
class Gap:
    """Free height in a column."""

    top: float
    bottom: float
    panel: int
    """Which panel it is inside of; -1: none."""


def routes(graph: model.Graph, layout: layout_.Layout) -> tuple[Route, ...]:
    """Return a way for each edge, in their order."""
    gaps = {column: _gaps(layout, column) for column in {card.column for card in layout.cards}}
    xs = {card.column: card.x for card in layout.cards}
    starts, ends, roomy = _slots(graph, layout)
    used: collections.Counter[tuple[int, Gap]] = collections.Counter()
    found: list[Route] = []
    for number, edge in enumerate(graph.edges):
        source, target = layout.sources[edge.source], layout.targets[edge.target]
        start, end = (_start(source, target), starts[number]), (_end(source, target), ends[number])
        if source.column == target.column:
            found.append(_bow(number, start, end, labelled=number in roomy))
            continue
        own = {_panel(layout, source), _panel(layout, target)}
        step = 1 if target.column > source.column else -1
        points = [start]
        for column in range(source.column + step, target.column, step):
            if column not in gaps:
                continue
            enter, leave = xs[column] - 10, xs[column] + layout_.CARD_WIDTH + 10
            if step < 0:
                enter, leave = leave, enter
            at, height = points[-1]
            share = (enter - at) / (end[0] - at) if end[0] != at else 0
            wanted = height + (end[1] - height) * share
            gap = min(gaps[column], key=lambda one: (_cost(one, wanted, own), one.top))
            y = _within(gap, wanted, used[column, gap])
            used[column, gap] += 1
            points += [(enter, y), (leave, y)]
        lead = LEAD if end[0] > points[-1][0] else -LEAD
        if number in roomy and abs(end[0] - points[-1][0]) > 2 * LEAD:
            points.append((end[0] - lead, end[1]))
        points.append(end)
        ys = [y for _, y in points]
        label = _label(points) if number in roomy else None
        found.append(Route(edge=number, path=_curve(points), label=label, top=min(ys), bottom=max(ys)))
    return tuple(found)


def _start(source: layout_.Card, target: layout_.Card) -> float:
    return source.x if target.column < source.column else source.x + layout_.CARD_WIDTH


def _end(source: layout_.Card, target: layout_.Card) -> float:
    """Return where the arrow's head ends, a little before the card."""
    return target.x - 3 if target.column > source.column else target.x + layout_.CARD_WIDTH + 3


def _slots(
    graph: model.Graph, layout: layout_.Layout
) -> tuple[Mapping[int, float], Mapping[int, float], frozenset[int]]:
    """Return the heights at which edges leave and arrive, so that those of one side do not cross; and who has room."""
    sides: dict[tuple[int, float, bool], list[tuple[float, int, bool]]] = collections.defaultdict(list)
    for number, edge in enumerate(graph.edges):
        source, target = layout.sources[edge.source], layout.targets[edge.target]
        left = target.column < source.column
        sides[source.node, source.x, left].append((target.middle, number, True))
        sides[target.node, target.x, target.column > source.column].append((source.middle, number, False))
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    roomy: set[int] = set()
    cards = {(card.node, card.x): card for card in layout.cards}
    for (node, x, _), several in sides.items():
        middle = cards[node, x].middle
        gap = min(STEP, SPREAD / max(1, len(several) - 1))
        for place, (_, number, leaves) in enumerate(sorted(several)):
            (starts if leaves else ends)[number] = middle + (place - (len(several) - 1) / 2) * gap
            if gap >= STEP and not leaves:
                roomy.add(number)
    return starts, ends, frozenset(roomy)


def _gaps(layout: layout_.Layout, column: int) -> list[Gap]:
    """Return the free heights of a column, top to bottom; above and below all of it there is always room."""
    cards = sorted((card for card in layout.cards if card.column == column), key=lambda card: card.y)
    x = cards[0].x
    taken: list[tuple[float, float, int]] = [
        (card.y, card.y + layout_.CARD_HEIGHT, _panel(layout, card)) for card in cards
    ]
    for number, panel in enumerate(layout.panels):
        if panel.x < x < panel.x + panel.width:
            # A title is text as well, and an edge along a panel's border could be taken for it.
            title = layout_.PANEL_HEADER - 8 if x < panel.x + layout_.CARD_WIDTH else 6
            taken += [
                (panel.y - 6, panel.y + title, number),
                (panel.y + panel.height - 6, panel.y + panel.height + 6, number),
            ]
    taken.sort()
    found = [Gap(min(-ROUND, taken[0][0] - ROUND), taken[0][0] - 8, -1)]
    bottom, owner = taken[0][1], taken[0][2]
    for top, low, number in taken[1:]:
        if top - bottom >= 10:  # noqa: PLR2004 - less is no way
            found.append(Gap(bottom + 3, top - 3, number if number == owner else -1))
        if low > bottom:
            bottom, owner = low, number
    found.append(Gap(bottom + 8, max(layout.height, bottom) + ROUND, -1))
    return found


def _panel(layout: layout_.Layout, card: layout_.Card) -> int:
    return next(
        number
        for number, panel in enumerate(layout.panels)
        if panel.x <= card.x < panel.x + panel.width and panel.y <= card.y < panel.y + panel.height
    )


def _cost(gap: Gap, wanted: float, own: set[int]) -> float:
    away = max(gap.top - wanted, wanted - gap.bottom, 0)
    return away + (STRANGERS if gap.panel >= 0 and gap.panel not in own else 0)


def _within(gap: Gap, wanted: float, used: int) -> float:
    """Return a height in a gap beside those that are used: the middle, then below and above it by turns."""
    room = max(0.0, gap.bottom - gap.top)
    inset = min(room / 3, 6.0)
    middle = min(max(wanted, gap.top + inset), gap.bottom - inset)
    steps = (((number + 1) // 2) * APART * (1 if number % 2 else -1) for number in range(4 * int(room / APART) + 2))
    free = [middle + step for step in steps if gap.top <= middle + step <= gap.bottom]
    return free[used % len(free)] if free else middle


def _curve(points: Sequence[Point]) -> str:
    """Join points by curves that are level at each of them."""
    parts = [f"M{_number(points[0][0])} {_number(points[0][1])}"]
    for (x, y), (to_x, to_y) in itertools.pairwise(points):
        if y == to_y:
            parts.append(f"L{_number(to_x)} {_number(to_y)}")
            continue
        bend = (to_x - x) / 2
        parts.append(
            f"C{_number(x + bend)} {_number(y)} {_number(to_x - bend)} {_number(to_y)} {_number(to_x)} {_number(to_y)}"
        )
    return "".join(parts)


def _bow(number: int, start: Point, end: Point, *, labelled: bool) -> Route:
    high = abs(end[1] - start[1])
    out = min(BOW_MOST, BOW_LEAST + high * 0.16)
    x = max(start[0], end[0])
    a, b = start[1], end[1]
    if high < 2:  # noqa: PLR2004 - the same card
        a, b, out = a - 8, b + 8, BOW_LEAST + 8
    path = (
        f"M{_number(start[0])} {_number(a)}"
        f"C{_number(x + out)} {_number(a)} {_number(x + out)} {_number(b)} {_number(end[0])} {_number(b)}"
    )
    return Route(edge=number, path=path, label=(x + 26, b) if labelled else None, top=min(a, b), bottom=max(a, b))


def _label(points: Sequence[Point]) -> Point:
    """Return a point just before the arrow's head: there an edge is level, and has a height of its own."""
    (x, y), (to_x, to_y) = points[-2:]
    if y == to_y:
        return to_x - 27 if to_x > x else to_x + 27, to_y
    return (x + to_x) / 2, (y + to_y) / 2


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
