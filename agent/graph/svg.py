"""The graph as an SVG picture, complete in itself: no fonts, no scripts, nothing to fetch.

`drawing` is what is inside it, for pages that bring a style of their own. Every text passes `_text`.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator

from agent.graph import layout as layout_
from agent.graph import model, routing, says, words

LABELLED_MOST = 45
"""Edges of a picture in which each still says its ports."""
NAME_MOST, TITLE_MOST = 21, 40
"""Columns of text that fit a card, and a panel of one column."""
LEGEND_HEIGHT, LEGEND_ROW = 56, 20
"""The second row of the legend is there where something is in audit."""
FORBIDDEN = re.compile("[^\x20-\U0010ffff]|[\ud800-\udfff\ufffe\uffff]")
"""What XML cannot hold even escaped; `words.plain` leaves none of it, and this makes sure."""
STYLE = """
.nw{--paper:#f6f7f9;--panel:#fff;--rim:#dfe3e9;--card:#fff;--edge:#cfd5de;--ink:#17202c;--soft:#647082;
--seen:#2563c9;--unseen:#a9b3c0;--denied:#cf2a1e;--audit:#8250df;--warn:#9a5b00;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","DejaVu Sans",sans-serif;font-size:13px}
@media(prefers-color-scheme:dark){.nw{--paper:#10141a;--panel:#171c24;--rim:#2a323d;--card:#1e252f;--edge:#38424f;
--ink:#e6eaf0;--soft:#98a4b3;--seen:#6aa5ff;--unseen:#5f6b7a;--denied:#ff6b5e;--audit:#b392f0;--warn:#e0a340}}
.nw .paper{fill:var(--paper)}
.nw .panel{fill:var(--panel);stroke:var(--rim)}
.nw .panel.outside{fill:none;stroke-dasharray:3 5}
.nw .box{fill:var(--card);stroke:var(--edge)}
.nw text{fill:var(--ink)}
.nw .title{font-size:14px;font-weight:600}
.nw .outside-title{fill:var(--soft);font-size:12.5px}
.nw .name{font-weight:600}
.nw .sub,.nw .key{fill:var(--soft);font-size:11px}
.nw .open{fill:var(--warn);font-weight:600}
.nw .line{fill:none}
.nw .seen .line{stroke:var(--seen)}
.nw .unseen .line{stroke:var(--unseen);stroke-width:1}
.nw .denied .line{stroke:var(--denied);stroke-dasharray:7 4}
.nw .audit .line{stroke:var(--audit);stroke-dasharray:2 3}
.nw .head-seen{fill:var(--seen)}.nw .head-unseen{fill:var(--unseen)}.nw .head-denied{fill:var(--denied)}
.nw .head-audit{fill:var(--audit)}
.nw .label{font-size:10.5px;font-variant-numeric:tabular-nums;text-anchor:middle;
paint-order:stroke;stroke:var(--paper);stroke-width:4px;stroke-linejoin:round}
.nw .seen .label{fill:var(--seen)}.nw .unseen .label{fill:var(--soft)}.nw .denied .label{fill:var(--denied)}
.nw .audit .label{fill:var(--audit)}
"""


def document(graph: model.Graph, *, title: str) -> str:
    """Return the picture as a file."""
    layout = layout_.lay_out(graph)
    left, top, width, height = frame(graph, layout)
    inner = "".join(drawing(graph, layout))
    audited = graph.of(model.State.AUDIT) > 0
    legend = "".join(_legend(left + layout_.MARGIN, top + height, audited=audited))
    height += LEGEND_HEIGHT + LEGEND_ROW * audited
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="nw" role="img" width="{_n(width)}" height="{_n(height)}" '
        f'viewBox="{_n(left)} {_n(top)} {_n(width)} {_n(height)}">'
        f"<title>{_text(title)}</title><desc>{_text(says.summary(graph))}</desc><style>{STYLE}</style>"
        f'<rect class="paper" x="{_n(left)}" y="{_n(top)}" width="{_n(width)}" height="{_n(height)}"/>'
        f"{inner}{legend}"
        f'<text class="sub" x="{_n(left + layout_.MARGIN)}" y="{_n(top + height - 12)}">'
        f"{_text(title)} · {_text(says.summary(graph))}</text></svg>\n"
    )


def frame(graph: model.Graph, layout: layout_.Layout) -> tuple[float, float, float, float]:
    """Return left, top, width and height of what is drawn, edges that go around everything included."""
    routes = routing.routes(graph, layout)
    top = min([0.0, *(route.top - layout_.MARGIN / 2 for route in routes)])
    bottom = max([layout.height, *(route.bottom + layout_.MARGIN / 2 for route in routes)])
    return 0.0, top, layout.width, bottom - top


def drawing(graph: model.Graph, layout: layout_.Layout) -> Iterator[str]:
    """Yield panels, edges and cards, back to front; each edge and card carries its number."""
    yield f"<defs>{''.join(_heads())}</defs>"
    for panel in layout.panels:
        yield _panel(panel)
    routes = routing.routes(graph, layout)
    order = (model.State.UNSEEN, model.State.SEEN, model.State.AUDIT, model.State.DENIED)
    labelled = len(graph.edges) <= LABELLED_MOST
    yield '<g class="edges">'
    for state in order:
        for route, edge in zip(routes, graph.edges, strict=True):
            if edge.state is state:
                yield _edge(graph, edge, route, labelled=labelled)
    yield '</g><g class="cards">'
    for card in layout.cards:
        yield _card(graph.nodes[card.node], card)
    yield "</g>"


def _heads() -> Iterator[str]:
    for state in model.State:
        yield (
            f'<marker id="nw-{state.value}" viewBox="0 0 8 8" refX="6.5" refY="4" markerUnits="userSpaceOnUse" '
            f'markerWidth="9" markerHeight="9" orient="auto">'
            f'<path class="head-{state.value}" d="M0 0.6L8 4L0 7.4Z"/></marker>'
        )


def _panel(panel: layout_.Panel) -> str:
    style = "panel outside" if panel.outside else "panel"
    title = "outside-title" if panel.outside else "title"
    room = TITLE_MOST if panel.width > layout_.CARD_WIDTH * 2 else NAME_MOST + 3
    return (
        f'<rect class="{style}" x="{_n(panel.x)}" y="{_n(panel.y)}" width="{_n(panel.width)}" '
        f'height="{_n(panel.height)}" rx="12"/>'
        f'<text class="{title}" x="{_n(panel.x + layout_.PANEL_PADDING)}" y="{_n(panel.y + 25)}">'
        f"{_text(words.fitted(panel.title, room))}</text>"
    )


def _edge(graph: model.Graph, edge: model.Edge, route: routing.Route, *, labelled: bool) -> str:
    state = edge.state.value
    said = "\n".join(says.edge(graph, edge))
    label = ""
    if labelled and route.label is not None:
        x, y = route.label
        label = f'<text class="label" x="{_n(x)}" y="{_n(y + 3.5)}">{_text(says.ports(edge))}</text>'
    return (
        f'<g class="edge {state}" data-edge="{route.edge}"><path class="hit" fill="none" stroke="transparent" '
        f'stroke-width="12" d="{route.path}"/><path class="line" d="{route.path}" stroke-width="{_width(edge)}" '
        f'marker-end="url(#nw-{state})"/>{label}<title>{_text(said)}</title></g>'
    )


def _width(edge: model.Edge) -> str:
    """More traffic is a wider line, by its logarithm: counts differ by powers of ten."""
    if not edge.tried:
        return "1.4" if edge.state is model.State.AUDIT else "1"
    return f"{min(4.0, 1.4 + 0.5 * math.log10(max(1, edge.forwarded + edge.denied))):.1f}"


def _card(node: model.Node, card: layout_.Card) -> str:
    x, y = card.x, card.y
    openness = says.openness(node)
    opened = f' · <tspan class="open">{_text(openness)}</tspan>' if openness else ""
    about = f"{says.name(node)}, {says.kind(node)}{', ' + openness if openness else ''}"
    return (
        f'<g class="card" data-node="{card.node}" role="button" tabindex="0" aria-label="{_text(about)}">'
        f'<rect class="box" x="{_n(x)}" y="{_n(y)}" width="{layout_.CARD_WIDTH}" '
        f'height="{layout_.CARD_HEIGHT}" rx="8"/>'
        f'<text class="name" x="{_n(x + 12)}" y="{_n(y + 19)}">{_text(words.fitted(node.key.name, NAME_MOST))}</text>'
        f'<text class="sub" x="{_n(x + 12)}" y="{_n(y + 34)}">{_text(says.kind(node))}{opened}</text>'
        f"<title>{_text(about)}</title></g>"
    )


def _legend(x: float, y: float, *, audited: bool) -> Iterator[str]:
    for place, state in enumerate((model.State.SEEN, model.State.UNSEEN, model.State.DENIED)):
        yield _legend_line(x + place * 190, y, state)
    yield (
        f'<text class="key" x="{_n(x + 570)}" y="{_n(y + 12)}">'
        '<tspan class="open">open</tspan> no policy isolates it</text>'
    )
    if audited:
        yield _legend_line(x, y + LEGEND_ROW, model.State.AUDIT)


def _legend_line(left: float, y: float, state: model.State) -> str:
    return (
        f'<g class="{state.value}"><path class="line" stroke-width="{1 if state is model.State.UNSEEN else 2}" '
        f'd="M{_n(left)} {_n(y + 8)}h34" marker-end="url(#nw-{state.value})"/></g>'
        f'<text class="key" x="{_n(left + 44)}" y="{_n(y + 12)}">{_text(says.STATES[state])}</text>'
    )


def _text(text: str) -> str:
    """Write text so that neither XML nor HTML reads markup in it; line ends stay."""
    lines = (FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", words.plain(line)) for line in text.split("\n"))
    return html.escape("\n".join(lines))


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
