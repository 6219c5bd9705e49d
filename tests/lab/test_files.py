"""Manifests in, manifests out."""

from __future__ import annotations

import pathlib

import pytest

from agent import errors
from agent.lab import files, resolve
from tests.lab import manifests


def test_every_document_has_a_file_of_its_own() -> None:
    one, other = manifests.pod("b-c"), manifests.pod("c")
    one["metadata"]["namespace"], other["metadata"]["namespace"] = "a", "a-b"
    twins = [{"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": {"nodeName": text}} for text in "xy"]
    named = files.names([one, other, *twins, manifests.pod("c"), manifests.pod("c", node="node-2")])
    assert len(named) == 6
    assert {"pod_a_b-c.yaml", "pod_a-b_c.yaml", "pod_x_c.yaml"} < set(named)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", ".hidden", "a\nb", "n" * 253])
def test_a_files_name_is_one_plain_name(name: str) -> None:
    document = manifests.pod(name)
    document["metadata"]["namespace"] = "s" * 63
    (file,) = files.names([document])
    assert "/" not in file
    assert "\n" not in file
    assert not file.startswith(".")
    assert len(file) <= 255


def test_what_is_written_is_read_again(tmp_path: pathlib.Path) -> None:
    pod = manifests.pod("a", ports=("80/TCP",))
    pod["metadata"]["labels"] = {"number": "1", "time": "1:30", "truth": "yes", "date": "2024-01-01", "octal": "010"}
    pod["metadata"]["annotations"] = shared = {"a": "b"}
    pod["other"] = shared
    text = files.dump(pod)
    assert "&" not in text
    (tmp_path / "a.yaml").write_text(text)
    assert files.load([tmp_path]) == [pod]


def test_a_key_given_twice_is_refused_with_the_objects_name(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: x}\nspec: {nodeName: a, nodeName: b}\n")
    documents = resolve.resolve(files.load([path]))
    pod = next(document for document in documents if document["kind"] == "Pod")
    pod["spec"] = files.load([path])[0]["spec"]
    with pytest.raises(errors.InvalidResource, match="Pod/x/a"):
        files.dump(pod)


def test_a_path_that_is_not_there_is_refused() -> None:
    with pytest.raises(errors.InvalidInput, match="/no/such"):
        files.load([pathlib.Path("/no/such")])
