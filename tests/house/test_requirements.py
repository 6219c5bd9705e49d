"""What is installed is what was reviewed: exact versions, hashes for every supported machine, and no address."""

import pathlib
import re
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
FILES = ("runtime.txt", "dev.txt")


def pins(file: str) -> dict[str, int]:
    """Package to its number of hashes."""
    text = (ROOT / "requirements" / file).read_text()
    entries = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    return {entry.split("==")[0]: len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", entry)) for entry in entries}


def wanted(names: list[str]) -> set[str]:
    return {re.split(r"[<>=]", name)[0].lower() for name in names}


@pytest.mark.parametrize("file", FILES)
def test_every_package_is_pinned_with_a_hash(file: str) -> None:
    assert pins(file)
    assert all(pins(file).values())


@pytest.mark.parametrize("file", FILES)
def test_no_file_names_a_registry(file: str) -> None:
    assert "://" not in (ROOT / "requirements" / file).read_text()


def test_compiled_packages_have_a_wheel_for_each_python_and_architecture() -> None:
    three_pythons_two_architectures = 6
    runtime = pins("runtime.txt")
    assert [runtime[name] for name in ("grpcio", "msgspec", "pyyaml")] == [three_pythons_two_architectures] * 3


def test_the_files_hold_what_pyproject_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert wanted(project["project"]["dependencies"]) <= pins("runtime.txt").keys()
    assert wanted(project["dependency-groups"]["dev"]) <= pins("dev.txt").keys() | pins("runtime.txt").keys()


def test_no_package_is_pinned_twice() -> None:
    assert not pins("runtime.txt").keys() & pins("dev.txt").keys()


def test_bcc_is_never_taken_from_the_registry() -> None:
    assert "bcc" not in pins("runtime.txt").keys() | pins("dev.txt").keys()
