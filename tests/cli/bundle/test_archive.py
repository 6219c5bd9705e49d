"""Collecting: what fails or hangs is an entry of the manifest; the archive is its owner's alone."""

from __future__ import annotations

import hashlib
import json
import pathlib
import stat
import tarfile
import threading

import pytest

from agent import errors
from agent.cli.bundle import archive, redact

REDACTOR = redact.Redactor(key=b"k", labels=False)


def test_an_item_that_fails_is_an_entry_with_the_reason_without_secrets() -> None:
    def fail() -> object:
        raise OSError("refused: Bearer s3cr3t-value")

    one = archive.collect(archive.Item(name="a.json", collect=fail), REDACTOR)
    assert one.content is None
    assert one.error.startswith("refused")
    assert "s3cr3t" not in one.error
    assert "bytes" not in one.entry


def test_an_item_that_hangs_is_left_behind() -> None:
    never = threading.Event()
    one = archive.collect(archive.Item(name="a", collect=lambda: never.wait(30), limit_s=0.05), REDACTOR)
    never.set()
    assert (one.content, one.error) == (None, "not done in 0.05 s")


def test_what_is_too_long_is_cut_and_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "BYTES_MOST", 3)
    one = archive.collect(archive.Item(name="a.txt", collect=lambda: "abcdef"), REDACTOR)
    assert (one.content, one.error) == (b"abc", "cut at 3 bytes")


def test_documents_lines_and_texts_are_written_as_such() -> None:
    def content(name: str, answer: object) -> bytes | None:
        return archive.collect(archive.Item(name=name, collect=lambda: answer), REDACTOR).content

    assert content("a.json", {"a": 1}) == b'{\n  "a": 1\n}\n'
    assert content("a.jsonl", [{"a": 1}, {"b": 2}]) == b'{"a": 1}\n{"b": 2}\n'
    assert content("a.txt", "a\ud800") == b"a\\ud800"


def test_the_archive_has_a_manifest_with_sizes_and_digests_and_only_its_owner_reads_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "b.tar.gz"
    found = [
        archive.Collected(name="a/x.txt", content=b"text", error="", seconds=0.1),
        archive.Collected(name="a/y.txt", content=None, error="gone", seconds=0.1),
    ]
    assert archive.write(path, "bundle", found, {"node": "n1"}) == path.stat().st_size
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with tarfile.open(path) as opened:
        assert opened.getnames() == ["bundle/manifest.json", "bundle/a/x.txt"]
        manifest = json.load(opened.extractfile("bundle/manifest.json") or pytest.fail("no manifest"))
    digest = hashlib.sha256(b"text").hexdigest()
    assert manifest["node"] == "n1"
    assert manifest["items"][0] == {"name": "a/x.txt", "bytes": 4, "sha256": digest, "seconds": 0.1, "error": None}
    assert manifest["items"][1] == {"name": "a/y.txt", "seconds": 0.1, "error": "gone"}


def test_a_file_that_is_there_is_not_replaced(tmp_path: pathlib.Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(errors.InvalidInput, match="not there yet"):
        archive.write(tmp_path / "b", "bundle", [], {})
    assert (tmp_path / "b").read_text() == "mine"
