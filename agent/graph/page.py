"""The graph as one HTML page that needs nothing else: no network, no font, no library.

The picture is the same SVG, so the page shows and prints it without scripts, too. The script only finds, filters and
focuses; it makes nodes by name and sets text, never markup. A policy in the page forbids whatever else a hostile label
might have smuggled in: only this very style and this very script run, named by their digests, and nothing is fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import string
from collections.abc import Mapping

from agent.graph import document as document_
from agent.graph import layout as layout_
from agent.graph import model, says, svg, words


def page(graph: model.Graph, *, title: str, parts: Mapping[str, str]) -> str:
    """Return the page; `parts` are page.html, page.css and page.js, as they lie beside this module."""
    layout = layout_.lay_out(graph)
    left, top, width, height = svg.frame(graph, layout)
    style, script = svg.STYLE + parts["page.css"], parts["page.js"]
    view = f"{left:.0f} {top:.0f} {width:.0f} {height:.0f}"
    return string.Template(parts["page.html"]).substitute(
        csp=html.escape(
            f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
            "base-uri 'none'; form-action 'none'"
        ),
        title=_text(title),
        summary=_text(says.summary(graph)),
        style=style,
        script=script,
        view=view,
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        drawing="".join(svg.drawing(graph, layout)),
        graph=document_.embedded(graph),
        denied=str(graph.of(model.State.DENIED)),
        audit=str(graph.of(model.State.AUDIT)),
        unaudited="" if graph.of(model.State.AUDIT) else " hidden",
        seen=str(graph.of(model.State.SEEN)),
        unseen=str(graph.of(model.State.UNSEEN)),
        namespaces="".join(f'<option value="{_text(name)}">{_text(name)}</option>' for name in graph.namespaces),
        ports="".join(f'<option value="{_text(port)}">{_text(port)}</option>' for port in _ports(graph)),
    )


def _ports(graph: model.Graph) -> list[str]:
    lanes = {(lane.protocol or 0, lane.port or 0): lane for edge in graph.edges for lane in edge.lanes}
    return list(
        dict.fromkeys(words.port(lane.port, lane.protocol) for _, lane in sorted(lanes.items(), key=lambda one: one[0]))
    )


def _text(text: str) -> str:
    return html.escape(words.plain(text))


def _digest(content: str) -> str:
    """Return how a Content-Security-Policy names what stands between a style's or a script's tags."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
