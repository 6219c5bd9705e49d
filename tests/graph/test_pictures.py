"""Pictures say what the graph says, whatever strangers called themselves."""

from __future__ import annotations

import html.parser
import importlib.resources
import json
import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

import pytest

from agent import graph as graph_
from agent.graph import document, dot, model, page, svg, terminal, words
from tests.graph import graphs

TAGS = frozenset(
    (
        *("html", "head", "meta", "title", "style", "body", "header", "div", "h1", "p", "form", "input", "select"),
        *("option", "fieldset", "legend", "label", "i", "b", "button", "main", "svg", "defs", "marker", "path", "g"),
        *("rect", "text", "tspan", "kbd", "aside", "noscript", "script"),
    )
)


def parts() -> Mapping[str, str]:
    here = importlib.resources.files(graph_)
    return {name: (here / name).read_text() for name in ("page.html", "page.css", "page.js")}


class Tags(html.parser.HTMLParser):
    """What a browser would find."""

    def __init__(self) -> None:
        """Nothing yet."""
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, set[str | None]] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, set()).add(value)


@pytest.fixture(scope="module")
def hostile() -> model.Graph:
    return graphs.made(3, 30, 60, names=graphs.HOSTILE)


def printable(text: str) -> bool:
    return all(line.isprintable() for line in text.split("\n"))


def test_a_page_of_hostile_names_has_no_other_elements_and_fetches_nothing(hostile: model.Graph) -> None:
    text = page.page(hostile, title=graphs.HOSTILE[1], parts=parts())
    found = Tags()
    found.feed(text)
    assert set(found.tags) <= TAGS
    assert found.tags.count("script") == 2
    assert not {"src", "href", "style", "onerror", "onclick", "action"} & found.attributes.keys()
    assert printable(text)
    [policy] = [value for value in found.attributes["content"] if value and "default-src" in value]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_the_digests_in_the_policy_are_those_of_the_page(hostile: model.Graph) -> None:
    text = page.page(hostile, title="t", parts=parts())
    style = text[text.index("<style>") + 7 : text.index("</style>")]
    script = text[text.rindex("<script>") + 8 : text.rindex("</script>")]
    for content in (style, script):
        assert page._digest(content) in text


def test_what_the_page_looks_up_is_json_and_whole(hostile: model.Graph) -> None:
    text = page.page(hostile, title="t", parts=parts())
    [inside] = re.findall(r'<script type="application/json" id="graph">(.*?)</script>', text, re.DOTALL)
    assert len(json.loads(inside)["edges"]) == len(hostile.edges)


def test_a_picture_of_hostile_names_is_xml_with_nothing_but_shapes(hostile: model.Graph) -> None:
    text = svg.document(hostile, title=graphs.HOSTILE[2])
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(text).iter()}  # noqa: S314 - our own
    assert tags <= {"svg", "title", "desc", "style", "defs", "marker", "path", "g", "rect", "text", "tspan"}
    assert printable(text)


@pytest.mark.parametrize("width", [10, 80, 120, 200])
def test_lines_fit_the_terminal_and_hold_no_control_characters(hostile: model.Graph, width: int) -> None:
    for line in terminal.lines(hostile, width=width):
        text = "".join(piece.text for piece in line)
        assert text.isprintable()
        assert words.columns(text) <= max(width, terminal.LEAST)


def test_dot_and_json_hold_no_control_characters(hostile: model.Graph) -> None:
    for line in dot.lines(hostile, title="\x1b"):
        assert line.isprintable()
        assert line.count('"') - line.count('\\"') == 2 * len(re.findall(r'"(?:[^"\\]|\\.)*"', line))
    assert json.dumps(document.document(hostile), indent=None).isprintable()


def test_each_edge_and_card_of_the_picture_can_be_found_by_its_number(hostile: model.Graph) -> None:
    text = svg.document(hostile, title="t")
    assert sorted(map(int, re.findall(r'data-edge="(\d+)"', text))) == list(range(len(hostile.edges)))
    assert set(map(int, re.findall(r'data-node="(\d+)"', text))) == {
        place
        for place, node in enumerate(hostile.nodes)
        if node.key.namespace or any(place in (edge.source, edge.target) for edge in hostile.edges)
    }


LEGEND = "in audit, would be denied"


def small(*, would_deny: bool) -> model.Graph:
    """Return two workloads and what goes between them."""
    lane = model.Lane(port=80, protocol=6, allowed=True, forwarded=3, audited=3 * would_deny, would_deny=would_deny)
    return model.Graph(
        nodes=tuple(
            model.Node(key=model.Key("x", name), kind=model.Kind.WORKLOAD, pods=(name,)) for name in ("a", "b")
        ),
        edges=(model.Edge(source=0, target=1, lanes=(lane,)),),
        verdicts=3,
    )


def test_what_policies_in_audit_would_deny_stands_apart_in_every_form_with_a_legend() -> None:
    """Rule A51."""
    drawn, plain = small(would_deny=True), small(would_deny=False)
    lines = ["".join(piece.text for piece in line) for line in terminal.lines(drawn, width=100)]
    assert "    ╍╍▶ b  80                    3 audited" in [line.rstrip() for line in lines]
    assert f"╍╍▶ {LEGEND}: 1" in lines
    picture = svg.document(drawn, title="t")
    assert '<g class="edge audit"' in picture
    assert f">{LEGEND}</text>" in picture
    text = page.page(drawn, title="t", parts=parts())
    assert '<label class="chip audit"><input' in text
    assert f'"audit":"{LEGEND}"' in text
    assert 'n0 -> n1 [label="80", color="#8250df"' in "\n".join(dot.lines(drawn, title="t"))
    assert f'label="t\\ndotted violet: {LEGEND}"' in next(
        line for line in dot.lines(drawn, title="t") if "label" in line
    )
    said = document.document(drawn)
    assert (said["edges"][0]["state"], said["legend"]["audit"]) == ("audit", LEGEND)
    assert (said["edges"][0]["ports"][0]["audited"], said["edges"][0]["ports"][0]["would_deny"]) == (3, True)
    assert LEGEND not in "".join(piece.text for line in terminal.lines(plain, width=100) for piece in line)
    assert LEGEND not in svg.document(plain, title="t")
    assert '<label class="chip audit" hidden>' in page.page(plain, title="t", parts=parts())


@pytest.mark.parametrize(
    ("text", "most", "shown"),
    [
        ("short", 9, "short"),
        ("cart-5c8f7d-x2x4z", 9, "cart-…x4z"),
        ("\x1b", 9, "\\x1b"),
        ("名前名前", 5, "名…前"),
        ("ab", 1, "…"),
        ("ab", 0, ""),
    ],
)
def test_a_name_that_does_not_fit_keeps_both_ends(text: str, most: int, shown: str) -> None:
    assert words.fitted(text, most) == shown
