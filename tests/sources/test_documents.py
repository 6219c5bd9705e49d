"""YAML: what PyYAML's constructors would let through is stopped, and lines are named."""

from __future__ import annotations

import math

import pytest
import yaml

from agent import errors
from agent.decode import fields
from agent.sources import documents
from tests.decode import samples

BOMB = b"".join(
    b"%s: &%s [%s]\n" % (name, name, b", ".join([b"*" + before] * 10 if before else [b"x"] * 10))
    for before, name in ((b"", b"a"), (b"a", b"b"), (b"b", b"c"), (b"c", b"d"), (b"d", b"e"), (b"e", b"f"))
)


def _value(text: str) -> object:
    (document,) = documents.parse(text.encode(), "f.yaml")
    return document.value


def _refusal(content: bytes) -> str:
    with pytest.raises(errors.InvalidResource) as caught:
        documents.parse(content, "f.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("80", 80),
        ("-1", -1),
        ("0x1F", 31),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("true", True),
        ("No", False),
        ("ON", True),
        ("null", None),
        ("~", None),
        ("x y", "x y"),
        ("'80'", "80"),
        ('"on"', "on"),
        ("!!str 80", "80"),
        ("! 80", "80"),
        ("!!int '80'", 80),
        ("-", [None]),
        ("+", "+"),
        (".", "."),
    ],
)
def test_scalars_are_read_by_their_looks_and_tags(text: str, value: object) -> None:
    read = _value(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["010", "080", "0o17", "1:30", "1_000", "2024-01-01", "9" * 200, "٣"])
def test_numbers_that_yaml_versions_read_differently_stay_text(text: str) -> None:
    assert _value(text) == text


def test_infinity_and_no_number_are_floats() -> None:
    assert _value("-.Inf") == -math.inf
    read = _value(".NaN")
    assert isinstance(read, float)
    assert math.isnan(read)


def test_a_key_given_twice_is_marked_with_its_line_a50() -> None:
    assert _value("spec:\n  policyTypes: [Egress]\n  policyTypes: [Ingress]\n") == {
        "spec": {"policyTypes": fields.Repeated(3)}
    }


def test_merge_keys_merge_and_own_keys_win() -> None:
    text = "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: [*a, *b], x: 9}\n"
    read = _value(text)
    assert isinstance(read, dict)
    assert read["c"] == {"x": 9, "y": 2, "z": 4}


def test_documents_know_their_lines() -> None:
    read = documents.parse(b"# first\na: 1\n---\nb: 2\n---\n", "f.yaml")
    assert [(document.value, document.line) for document in read] == [({"a": 1}, 2), ({"b": 2}, 3), (None, 5)]
    assert documents.parse(b"", "f.yaml") == ()


def test_json_is_read() -> None:
    assert _value('{"a": [1, true, null, "\\u00e9", "a\\/b"]}') == {"a": [1, True, None, "é", "a/b"]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: 1\nb: [\n", "f.yaml:3: is not YAML"),
        (b"a: b: c", "f.yaml:1: is not YAML"),
        (b"a: 1\n\xff", "f.yaml:2: is not UTF-8"),
        (b"a: 1\nb: \x00", "f.yaml:2: is not YAML"),
        (b"a: 1\n? [b]\n: c", "f.yaml:2: a list or mapping cannot be a key"),
        (b"a: *b", "f.yaml:1: the alias *b"),
        (b"a: &a [*a]", "f.yaml:1: the alias *a"),
        (b"a: !!python/object/apply:os.system [x]", "f.yaml:1: the tag"),
        (b"a: !!binary eA==", "f.yaml:1: the tag"),
        (b"a: !!int x", "f.yaml:1: the tag"),
        (b"a: {<<: 1}", "f.yaml:1: a merge key"),
        (BOMB, "f.yaml:5: aliases expand"),
        (b"[" * 200_000, "f.yaml:1: is nested"),
        (b"- " * 200_000, "f.yaml:1: is nested"),
    ],
)
def test_what_cannot_be_read_is_refused_with_file_and_line(content: bytes, message: str) -> None:
    assert _refusal(content).startswith(message)


def test_sound_documents_are_read_as_pyyaml_writes_them() -> None:
    wanted = list(samples.all_kinds())
    content = yaml.safe_dump_all(wanted, encoding="utf-8")
    assert [document.value for document in documents.parse(content, "f.yaml")] == wanted


def test_the_parser_in_python_gives_the_same_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    content = yaml.safe_dump_all(samples.all_kinds(), encoding="utf-8")
    wanted = documents.parse(content, "f.yaml")
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    assert documents.parse(content, "f.yaml") == wanted
    assert _refusal(b"a: 1\nb: \x00").startswith("f.yaml:2: is not YAML")
    assert _refusal(b"[" * 2_000).startswith("f.yaml:1: is nested")
