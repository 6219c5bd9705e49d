"""Graphs made by hand or by seed, without policies."""

from __future__ import annotations

import random

from agent.graph import model

HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "</script><script>alert(1)</script>",
    "</title></svg><img src=x onerror=alert(1)>",
    '"><style>*{display:none}</style>',
    "\u202egnp.exe\u2066",
    "line\u2028and\u2029line\r\nbell\x07",
    "$" + "{title} $script {{}} &amp; ]]>",
    "\x9b2J\x00\x7f",
    "\ud800half",
    "名前" * 40,
    "a" * 500,
    "e\u0301" * 60,
    "-->'\"`\\",
)


def made(seed: int, nodes: int = 36, edges: int = 70, *, names: tuple[str, ...] = ()) -> model.Graph:
    """Return a graph with some of everything; `names` are used for whatever has a name."""
    choose = random.Random(seed)
    found = []
    for number in range(nodes):
        kind = choose.choice((model.Kind.WORKLOAD,) * 8 + tuple(model.Kind))
        outside = kind in model.OUTSIDE
        name = f"{choose.choice(names) if names else 'work'}-{number}"
        space = "" if outside else f"{choose.choice(names) if names else 'ns'}{number % 7}"
        found.append(
            model.Node(
                key=model.Key(space, name, kind.value),
                kind=kind,
                pods=() if outside else tuple(f"{name}-{each}" for each in range(choose.randrange(1, 6))),
                labels={choose.choice(names): choose.choice(names)} if names else {"app": name},
                open_ingress=choose.random() < 0.2,
                open_egress=choose.random() < 0.2,
                addresses=("192.0.2.1",) if outside else (),
            )
        )
    found.sort(key=lambda node: (not node.key.namespace, node.key))
    pairs = sorted({(choose.randrange(nodes), choose.randrange(nodes)) for _ in range(edges)})
    return model.Graph(
        nodes=tuple(found),
        edges=tuple(
            model.Edge(
                source=source, target=target, lanes=tuple(_lane(choose, names) for _ in range(choose.randrange(1, 4)))
            )
            for source, target in pairs
        ),
        policies=5,
        verdicts=1234567,
        first_ns=1,
        last_ns=choose.choice((2**63, 1_700_000_000_000_000_000)),
        lost=3,
    )


def _lane(choose: random.Random, names: tuple[str, ...]) -> model.Lane:
    forwarded, denied, audited = choose.choice(((0, 0, 0), (5, 0, 0), (100000, 0, 8), (0, 7, 0), (3, 4, 0), (6, 0, 6)))
    return model.Lane(
        port=choose.choice((None, 0, 80, 443, 65535)),
        protocol=choose.choice((None, 6, 17, 1, 47)),
        allowed=True if not forwarded and not denied else choose.choice((True, False, None)),
        partial=choose.random() < 0.2,
        policies=tuple(choose.choices(names or ("NetworkPolicy x/p",), k=choose.randrange(3))),
        because=choose.choice(names or ("because",)),
        forwarded=forwarded,
        denied=denied,
        audited=audited,
        would_deny=choose.random() < 0.2,
        last_ns=choose.choice((0, 1_700_000_000_000_000_000, 2**63)),
    )
