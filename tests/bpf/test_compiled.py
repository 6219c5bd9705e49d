"""What BCC compiled is loaded again as it was, only where somebody asked for that, and never what cannot be loaded."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from agent import errors
from agent.datapath.bpf import assembly, compiled, maps, socket_loader, syscalls


@pytest.fixture
def pins(bpffs: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a directory with every map, and two for programs."""
    directory = bpffs / f"nodewall_test_kept_{os.getpid()}"
    for name in ("maps", "first", "second"):
        (directory / name).mkdir(parents=True)
    opened = maps.Maps(directory / "maps")
    try:
        opened.open()
        yield directory
    finally:
        opened.close()
        for parent, _, names in os.walk(directory, topdown=False):
            for name in names:
                (pathlib.Path(parent) / name).unlink()
            pathlib.Path(parent).rmdir()


@pytest.fixture
def directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.setenv(compiled.ENVIRONMENT, str(tmp_path / "kept"))
    return tmp_path / "kept"


def load(pins: pathlib.Path, into: str) -> dict[str, str]:
    """Load the programs; return the kernel's digests of their instructions, in which maps have no number."""
    socket_loader.load(map_pins=pins / "maps", program_pins=pins / into)
    found = {}
    for pin in (pins / into).iterdir():
        with syscalls.owned(syscalls.open_pin(pin)) as program:
            found[pin.name] = syscalls.program_info(program).tag
    assert found.keys() == socket_loader.ATTACH_TYPES.keys()
    return found


def never(*_: object, **__: object) -> None:
    raise AssertionError("the compiler was started")


@pytest.mark.root
@pytest.mark.slow
def test_what_was_compiled_is_loaded_again_without_the_compiler_and_is_the_same_to_the_kernel(
    pins: pathlib.Path, directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(pins, "first")
    (kept,) = directory.iterdir()
    monkeypatch.setattr("subprocess.run", never)
    assert load(pins, "second") == first
    assert json.loads(kept.read_text()).keys() == first.keys()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(
    "content", ["", "{}", "null", '{"nw_sock_create": "95"}', '{"nw_sock_create": "9500000000000000"}']
)
def test_what_cannot_be_loaded_is_forgotten_and_compiled_again(
    pins: pathlib.Path, directory: pathlib.Path, content: str
) -> None:
    kept = compiled.Kept.of(["one"])
    assert kept is not None
    directory.mkdir(exist_ok=True)
    kept.path.write_text(content)
    programs = socket_loader.programs()
    assert not kept.load(programs, map_pins=pins / "maps", program_pins=pins / "first")
    assert not list((pins / "first").iterdir())


@pytest.mark.root
def test_each_build_has_a_file_of_its_own(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = {str(kept.path) for flags in ([], ["-DNW_SETS_ERRNO"]) if (kept := compiled.Kept.of(flags)) is not None}
    monkeypatch.setattr("platform.release", lambda: "5.10")
    other = compiled.Kept.of([])
    assert other is not None
    assert len(paths | {str(other.path)}) == 3
    assert {path.parent for path in map(pathlib.Path, paths)} == {directory}


def test_nobody_who_did_not_ask_keeps_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in (None, ""):
        monkeypatch.delenv(compiled.ENVIRONMENT, raising=False)
        if value is not None:
            monkeypatch.setenv(compiled.ENVIRONMENT, value)
        assert compiled.Kept.of([]) is None


def test_where_no_directory_can_be_made_nothing_is_kept(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(compiled.ENVIRONMENT, str(tmp_path / "file" / "kept"))
    assert compiled.Kept.of([]) is None


@pytest.mark.root
def test_a_directory_that_others_can_write_is_refused(directory: pathlib.Path) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    with pytest.raises(errors.DatapathError, match="can be written by others"):
        compiled.Kept.of([])


def test_maps_are_renumbered_and_nothing_else_is() -> None:
    code = assembly.load_map(1, 7) + assembly.put(2, 7) + assembly.load_map(3, 9)
    wanted = assembly.load_map(1, 0) + assembly.put(2, 7) + assembly.load_map(3, 1)
    assert assembly.with_maps(code, {7: 0, 9: 1}) == wanted
    with pytest.raises(KeyError):
        assembly.with_maps(code, {7: 0})
