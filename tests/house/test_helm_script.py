"""scripts/helm finds what is there, and says plainly when there is nothing."""

from __future__ import annotations

import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "helm"
BASH = shutil.which("bash")


def run(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    assert BASH
    return subprocess.run([BASH, SCRIPT, *words], check=False, capture_output=True, text=True, env=environment)


def put(path: pathlib.Path, version: str = "v3.1.0") -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!{BASH}\necho {version}\n")
    path.chmod(0o755)
    return path


def cached(tmp_path: pathlib.Path) -> pathlib.Path:
    module = (ROOT / "tests" / "chart" / "go" / "go.mod").read_text()
    [version] = re.findall(r"^require helm.sh/helm/v3 (v\S+)$", module, re.MULTILINE)
    return put(tmp_path / "cache" / "helm" / version / "helm")


def test_the_one_that_is_named_comes_first(bare: dict[str, str], tmp_path: pathlib.Path) -> None:
    cached(tmp_path)
    mine = put(tmp_path / "mine")
    put(tmp_path / "programs" / "helm")
    found = run(bare | {"NODEWALL_HELM": str(mine)})
    assert (found.returncode, found.stdout.strip()) == (0, str(mine))


def test_one_that_is_named_and_is_no_program_is_a_mistake(bare: dict[str, str], tmp_path: pathlib.Path) -> None:
    found = run(bare | {"NODEWALL_HELM": str(tmp_path / "none")})
    assert found.returncode == 2
    assert "NODEWALL_HELM" in found.stderr


def test_one_that_is_installed_will_do(bare: dict[str, str], tmp_path: pathlib.Path) -> None:
    installed = put(tmp_path / "programs" / "helm")
    found = run(bare, "--find")
    assert (found.returncode, found.stdout.strip()) == (0, str(installed))


@pytest.mark.parametrize("version", ["v4.0.1", "v2.17.0", ""])
def test_one_of_another_major_version_will_not(bare: dict[str, str], tmp_path: pathlib.Path, version: str) -> None:
    put(tmp_path / "programs" / "helm", version)
    built = cached(tmp_path)
    found = run(bare, "--find")
    assert (found.returncode, found.stdout.strip()) == (0, str(built))


def test_without_it_and_without_go_it_says_what_to_do(bare: dict[str, str]) -> None:
    found = run(bare)
    assert (found.returncode, found.stdout) == (3, "")
    assert "install helm or go" in found.stderr
    assert "NODEWALL_HELM" in found.stderr


def test_with_go_finding_builds_nothing(bare: dict[str, str], tmp_path: pathlib.Path) -> None:
    put(tmp_path / "programs" / "go")
    found = run(bare, "--find")
    assert (found.returncode, found.stdout) == (3, "")
    assert "make test-helm" in found.stderr
    assert not (tmp_path / "cache").exists()
