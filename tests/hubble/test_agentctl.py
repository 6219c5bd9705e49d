"""Hubble's own command line and agentctl: the same filters, and one recording for both.

Needs it (scripts/hubble finds or builds it) and skips without.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Sequence

import pytest
import yaml
from google.protobuf import json_format

from agent.api.flow import flow_pb2
from tests.cli import test_observe
from tests.flows import recording
from tests.hubble import variety

pytestmark = pytest.mark.slow  # each test starts a program of 70 MB


@pytest.fixture(scope="module", name="file")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("flows") / "flows.json"
    path.write_bytes(b"".join(recording.line(one) + b"\n" for one in variety.flows()))
    return path


@pytest.mark.parametrize("words", [one[0] for one in test_observe.MORE], ids=" ".join)
def test_hubble_itself_makes_the_same_filters(
    words: Sequence[str], hubble: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = subprocess.run(
        [hubble, "observe", *words, "--print-raw-filters"],
        env={**os.environ, "HOME": str(tmp_path)},
        check=True,
        capture_output=True,
        text=True,
    )
    document = yaml.safe_load(done.stdout) or {}
    lists = (document.get("allowlist", ()), document.get("denylist", ()))
    theirs = [[json_format.Parse(one, flow_pb2.FlowFilter()) for one in some] for some in lists]
    assert test_observe.made(words) == theirs


@pytest.mark.parametrize("form", ["compact", "json", "dict"])
def test_hubble_reads_what_is_recorded(
    form: str, hubble: pathlib.Path, file: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    printed = test_observe.run("--input-file", str(file), "-o", "json")
    done = subprocess.run(
        [hubble, "observe", "--input-file", "-", "-o", form, "--print-policy-names"],
        env={**os.environ, "HOME": str(tmp_path)},
        input=printed,
        check=True,
        capture_output=True,
        text=True,
    )
    if form == "json":
        assert test_observe.serials(done.stdout) == list(range(400))
        assert [json.loads(one)["flow"] for one in done.stdout.splitlines()] == [
            json.loads(one)["flow"] for one in printed.splitlines()
        ]
    else:
        assert "deny-all (NetworkPolicy)" in done.stdout
