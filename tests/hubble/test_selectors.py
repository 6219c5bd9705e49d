"""Label selectors in kubectl's grammar."""

from __future__ import annotations

import pytest

from agent import errors
from agent.hubble import selectors
from agent.model import labels

WEB = labels.Labels({"app": "web", "tier": "front", "empty": "", "example.com/role": "a.b_c"})


@pytest.mark.parametrize(
    ("text", "selected"),
    [
        ("", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web", True),
        ("app!=web", False),
        ("other!=web", True),
        ("k8s:app=web", True),
        ("any:app=web", True),
        ("reserved:world", False),
        ("app", True),
        ("!app", False),
        ("! other", True),
        ("app=web,tier=front", True),
        ("app=web,tier=back", False),
        ("app in (db, web),!other", True),
        ("app notin (db,web)", False),
        ("app in (db)", False),
        ("empty=", True),
        ("empty in ()", True),
        ("app=", False),
        ("example.com/role=a.b_c", True),
    ],
)
def test_a_selector_selects(text: str, *, selected: bool) -> None:
    assert selectors.parse(text, field="source_label").selects(WEB) is selected


@pytest.mark.parametrize(
    "text",
    [
        "=web",
        "app=web,",
        ",app=web",
        "app=we b",
        "app in web",
        "app in (a",
        "app>1",
        "app=web;",
        "a\x1b[1m",
        "-a",
        "x" * 2000,
    ],
)
def test_what_is_no_selector_is_refused_with_its_field(text: str) -> None:
    with pytest.raises(errors.InvalidInput, match="source_label"):
        selectors.parse(text, field="source_label")


def test_a_hostile_selector_is_refused_soon() -> None:
    for text in ("a in (" + ", " * 500, "a" * 1023 + ",", "a-" * 511, "a in (" + "a," * 500, "!" * 1000):
        with pytest.raises(errors.InvalidInput):
            selectors.parse(text, field="f")
