"""The page in a real browser: chromium, where it is installed; hostile names stay text, and a click's way works."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

from agent.graph import page
from tests.graph import graphs, test_pictures

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no chromium in PATH")]


def shown(path: pathlib.Path, fragment: str, profile: pathlib.Path) -> str:
    """Return the document as it is after the page's script ran."""
    assert BROWSER is not None
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--dump-dom"]
    done = subprocess.run(
        [BROWSER, *options, f"file://{path}#{fragment}"], check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout


def test_a_page_of_hostile_names_runs_its_own_script_and_no_other(tmp_path: pathlib.Path) -> None:
    graph = graphs.made(3, 30, 60, names=graphs.HOSTILE)
    path = tmp_path / "page.html"
    path.write_text(page.page(graph, title="calm", parts=test_pictures.parts()), encoding="utf-8")
    found = shown(path, "", tmp_path / "profile")
    assert "<title>calm</title>" in found
    assert "<img" not in found
    assert found.count("<script") == 2
    assert 'class="edge' in found


def test_a_link_to_a_workload_opens_its_details(tmp_path: pathlib.Path) -> None:
    graph = graphs.made(1, 12, 30)
    node = next(graph.nodes[edge.source] for edge in graph.edges if graph.nodes[edge.source].key.namespace)
    path = tmp_path / "page.html"
    path.write_text(page.page(graph, title="calm", parts=test_pictures.parts()), encoding="utf-8")
    found = shown(path, f"{node.key.namespace}/{node.key.name}", tmp_path / "profile")
    assert f"<h2>{node.key.namespace}/{node.key.name}</h2>" in found
    assert "faded" in found
