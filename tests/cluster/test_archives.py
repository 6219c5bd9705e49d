"""An image that is written is one that a runtime can read."""

from __future__ import annotations

import hashlib
import json
import pathlib
import tarfile

import pytest

from tests.cluster import archives, node, settings


def test_every_blob_has_the_digest_it_is_named_by(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    target = tmp_path / "image.tar"
    archives.write(
        target,
        name="example.test/image:1",
        files={"program": program},
        links={"bin/p": "/program"},
        entrypoint=["/program"],
    )
    with tarfile.open(target) as archive:
        blobs = {}
        for member in archive.getmembers():
            opened = archive.extractfile(member)
            assert opened is not None
            blobs[member.name] = opened.read()
    for path, content in blobs.items():
        if path.startswith("blobs/"):
            assert path == f"blobs/sha256/{hashlib.sha256(content).hexdigest()}"
    [listed] = json.loads(blobs["index.json"])["manifests"]
    assert listed["annotations"]["io.containerd.image.name"] == "example.test/image:1"
    manifest = json.loads(blobs[f"blobs/{listed['digest'].replace(':', '/')}"])
    assert f"blobs/{manifest['layers'][0]['digest'].replace(':', '/')}" in blobs


def test_nested_tables_are_written_as_toml() -> None:
    text = node.toml({"version": 2, "plugins": {"a.b": {"on": True, "cni": {"dir": "/x"}}}})
    lines = ["version = 2", '["plugins"."a.b"]', "on = true", '["plugins"."a.b"."cni"]', 'dir = "/x"', ""]
    assert text.splitlines() == lines[:-1]


@pytest.mark.parametrize("name", ["", "Big", "nine-letters", "0x", "waytoolong"])
def test_a_name_that_no_link_could_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        settings.Shape(name=name)


def test_a_shape_that_is_kept_comes_back(tmp_path: pathlib.Path) -> None:
    shape = settings.Shape(name="other", cni=settings.Cni.BRIDGE, proxy=settings.Proxy.NFTABLES, nodes=2)
    settings.write(shape, tmp_path / "shape.json")
    assert settings.read(tmp_path / "shape.json") == shape
