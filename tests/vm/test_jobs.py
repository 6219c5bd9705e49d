"""What other kernels run: the same on every day, all that names SCTP, both networks, both variants of iptables."""

from __future__ import annotations

import ast
import itertools
import pathlib
import re

import pytest

from agent.datapath import engines as agent_engines
from agent.lab import plan
from tests.system import engines, test_cases_lab
from tests.vm import jobs

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNELS_OF_MODES = [(kernel, mode) for kernel, modes in jobs.JOBS.items() for mode in modes.values()]


@pytest.mark.parametrize(("kernel", "mode"), KERNELS_OF_MODES)
def test_every_table_that_names_sctp_runs_on_every_kernel_in_every_way(kernel: str, mode: str) -> None:
    tests = jobs.tables(kernel, mode, jobs.Extent.SCTP)
    named = [case.id for case in test_cases_lab.CASES if jobs.names_sctp(case)]
    ways = jobs.combinations(mode, jobs.Extent.SCTP)
    assert len(named) >= 9
    assert set(tests) == {f"{jobs.TEST}[{way.name}-{case}]" for way in ways for case in named}
    assert {way.topology for way in ways} == {plan.Topology.ROUTED, plan.Topology.BRIDGE}
    assert {way.engine.variant for way in ways} == ({"legacy", "nft"} if "iptables" in mode else {"auto"})


@pytest.mark.parametrize(("kernel", "mode"), KERNELS_OF_MODES)
def test_a_sample_is_more_than_sctp_and_small_enough_to_emulate(kernel: str, mode: str) -> None:
    tests = jobs.tables(kernel, mode, jobs.Extent.SAMPLE)
    assert set(tests) > set(jobs.tables(kernel, mode, jobs.Extent.SCTP))
    assert len(tests) == len(set(tests)) <= 45


@pytest.mark.parametrize(("kernel", "mode"), KERNELS_OF_MODES)
def test_tables_of_one_lab_follow_each_other(kernel: str, mode: str) -> None:
    tests = jobs.tables(kernel, mode, jobs.Extent.SAMPLE)
    lab_of = jobs.labs()
    known = {
        f"{jobs.TEST}[{way.name}-{case.id}]": (way, lab_of[case.id])
        for way in engines.COMBINATIONS
        for case in test_cases_lab.CASES
    }
    labs = [known[test] for test in tests]
    assert sum(one != next_one for one, next_one in itertools.pairwise(labs)) == len(set(labs)) - 1


def test_kernels_take_different_samples() -> None:
    samples = [frozenset(jobs.tables(kernel, "socket+iptables", jobs.Extent.SAMPLE)) for kernel in jobs.JOBS]
    assert len(set(samples)) == len(samples)


@pytest.mark.parametrize("kernel", jobs.JOBS)
def test_each_is_every_table_once_by_the_engine_that_the_agent_chooses(kernel: str) -> None:
    mode = jobs.JOBS[kernel][jobs.AUTO]
    tests = jobs.tables(kernel, mode, jobs.Extent.EACH)
    sctp = jobs.tables(kernel, mode, jobs.Extent.SCTP)
    assert set(tests) > set(sctp)
    assert len(set(tests) - set(sctp)) == sum(not jobs.names_sctp(case) for case in test_cases_lab.CASES)
    run = [case.id for case in test_cases_lab.CASES for test in tests if test.endswith(f"-{case.id}]")]
    assert set(run) == {case.id for case in test_cases_lab.CASES}


def test_each_is_a_sample_for_an_engine_that_the_agent_does_not_choose() -> None:
    assert jobs.tables("newest", "iptables", jobs.Extent.EACH) == jobs.tables("newest", "iptables", jobs.Extent.SAMPLE)


def test_all_is_every_table_in_every_way_of_the_mode() -> None:
    ways = [way for way in engines.COMBINATIONS if way.engine.status == "iptables"]
    assert len(jobs.tables("6.1", "iptables", jobs.Extent.ALL)) == len(ways) * len(test_cases_lab.CASES)


def test_engines_are_asked_for_as_the_agent_knows_them() -> None:
    assert {wanted for modes in jobs.JOBS.values() for wanted in modes} <= {one.value for one in agent_engines.Engine}


def test_jobs_are_for_the_kernels_that_the_script_and_the_vagrantfile_know() -> None:
    kernels = suites()
    assert list(kernels) == list(jobs.JOBS)
    vagrantfile = (ROOT / "vagrant/Vagrantfile").read_text()
    named = re.findall(r'^  "([^"]+)" => \{ box: "debian/[a-z]+64", suite: "([a-z]+)"', vagrantfile, re.MULTILINE)
    assert dict(named) == kernels


def suites() -> dict[str, str]:
    """Return the kernels of scripts/vm and the Debian suites they come from."""
    tree = ast.parse((ROOT / "scripts/vm").read_text())
    (value,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["KERNELS"]
    ]
    return {kernel: suite for kernel, (suite, _pattern) in ast.literal_eval(value).items()}


def test_names_are_shown_on_every_kernel_by_tests_that_exist() -> None:
    names = {mode: jobs.names(kernel, mode, jobs.Extent.NONE) for kernel, mode in KERNELS_OF_MODES}
    assert all(len(tests) == len(jobs.NAMES) for tests in names.values())
    assert any("iptables-nft-" in test for test in names["iptables"]), "the queue that this machine may lack"
    for place in {test.partition("[")[0] for tests in names.values() for test in tests}:
        path, _, name = place.partition("::")
        functions = [node for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)]
        assert name in {function.name for function in functions}
