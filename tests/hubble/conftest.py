"""Hubble's own command line, for the tests that run it."""

from __future__ import annotations

import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
NONE = 3
"""What scripts/hubble ends with where there is no such program."""


@pytest.fixture(scope="session")
def hubble() -> pathlib.Path:
    """Where it is; `make test-hubble` builds it the first time, which takes minutes."""
    found = subprocess.run([ROOT / "scripts" / "hubble", "--find"], check=False, capture_output=True, text=True)
    if found.returncode == NONE:
        pytest.skip((found.stderr.strip().splitlines() or ["scripts/hubble found nothing"])[-1])
    if found.returncode:
        pytest.fail(found.stderr)
    return pathlib.Path(found.stdout.splitlines()[-1])
