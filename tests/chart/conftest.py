"""helm, for the tests that run it, and an API server for those that install with it."""

from __future__ import annotations

import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.chart import charts
from tests.kube import control

SCRIPTS = pathlib.Path(__file__).parents[2] / "scripts"
NONE = 3
"""What a script that finds programs ends with where there are none."""


def found(script: str) -> pathlib.Path:
    """Return what a script finds; skips, in its words, where it finds nothing."""
    ended = subprocess.run([SCRIPTS / script, "--find"], check=False, capture_output=True, text=True)
    if ended.returncode == NONE:
        pytest.skip((ended.stderr.strip().splitlines() or [f"scripts/{script} found nothing"])[-1])
    if ended.returncode:
        pytest.fail(ended.stderr)
    return pathlib.Path(ended.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> charts.Helm:
    """`make test-helm` builds it the first time, which takes minutes."""
    return charts.Helm(found("helm"), tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[control.ControlPlane]:
    """`make test-kube` builds it the first time, which takes minutes."""
    with control.ControlPlane(directory=tmp_path_factory.mktemp("plane"), assets=found("kube")) as started:
        yield started
