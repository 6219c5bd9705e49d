"""scripts/kube finds what is there, and says plainly when there is nothing."""

from __future__ import annotations

import pathlib
import shutil
import subprocess

import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "scripts" / "kube"
KUBEBUILDER = pathlib.Path("/usr/local/kubebuilder/bin/etcd")
BASH = shutil.which("bash")


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    assert BASH
    return subprocess.run([BASH, SCRIPT], check=False, capture_output=True, text=True, env=environment)


def put(directory: pathlib.Path) -> pathlib.Path:
    directory.mkdir(parents=True)
    for name in ("etcd", "kube-apiserver"):
        (directory / name).touch(mode=0o755)
    return directory


def test_kubebuilder_assets_come_first(bare: dict[str, str], tmp_path: pathlib.Path) -> None:
    assets = put(tmp_path / "assets")
    found = run(bare | {"KUBEBUILDER_ASSETS": str(assets)})
    assert (found.returncode, found.stdout.strip()) == (0, str(assets))


def test_kubebuilder_assets_that_hold_nothing_are_a_mistake(bare: dict[str, str], tmp_path: pathlib.Path) -> None:
    found = run(bare | {"KUBEBUILDER_ASSETS": str(tmp_path)})
    assert found.returncode == 2
    assert "KUBEBUILDER_ASSETS" in found.stderr


@pytest.mark.skipif(KUBEBUILDER.exists(), reason="this machine has the test tools of Kubernetes")
def test_without_programs_and_without_go_it_says_what_to_do(bare: dict[str, str]) -> None:
    found = run(bare)
    assert (found.returncode, found.stdout) == (3, "")
    assert "install go" in found.stderr
    assert "KUBEBUILDER_ASSETS" in found.stderr
