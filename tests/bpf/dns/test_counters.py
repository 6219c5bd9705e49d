"""Counters of another build: what it counted goes on, whether it counted more or less than this one does."""

from __future__ import annotations

import os
import pathlib
import shutil
import struct
from collections.abc import Iterator

import pytest

from agent import errors
from agent.datapath.bpf import dns_loader, fqdn_layout, fqdn_maps, maps, rows, syscalls

pytestmark = pytest.mark.root

NAME = "fqdn_counters"
PROCESSORS = 8192
"""As many as Linux knows of at most."""


@pytest.fixture
def pins(bpffs: pathlib.Path) -> Iterator[pathlib.Path]:
    directory = bpffs / f"nodewall-counters-{os.getpid()}"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def learner(pins: pathlib.Path) -> Iterator[fqdn_maps.FqdnMaps]:
    opened = fqdn_maps.FqdnMaps(pins)
    yield opened
    opened.close()


def _left(pins: pathlib.Path, *, length: int, value_size: int = 8) -> None:
    """Pin a map such as another build leaves, in which counter N stands at 100 + N on the first processor."""
    descriptor = syscalls.map_create(
        kind=syscalls.MapType.PERCPU_ARRAY, key_size=4, value_size=value_size, max_entries=length, flags=0, name="left"
    )
    with syscalls.owned(descriptor):
        for index in range(length):
            value = struct.pack("=Q", 100 + index).ljust(PROCESSORS * value_size, b"\0")
            rows.update(descriptor, struct.pack("=I", index), value)
        syscalls.pin(descriptor, pins / NAME)


@pytest.mark.parametrize("more", [-3, -1, 1])
def test_what_another_build_counted_goes_on(pins: pathlib.Path, learner: fqdn_maps.FqdnMaps, more: int) -> None:
    length = len(fqdn_layout.Counter)
    _left(pins, length=length + more)
    learner.open()
    counted = learner.counters()
    known = min(length, length + more)
    assert [counted[one.name.lower()] for one in fqdn_layout.Counter] == [
        100 + index if index < known else 0 for index in range(length)
    ]
    assert sorted(path.name for path in pins.iterdir()) == sorted(shape.name for shape in fqdn_maps.shapes())
    again = fqdn_maps.FqdnMaps(pins)
    again.open()
    assert again.counters() == counted
    again.close()


def test_programs_load_over_them(pins: pathlib.Path, learner: fqdn_maps.FqdnMaps) -> None:
    _left(pins, length=len(fqdn_layout.Counter) - 1)
    learner.open()
    node = maps.Maps(pins)
    node.open()
    dns_loader.load(map_pins=pins, program_pins=pins)
    node.close()


def test_what_crashed_in_between_is_made_again(pins: pathlib.Path, learner: fqdn_maps.FqdnMaps) -> None:
    _left(pins, length=len(fqdn_layout.Counter) + 1)
    (pins / NAME).rename(pins / f"{NAME}{maps.NEXT}")
    _left(pins, length=len(fqdn_layout.Counter) - 1)
    learner.open()
    assert not (pins / f"{NAME}{maps.NEXT}").exists()
    assert learner.counters()["queries"] == 100


def test_a_map_of_another_kind_is_refused_as_ever(pins: pathlib.Path, learner: fqdn_maps.FqdnMaps) -> None:
    _left(pins, length=len(fqdn_layout.Counter), value_size=16)
    with pytest.raises(errors.DatapathError, match="uninstall"):
        learner.open()
