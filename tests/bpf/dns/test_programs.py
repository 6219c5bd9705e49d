"""What the verifier made of the learner, and which variant is loaded where."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Iterator

import pytest

from agent import errors
from agent.datapath.bpf import artifacts, dns_loader, fqdn_maps, maps, syscalls
from tests.bpf.dns import costs, rig

pytestmark = pytest.mark.root

BUDGET = {
    dns_loader.Variant.LOOP: {dns_loader.QUERY: 150_000, dns_loader.ANSWER: 170_000, dns_loader.REPLAY: 25_000},
    dns_loader.Variant.PLAIN: {dns_loader.QUERY: 250_000, dns_loader.ANSWER: 250_000, dns_loader.REPLAY: 25_000},
}
"""Instructions the verifier may look at: twice what it did at first (F31: half a million would be refused)."""
SLOWEST_NANOSECONDS = 10_000
"""Of an answer with one address: ten times what it takes on an idle machine (F22)."""


@pytest.fixture
def pins(bpffs: pathlib.Path) -> Iterator[pathlib.Path]:
    directory = bpffs / f"nodewall-dns-{os.getpid()}"
    directory.mkdir()
    node, fqdn = maps.Maps(directory), fqdn_maps.FqdnMaps(directory)
    node.open()
    fqdn.open()
    yield directory
    node.close()
    fqdn.close()
    shutil.rmtree(directory)


def test_every_program_stays_in_its_verifier_budget(learner: rig.Learner, request: pytest.FixtureRequest) -> None:
    """F31."""
    budget = BUDGET[request.node.callspec.params["loaded_learner"]]
    looked_at = {
        name: syscalls.program_info(program).verified_instructions for name, program in learner.programs.items()
    }
    assert looked_at.keys() == budget.keys()
    assert {name: count for name, count in looked_at.items() if count > budget[name]} == {}


def test_an_answer_costs_less_than_anybody_would_notice(bpffs: pathlib.Path) -> None:
    """F22."""
    variant = dns_loader.Variant.LOOP
    with rig.loaded(bpffs, variant) as learner, costs.asking(learner, variant) as programs:
        learner.clear()
        assert costs.answer_ns(programs, costs.reply_of(1), repeat=2000, rounds=3) < SLOWEST_NANOSECONDS
        assert len(learner.learned()) == 1, "each of them was read"


def test_the_variant_with_bpf_loop_is_preferred(pins: pathlib.Path) -> None:
    assert dns_loader.load(map_pins=pins, program_pins=pins) == dns_loader.Loaded(variant=dns_loader.Variant.LOOP)
    assert all((pins / name).exists() for name in dns_loader.PROGRAMS)


def test_where_it_is_refused_the_one_with_plain_loops_is_loaded(
    pins: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No kernel here refuses it: an object takes its place that every kernel does."""
    found = artifacts.find()
    shutil.copytree(found.root / "build" / "bpf", tmp_path / "build" / "bpf")
    (tmp_path / "build" / "bcc-headers").mkdir()
    broken = bytearray(found.dns_object.read_bytes())
    place = broken.index((181).to_bytes(4, "little"), broken.index(bytes([0x85, 0, 0, 0, 181, 0, 0, 0])))
    broken[place : place + 4] = (9999).to_bytes(4, "little")  # the number of a function that no kernel has
    (tmp_path / "build" / "bpf" / found.dns_object.name).write_bytes(broken)
    monkeypatch.setenv(artifacts.ENVIRONMENT, str(tmp_path))
    loaded = dns_loader.load(map_pins=pins, program_pins=pins)
    assert loaded.variant is dns_loader.Variant.PLAIN
    assert "9999" in loaded.refused


def test_a_kernel_that_takes_neither_keeps_the_verifiers_words(pins: pathlib.Path, tmp_path: pathlib.Path) -> None:
    with pytest.raises(errors.DatapathError):
        dns_loader.load(map_pins=tmp_path, program_pins=pins)
