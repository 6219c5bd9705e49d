"""Which documents are read, which are passed over, and Lists."""

from __future__ import annotations

from typing import Any

import pytest

from agent import decode
from agent.model import resources
from tests.decode import samples


def test_an_empty_document_is_passed_over() -> None:
    assert decode.decode(None) == decode.Decoded(None)
    assert decode.decode_all(None) == ()


@pytest.mark.parametrize(
    ("version", "kind"),
    [
        ("apps/v1", "Deployment"),
        ("v1", "ConfigMap"),
        ("serving.knative.dev/v1", "Service"),
        ("longhorn.io/v1beta2", "Node"),
        ("v1", "Host"),
    ],
)
def test_kinds_that_say_nothing_about_the_network_are_passed_over(version: str, kind: str) -> None:
    assert decode.decode_all({"apiVersion": version, "kind": kind, "metadata": {"name": "n"}}) == ()


@pytest.mark.parametrize("document", ["x", 1, True, [], ["Pod"], {}, {"kind": None}, {"kind": 1}, {"kind": ["Pod"]}])
def test_what_is_no_object_is_a_problem(document: object) -> None:
    decoded = decode.decode(document)
    assert decoded.resource is None
    assert len(decoded.problems) == 1
    assert decoded.problems[0].ref == resources.ObjectRef("Document", "", decode.UNNAMED)


@pytest.mark.parametrize("version", ["v2", None, 1])
def test_another_version_of_a_known_kind_is_a_problem(version: object) -> None:
    decoded = decode.decode({**samples.pod(), "apiVersion": version})
    assert decoded.resource is None
    assert [problem.path for problem in decoded.problems] == ["apiVersion"]


@pytest.mark.parametrize("metadata", [None, {}, {"name": ""}, {"name": 1}, [], "x"])
def test_an_object_without_a_name_is_a_problem(metadata: object) -> None:
    decoded = decode.decode({**samples.pod(), "metadata": metadata})
    assert decoded.resource is None
    assert decoded.problems[0].path in ("metadata", "metadata.name")


def test_a_list_is_each_of_its_items() -> None:
    inner = {"apiVersion": "v1", "kind": "List", "items": [samples.node(), "x", None]}
    document = {"apiVersion": "v1", "kind": "List", "items": [samples.pod(), inner]}
    decoded = decode.decode_all(document)
    assert [type(one.resource).__name__ for one in decoded] == ["Pod", "Node", "NoneType", "NoneType"]


def test_a_typed_list_gives_its_items_kind_and_version() -> None:
    pod = samples.pod()
    del pod["apiVersion"], pod["kind"]
    (decoded,) = decode.decode_all({"apiVersion": "v1", "kind": "PodList", "items": [pod]})
    assert isinstance(decoded.resource, resources.Pod)


@pytest.mark.parametrize("items", ["x", {"a": 1}, 7])
def test_a_list_without_a_list_of_items_is_a_problem(items: object) -> None:
    (decoded,) = decode.decode_all({"apiVersion": "v1", "kind": "List", "items": items})
    assert [problem.path for problem in decoded.problems] == ["items"]


def test_a_list_that_contains_itself_ends() -> None:
    document: dict[str, Any] = {"apiVersion": "v1", "kind": "List", "items": []}
    document["items"].append(document)
    (decoded,) = decode.decode_all(document)
    assert "nested" in decoded.problems[0].reason
