"""JSONPath as kubectl speaks it, and clear refusals of what is not spoken here."""

from __future__ import annotations

import pytest

from agent import errors
from agent.cli import jsonpath

DOCUMENT = {
    "kind": "List",
    "ok": True,
    "nothing": None,
    "items": [
        {"metadata": {"name": "a", "labels": {"k8s.io/app": "x", "tier": "t1"}}, "ports": [80, 443], "n": 1},
        {"metadata": {"name": "b", "labels": {}}, "ports": [53], "n": 2},
        {"metadata": {"name": "c\x1b[31m"}, "ports": [], "n": 2.5},
    ],
}


@pytest.mark.parametrize(
    ("expression", "printed"),
    [
        ("{.kind}", "List"),
        ("{$.kind}", "List"),
        ("{@.kind}", "List"),
        ("{['kind']}", "List"),
        ("kind: {.kind}!", "kind: List!"),
        ("{.ok}{.items[0].n}{.nothing}", "true1null"),
        ("{.items[*].metadata.name}", "a b c\\x1b[31m"),
        ("{.items[0,1].metadata.name}", "a b"),
        ("{.items[-1].n}", "2.5"),
        ("{.items[9].n}", ""),
        ("{.items[0:2].n}", "1 2"),
        ("{.items[::2].n}", "1 2.5"),
        ("{.items[1:].n}", "2 2.5"),
        ("{.items[-2:].n}", "2 2.5"),
        ("{.missing.further}", ""),
        ("{.items[0].metadata.labels['k8s.io/app']}", "x"),
        ("{.items[0].metadata.labels.k8s\\.io/app}", ""),
        ("{.items[0].metadata.labels['k8s.io/app','tier']}", "x t1"),
        ("{.items[0].metadata.labels}", '{"k8s.io/app": "x", "tier": "t1"}'),
        ("{.items[0].ports}", "[80, 443]"),
        ("{.items[0].ports.*}", "80 443"),
        ("{..name}", "a b c\\x1b[31m"),
        ('{.items[?(@.metadata.name=="b")].n}', "2"),
        ("{.items[?(@.metadata.name=='b')].n}", "2"),
        ("{.items[?(@.n>1)].n}", "2 2.5"),
        ("{.items[?(@.n <= 2)].n}", "1 2"),
        ("{.items[?(@.n!=2)].n}", "1 2.5"),
        ("{.items[?(@.metadata.labels.tier)].n}", "1"),
        ("{.items[?(@.metadata.name==1)].n}", ""),
        ("{.items[?(@.metadata.name==@.metadata.name)].n}", "1 2 2.5"),
        ('{range .items[0:2]}{.metadata.name}{"\\t"}{.n}{"\\n"}{end}', "a\t1\nb\t2\n"),
        ("{range .items[0:2]}{.n}:{range .ports[*]}<{@}>{end};{end}", "1:<80><443>;2:<53>;"),
        ("{range .items[0:2]}{$.kind}{end}", "ListList"),
        ("{range .missing[*]}x{end}", ""),
        ('{"}"}', "}"),
        ("{'it\\'s \"so\"'}", 'it\'s "so"'),
    ],
)
def test_an_expression_prints_what_kubectl_prints(expression: str, printed: str) -> None:
    if "k8s\\.io/app" in expression:  # a slash ends a name, as there; the quoted form takes it
        with pytest.raises(errors.InvalidInput):
            jsonpath.parse(expression)
        return
    assert jsonpath.parse(expression).apply(DOCUMENT) == printed


def test_a_dot_in_a_name_is_escaped() -> None:
    assert jsonpath.parse("{.labels.a\\.b}").apply({"labels": {"a.b": "v"}}) == "v"


@pytest.mark.parametrize(
    "expression",
    [
        *("", ".items", "{", "{}", "{.a", "{.items[}", "{.items[1]", "{items}", "{.a b}", "{.a..}", "{..}"),
        *("{.a[x]}", "{.a[?(@.b=~'x')]}", "{.a[?(@.b==x)]}", "{.a[?(@.b==1 && @.c==2)]}", "{.a[::0]}"),
        *("{range .a}", "{end}", "{range .a}{end}{end}", "{range}{end}", "{'open}", "{.a/b}", "{-}"),
    ],
)
def test_what_is_not_spoken_here_is_refused_with_an_example(expression: str) -> None:
    with pytest.raises(errors.InvalidInput, match="as kubectl does"):
        jsonpath.parse(expression)
