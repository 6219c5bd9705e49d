"""Places: nothing covers a name, and the same graph always has the same ones."""

from __future__ import annotations

import itertools
import re

import pytest

from agent.graph import layout, model, ranks, routing
from tests.graph import graphs


@pytest.mark.parametrize("seed", range(3))
def test_no_card_touches_another_and_each_stands_in_its_panel(seed: int) -> None:
    placed = layout.lay_out(graphs.made(seed))
    for one, other in itertools.combinations(placed.cards, 2):
        apart_x = abs(one.x - other.x) >= layout.CARD_WIDTH
        assert apart_x or abs(one.y - other.y) >= layout.CARD_HEIGHT
    for card in placed.cards:
        assert any(
            panel.x <= card.x <= panel.x + panel.width - layout.CARD_WIDTH
            and panel.y <= card.y <= panel.y + panel.height - layout.CARD_HEIGHT
            for panel in placed.panels
        )
        assert card.x + layout.CARD_WIDTH <= placed.width


def test_panels_do_not_overlap() -> None:
    placed = layout.lay_out(graphs.made(4))
    for one, other in itertools.combinations(placed.panels, 2):
        beside = one.x + one.width <= other.x or other.x + other.width <= one.x
        assert beside or one.y + one.height <= other.y or other.y + other.height <= one.y


def test_no_level_part_of_an_edge_crosses_a_card() -> None:
    graph = graphs.made(5)
    placed = layout.lay_out(graph)
    for route in routing.routes(graph, placed):
        for x, y, to_x in re.findall(r"(-?[\d.]+) (-?[\d.]+)L(-?[\d.]+) ", route.path):
            left, right = sorted((float(x), float(to_x)))
            for card in placed.cards:
                covered = left < card.x + layout.CARD_WIDTH and right > card.x
                assert not (covered and card.y < float(y) < card.y + layout.CARD_HEIGHT)


def test_the_same_graph_has_the_same_places() -> None:
    graph = graphs.made(6)
    first, second = layout.lay_out(graph), layout.lay_out(graph)
    assert first == second
    assert routing.routes(graph, first) == routing.routes(graph, second)


def test_an_empty_graph_and_one_node_have_places() -> None:
    assert layout.lay_out(model.Graph(nodes=(), edges=())).cards == ()
    alone = model.Node(key=model.Key("x", "a"), kind=model.Kind.WORKLOAD)
    loop = model.Edge(source=0, target=0, lanes=(model.Lane(port=1, protocol=6, allowed=True),))
    graph = model.Graph(nodes=(alone,), edges=(loop,))
    assert len(routing.routes(graph, layout.lay_out(graph))) == 1


def test_who_is_outside_asks_at_the_left_and_answers_at_the_right() -> None:
    nodes = tuple(
        model.Node(key=model.Key(space, name, kind.value), kind=kind)
        for space, name, kind in (("x", "a", model.Kind.WORKLOAD), ("", "world", model.Kind.WORLD))
    )
    lanes = (model.Lane(port=443, protocol=6, allowed=True),)
    edges = tuple(model.Edge(source=source, target=target, lanes=lanes) for source, target in ((0, 1), (1, 0)))
    placed = layout.lay_out(model.Graph(nodes=nodes, edges=edges))
    assert placed.sources[1].x < placed.sources[0].x < placed.targets[1].x


def test_arrows_go_to_the_right_where_there_is_no_circle() -> None:
    weights = {("a", "b"): 1, ("b", "c"): 1, ("a", "c"): 1}
    assert ranks.columns(["c", "b", "a"], weights, most=5) == [["a"], ["b"], ["c"]]
    assert ranks.columns(["c", "b", "a"], weights, most=2) == [["a", "b"], ["c"]]


def test_a_circle_is_cut_where_it_costs_least() -> None:
    weights = {("a", "b"): 9, ("b", "c"): 9, ("c", "a"): 1}
    assert ranks.order(["c", "b", "a"], weights) == ["a", "b", "c"]
