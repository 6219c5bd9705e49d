"""Gives every node a place: a card in its namespace's panel, panels in layers from those who ask to those who answer.

Who is outside stands twice if need be, at the left as one who asks and at the right as one who answers. Cards have one
size and stand in columns, so that no name covers another; edges go between the cards (`routing`). The same graph has
the same layout.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from agent.graph import model, ranks

CARD_WIDTH, CARD_HEIGHT = 176, 44
ROW_GAP = 16
COLUMN_GAP, COLUMN_GAP_FEW = 76, 124
"""Between columns of a panel; of a small graph every edge has words there."""
PANEL_PADDING, PANEL_HEADER, PANEL_GAP = 18, 38, 30
LAYER_GAP, MARGIN = 92, 32
ROWS_MOST = 12
"""Cards on top of each other in one panel."""
SHAPES = tuple(itertools.product((6, 4, 3, 2), (4, 3, 2), (1.0, 1.4, 1.9)))
"""Layers of panels, columns in a panel, and times the ideal height, at most; all are tried, the best is taken."""
ASPECT = 1.7
"""Width to height that is aimed at."""
WRONG, BACKWARDS, LARGE = 1.3, 2.0, 0.5
"""What a wrong aspect costs, arrows that do not go to the right, and size."""
SWEEPS = 6
WEIGHTS = {model.State.DENIED: 3, model.State.AUDIT: 3, model.State.SEEN: 4, model.State.UNSEEN: 1}
FEW = 16
"""Cards that are a small graph."""
IN, OUT = "from outside", "to outside"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """A node's rectangle."""

    node: int
    x: float
    y: float
    column: int

    @property
    def middle(self) -> float:
        """The height edges aim at."""
        return self.y + CARD_HEIGHT / 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A namespace's rectangle, or that of one side of the outside."""

    title: str
    outside: bool
    x: float
    y: float
    width: float
    height: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Places, in pixels."""

    width: float
    height: float
    panels: tuple[Panel, ...]
    cards: tuple[Card, ...]
    sources: Mapping[int, Card]
    """Where edges begin, by node."""
    targets: Mapping[int, Card]
    """Where edges end; another card only for who is outside."""


Arrangement: TypeAlias = tuple[tuple[tuple[tuple[int, ...], ...], ...], ...]
"""Nodes by column, panel and layer."""


class _Block:
    """A panel while it is being placed: columns of nodes."""

    def __init__(self, title: str, columns: list[list[int]], *, gap: float, outside: bool) -> None:
        self.gap = gap
        self.title = title
        self.columns = columns
        self.outside = outside
        self.layer = 0
        self.y = 0.0

    @property
    def height(self) -> float:
        rows = max(len(column) for column in self.columns)
        return PANEL_HEADER + rows * (CARD_HEIGHT + ROW_GAP) - ROW_GAP + PANEL_PADDING

    @property
    def width(self) -> float:
        return len(self.columns) * (CARD_WIDTH + self.gap) - self.gap + 2 * PANEL_PADDING

    def row_y(self, column: int, row: int) -> float:
        """Return the top of a card; columns shorter than the panel are centred."""
        rows = max(len(one) for one in self.columns)
        slack = (rows - len(self.columns[column])) * (CARD_HEIGHT + ROW_GAP) / 2
        return self.y + PANEL_HEADER + slack + row * (CARD_HEIGHT + ROW_GAP)


def lay_out(graph: model.Graph) -> Layout:
    """Place every node."""
    tried: dict[Arrangement, Layout] = {}
    for shape in SHAPES:
        layers = _layers(graph, *shape)
        arrangement = tuple(tuple(tuple(map(tuple, block.columns)) for block in layer) for layer in layers)
        if arrangement not in tried:
            tried[arrangement] = _arranged(graph, layers)
    return min(tried.values(), key=lambda one: _badness(graph, one))


def _arranged(graph: model.Graph, layers: list[list[_Block]]) -> Layout:
    for _ in range(SWEEPS):
        _stack(layers)
        _straighten(graph, layers)
    _stack(layers)
    return _placed(layers)


def _badness(graph: model.Graph, layout: Layout) -> float:
    shape = math.log(layout.width / layout.height / ASPECT)
    ends = [(layout.sources[edge.source].column, layout.targets[edge.target].column) for edge in graph.edges]
    backwards = sum(source >= target for source, target in ends) / max(1, len(ends))
    size = math.log(layout.width * layout.height)
    # A small graph may be a wide band: it is read without moving.
    return WRONG * max(abs(shape) - (1.2 if len(layout.cards) < FEW else 0), 0) + BACKWARDS * backwards + LARGE * size


def _layers(graph: model.Graph, layers_most: int, columns_most: int, height_most: float) -> list[list[_Block]]:
    gap = COLUMN_GAP_FEW if len(graph.nodes) <= FEW else COLUMN_GAP
    inner: dict[str, list[int]] = collections.defaultdict(list)
    for place, node in enumerate(graph.nodes):
        if node.key.namespace:
            inner[node.key.namespace].append(place)
    weights = {(edge.source, edge.target): WEIGHTS[edge.state] for edge in graph.edges}
    between: collections.Counter[tuple[str, str]] = collections.Counter()
    for (source, target), weight in weights.items():
        pair = graph.nodes[source].key.namespace, graph.nodes[target].key.namespace
        if pair[0] and pair[1] and pair[0] != pair[1]:
            between[pair] += weight
    blocks = {
        name: _Block(name, _columns(places, weights, columns_most), gap=gap, outside=False)
        for name, places in sorted(inner.items())
    }
    layers = [[blocks[name] for name in layer] for layer in ranks.columns(list(blocks), between, most=layers_most)]
    layers = _folded([layer for layer in layers if layer], height_most)
    asking = {edge.source for edge in graph.edges if not graph.nodes[edge.source].key.namespace}
    asked = {edge.target for edge in graph.edges if not graph.nodes[edge.target].key.namespace}
    if asking:
        layers.insert(0, [_Block(IN, _wrapped(sorted(asking), ROWS_MOST), gap=gap, outside=True)])
    if asked:
        layers.append([_Block(OUT, _wrapped(sorted(asked), ROWS_MOST), gap=gap, outside=True)])
    for number, layer in enumerate(layers):
        for block in layer:
            block.layer = number
    return layers


def _columns(places: list[int], weights: Mapping[tuple[int, int], int], most: int) -> list[list[int]]:
    """Arrange one namespace's nodes; who has no edge inside it stands with the first column's."""
    here = set(places)
    own = {pair: weight for pair, weight in weights.items() if pair[0] in here and pair[1] in here}
    found: list[list[int]] = []
    for column in ranks.columns(places, own, most=most):
        found += _wrapped(column, ROWS_MOST)
    return found or [[]]


def _wrapped(places: list[int], most: int) -> list[list[int]]:
    """Split a column that is too long into even ones."""
    parts = max(1, math.ceil(len(places) / most))
    rows = math.ceil(len(places) / parts)
    return [places[start : start + rows] for start in range(0, len(places), rows)] if places else []


def _folded(layers: list[list[_Block]], height_most: float) -> list[list[_Block]]:
    """Split layers that are higher than suits the picture."""
    blocks = [block for layer in layers for block in layer]
    area = sum((block.height + PANEL_GAP) * (block.width + LAYER_GAP) for block in blocks)
    highest = max([height_most * math.sqrt(area / ASPECT), *(block.height for block in blocks)], default=0)
    found: list[list[_Block]] = []
    for layer in layers:
        height = 0.0
        found.append([])
        for block in layer:
            if found[-1] and height + block.height > highest:
                found.append([])
                height = 0.0
            found[-1].append(block)
            height += block.height + PANEL_GAP
    return found


def _stack(layers: Sequence[Sequence[_Block]]) -> None:
    """Give panels their heights: each layer is centred on the highest."""
    heights = [sum(block.height + PANEL_GAP for block in layer) - PANEL_GAP for layer in layers]
    tallest = max(heights, default=0)
    for layer, height in zip(layers, heights, strict=True):
        y = MARGIN + (tallest - height) / 2
        for block in layer:
            block.y = y
            y += block.height + PANEL_GAP


def _straighten(graph: model.Graph, layers: Sequence[list[_Block]]) -> None:
    """Move everything towards the mean height of what it is connected with."""
    where: dict[tuple[int, bool], float] = {}
    for layer in layers:
        for block in layer:
            for number, column in enumerate(block.columns):
                for row, place in enumerate(column):
                    height = block.row_y(number, row)
                    where[place, layer is not layers[-1] or not block.outside] = height
    pulls: dict[tuple[int, bool], list[float]] = collections.defaultdict(list)
    for edge in graph.edges:
        source, target = _ends(graph, edge, where)
        weight = WEIGHTS[edge.state]
        pulls[source] += [where[target]] * weight
        pulls[target] += [where[source]] * weight
    for layer in layers:
        for block in layer:
            side = layer is not layers[-1] or not block.outside
            for column in block.columns:
                column.sort(key=lambda place, side=side: (_mean(pulls[place, side], where[place, side]), place))  # type: ignore[misc]
        layer.sort(
            key=lambda block: (
                _mean(
                    [
                        y
                        for column in block.columns
                        for place in column
                        for y in pulls[place, True] + pulls[place, False]
                    ],
                    block.y,
                ),
                block.title,
            )
        )


def _ends(
    graph: model.Graph, edge: model.Edge, where: Mapping[tuple[int, bool], float]
) -> tuple[tuple[int, bool], tuple[int, bool]]:
    """Return which cards an edge joins: True is every card but those that only answer from outside."""
    source = (edge.source, True)
    target = (edge.target, bool(graph.nodes[edge.target].key.namespace))
    return (source if source in where else (edge.source, False), target if target in where else (edge.target, True))


def _mean(values: Sequence[float], otherwise: float) -> float:
    return round(statistics.fmean(values), 3) if values else otherwise


def _placed(layers: Sequence[Sequence[_Block]]) -> Layout:
    panels: list[Panel] = []
    cards: list[Card] = []
    sources: dict[int, Card] = {}
    targets: dict[int, Card] = {}
    x, first = float(MARGIN), 0
    bottom = 0.0
    for layer in layers:
        width = max(block.width for block in layer)
        for block in layer:
            panels.append(
                Panel(title=block.title, outside=block.outside, x=x, y=block.y, width=block.width, height=block.height)
            )
            bottom = max(bottom, block.y + block.height)
            for number, column in enumerate(block.columns):
                for row, place in enumerate(column):
                    card = Card(
                        node=place,
                        x=x + PANEL_PADDING + number * (CARD_WIDTH + block.gap),
                        y=block.row_y(number, row),
                        column=first + number,
                    )
                    cards.append(card)
                    if block.title != OUT or not block.outside:
                        sources[place] = card
                    if block.title != IN or not block.outside:
                        targets[place] = card
        x += width + LAYER_GAP
        first += max(len(block.columns) for block in layer)
    width = x - LAYER_GAP + MARGIN if layers else 2 * MARGIN
    return Layout(
        width=width,
        height=bottom + MARGIN,
        panels=tuple(panels),
        cards=tuple(cards),
        sources=sources,
        targets=targets,
    )
