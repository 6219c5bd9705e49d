"""The scripts behind make: what they print when something is wrong is what a newcomer sees first."""

import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

ROOT = pathlib.Path(__file__).parents[2]


def run(*command: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | changes, check=False)


@pytest.fixture
def machine() -> Iterator[pathlib.Path]:
    """Stand-ins, to put first in PATH, for the package tools of a machine on which only make is installed.

    Not below tmp_path, which users other than root cannot enter.
    """
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        for tool, answer in (("dpkg-query", "ii |make, \\n"), ("apt-get", "")):
            path = directory / tool
            path.write_text(f"#!/bin/sh\nprintf '{answer}'\nprintf '%s\\n' \"{tool} $*\" >>{directory}/calls\n")
            path.chmod(0o755)
        (directory / "calls").touch(mode=0o666)
        (directory / "calls").chmod(0o666)
        directory.chmod(0o755)
        yield directory


def test_a_phase_that_works_is_one_line() -> None:
    outcome = run("scripts/phase", "house self test", "sh", "-c", "echo noise")
    assert outcome.returncode == 0
    assert outcome.stdout.splitlines() == [outcome.stdout.strip()]
    assert "noise" not in outcome.stdout


def test_a_phase_that_fails_shows_its_output_and_keeps_its_status() -> None:
    outcome = run("scripts/phase", "house self test", "sh", "-c", "echo the reason; exit 7")
    assert outcome.returncode == 7
    assert "the reason" in outcome.stdout
    assert "house self test" in outcome.stderr


def test_without_kubernetes_programs_one_line_says_what_is_not_run_and_why_and_nothing_fails() -> None:
    outcome = run("scripts/cluster-daily", sys.executable, NODEWALL_CLUSTER_BIN="/nowhere")
    assert outcome.returncode == 0
    (line,) = outcome.stdout.splitlines()
    assert line.startswith("three nodes ")
    assert "not run: " in line
    assert not outcome.stderr


@pytest.mark.root
def test_missing_packages_are_named_in_one_line_to_somebody_who_is_not_root(machine: pathlib.Path) -> None:
    packages = (ROOT / "scripts" / "packages").read_text()
    outcome = run(
        "setpriv", "--reuid=65534", "--clear-groups", "bash", "-c", packages, PATH=f"{machine}:{os.environ['PATH']}"
    )
    assert outcome.returncode == 1
    (line,) = outcome.stderr.splitlines()
    assert "python3-bpfcc" in line
    assert " make" not in line, "it is installed"
    assert "apt-get" not in (machine / "calls").read_text(), "nothing was tried"


@pytest.mark.root
def test_root_installs_only_what_is_missing(machine: pathlib.Path) -> None:
    outcome = run("scripts/packages", PATH=f"{machine}:{os.environ['PATH']}")
    assert outcome.returncode == 0, outcome.stderr
    _, update, install = (machine / "calls").read_text().splitlines()
    assert update.startswith("apt-get update")
    assert "python3-bpfcc" in install
    assert "make" not in install.split()


def test_nothing_is_asked_of_the_network_when_all_packages_are_there(machine: pathlib.Path) -> None:
    (machine / "dpkg-query").unlink()
    outcome = run("scripts/packages", PATH=f"{machine}:{os.environ['PATH']}")
    assert outcome.returncode == 0, outcome.stderr
    assert not (machine / "calls").read_text()


@pytest.mark.root
def test_preflight_names_what_is_lacking_in_one_line() -> None:
    outcome = run("setpriv", "--reuid=65534", "--clear-groups", "/usr/bin/python3", "-c", preflight())
    assert outcome.returncode == 1
    (line,) = outcome.stderr.splitlines()
    assert "root" in line


@pytest.mark.root
def test_preflight_is_silent_where_the_tests_can_run() -> None:
    outcome = run("scripts/preflight")
    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")


def preflight() -> str:
    return (ROOT / "scripts" / "preflight").read_text()


FAILS_BESIDE_OTHERS = """
import pathlib

def test_needs_quiet(tmp_path_factory):
    seen = pathlib.Path(__file__).with_suffix(".seen")
    first = not seen.exists()
    seen.touch()
    assert not first

def test_is_sound():
    pass
"""


def outcome_of(directory: pathlib.Path, text: str) -> subprocess.CompletedProcess[str]:
    (directory / "test_them.py").write_text(text)
    (directory / "pytest.ini").write_text("[pytest]\n")
    command = [str(ROOT / "scripts" / "tests"), sys.executable, "-m", "pytest", "-q"]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_what_fails_beside_others_and_passes_alone_is_told_of_and_stops_nothing(tmp_path: pathlib.Path) -> None:
    outcome = outcome_of(tmp_path, FAILS_BESIDE_OTHERS)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stdout.splitlines()[-1] == "passed alone, having failed beside others: 1 (above)"


def test_what_fails_alone_too_fails(tmp_path: pathlib.Path) -> None:
    outcome = outcome_of(tmp_path, "def test_is_broken():\n    assert False\n")
    assert outcome.returncode == 1
    assert outcome.stdout.count("test_is_broken") > 1
    assert "once more, alone" in outcome.stdout


def test_where_many_fail_nothing_is_repeated(tmp_path: pathlib.Path) -> None:
    outcome = outcome_of(tmp_path, "\n".join(f"def test_{n}():\n    assert False" for n in range(4)))
    assert outcome.returncode == 1
    assert "once more" not in outcome.stdout
