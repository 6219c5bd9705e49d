"""Shared by the tests of scripts."""

from __future__ import annotations

import pathlib
import shutil

import pytest


@pytest.fixture
def bare(tmp_path: pathlib.Path) -> dict[str, str]:
    """Return an environment with the few programs that finding scripts call, and nothing of what they look for."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("bash", "dirname", "readlink", "sed", "env"):
        found = shutil.which(name)
        assert found
        (programs / name).symlink_to(found)
    return {"PATH": str(programs), "HOME": str(tmp_path), "NODEWALL_CACHE": str(tmp_path / "cache")}
