"""The graph as values that JSON can hold: what `-o json` prints, and what the page looks things up in."""

from __future__ import annotations

import json
from typing import Any

from agent.graph import model, says, words


def document(graph: model.Graph) -> dict[str, Any]:
    """Return the whole graph; nodes are named by their place in `nodes`."""
    return {
        "nodes": [_node(one) for one in graph.nodes],
        "edges": [_edge(one) for one in graph.edges],
        "policies": graph.policies,
        "verdicts": graph.verdicts,
        "lost": graph.lost,
        "first": says.moment(graph.first_ns),
        "last": says.moment(graph.last_ns),
        "legend": {state.value: says.STATES[state] for state in model.State},
    }


def embedded(graph: model.Graph) -> str:
    """Return the graph as JSON that cannot end the script element it stands in, and holds no control character."""
    text = json.dumps(document(graph), ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _node(node: model.Node) -> dict[str, Any]:
    return {
        "name": words.plain(node.key.name),
        "namespace": words.plain(node.key.namespace),
        "kind": node.kind.value,
        "pods": [words.plain(pod) for pod in node.pods],
        "labels": {words.plain(key): words.plain(value) for key, value in node.labels.items()},
        "open_ingress": node.open_ingress,
        "open_egress": node.open_egress,
        "addresses": [words.plain(one) for one in node.addresses],
    }


def _edge(edge: model.Edge) -> dict[str, Any]:
    return {
        "source": edge.source,
        "target": edge.target,
        "state": edge.state.value,
        "ports": [_lane(lane) for lane in edge.lanes],
    }


def _lane(lane: model.Lane) -> dict[str, Any]:
    return {
        "port": lane.port,
        "protocol": words.PROTOCOLS.get(lane.protocol, str(lane.protocol)) if lane.protocol is not None else None,
        "state": lane.state.value if lane.state is not None else None,
        "allowed": lane.allowed,
        "partial": lane.partial,
        "outdated": lane.outdated,
        "forwarded": lane.forwarded,
        "denied": lane.denied,
        "audited": lane.audited,
        "would_deny": lane.would_deny,
        "last": says.moment(lane.last_ns),
        "policies": [words.plain(one) for one in lane.policies],
        "because": words.plain(lane.because),
        "text": words.port(lane.port, lane.protocol),
    }
