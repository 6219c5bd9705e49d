"""The graph in Graphviz's language, for those who lay it out themselves."""

from __future__ import annotations

from collections.abc import Iterator

from agent.graph import model, says, words

COLOURS = {
    model.State.DENIED: "dashed red",
    model.State.AUDIT: "dotted violet",
    model.State.SEEN: "blue",
    model.State.UNSEEN: "grey",
}
LOOKS = {
    model.State.DENIED: 'color="#cf2a1e", fontcolor="#cf2a1e", style=dashed',
    model.State.AUDIT: 'color="#8250df", fontcolor="#8250df", style=dotted, penwidth=1.6',
    model.State.SEEN: 'color="#2563c9", fontcolor="#2563c9"',
    model.State.UNSEEN: 'color="#a9b3c0", fontcolor="#647082", penwidth=0.6',
}


def lines(graph: model.Graph, *, title: str) -> Iterator[str]:
    """Yield the lines of the file."""
    yield "digraph nodewall {"
    label = f"{_quoted(title)[:-1]}\\n{_quoted(legend(graph))[1:]}"
    yield f'  label={label}; rankdir=LR; node [shape=box, style=rounded]; fontname="sans-serif";'
    for number, namespace in enumerate(graph.namespaces):
        yield f"  subgraph cluster_{number} {{ label={_quoted(namespace)};"
        yield from (
            f"    n{place} [label={_quoted(node.key.name)}, tooltip={_quoted(says.kind(node))}];"
            for place, node in enumerate(graph.nodes)
            if node.key.namespace == namespace
        )
        yield "  }"
    for place, node in enumerate(graph.nodes):
        if not node.key.namespace:
            yield f"  n{place} [label={_quoted(node.key.name)}, style=dashed];"
    for edge in graph.edges:
        yield f"  n{edge.source} -> n{edge.target} [label={_quoted(says.ports(edge))}, {LOOKS[edge.state]}];"
    yield "}"


def legend(graph: model.Graph) -> str:
    """Say what the colours of the edges mean."""
    states = (state for state in model.State if graph.of(state))
    return ", ".join(f"{COLOURS[state]}: {says.STATES[state]}" for state in states)


def _quoted(text: str) -> str:
    r"""Quote a string; a backslash is doubled, as \N and \L mean something to Graphviz."""
    plain = words.plain(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{plain}"'
