"""Kubernetes' own suite of policy tests passes: whole on two combinations, ten specs of it on the others.

That the suite can fail is shown without agents: the spec that denies all traffic then fails.
"""

from __future__ import annotations

import os
import pathlib

import pytest

from tests.cluster import bed, combinations, deployment, programs, upstream

pytestmark = [pytest.mark.cluster, pytest.mark.root, pytest.mark.slow]

KEPT = programs.ROOT / "build" / "cluster"
"""Reports and logs outlive the cluster."""
PART = "NODEWALL_CLUSTER_SUITE"
"""`all` or `ten`, whatever the combination."""


@pytest.fixture
def directory(combination: combinations.Combination) -> pathlib.Path:
    made = KEPT / combination.name
    made.mkdir(parents=True, exist_ok=True)
    return made


@pytest.fixture(autouse=True)
def suite() -> None:
    try:
        programs.suite("e2e.test")
    except programs.Missing as missing:
        pytest.skip(str(missing))


def test_without_agents_the_suite_fails(
    bare: bed.Bed, combination: combinations.Combination, tmp_path: pathlib.Path
) -> None:
    if not combination.whole_suite:
        pytest.skip("shown where the whole suite runs: a spec that fails takes minutes")
    one = upstream.focus(["API should support creating NetworkPolicy API with endport"])
    sound = upstream.run(bare, focus=one, directory=tmp_path)
    assert (len(sound.passed), sound.failed) == (1, ()), "the suite does not even run"
    one = upstream.focus([f"{upstream.UDP}should support a 'default-deny-ingress' policy"])
    report = upstream.run(bare, focus=one, directory=tmp_path)
    assert (report.passed, len(report.failed)) == ((), 1), (tmp_path / "e2e.log").read_text()[-3000:]


def test_upstreams_specs_pass(
    cluster: bed.Bed, deployed: deployment.Deployment, combination: combinations.Combination, directory: pathlib.Path
) -> None:
    assert deployed.pods()
    whole = {"all": True, "ten": False}.get(os.environ.get(PART, ""), combination.whole_suite)
    wanted = upstream.SPECS if whole else len(upstream.TEN)
    focus = upstream.EVERY if whole else upstream.focus()
    report = upstream.run(cluster, focus=focus, directory=directory)
    print(f"{combination.name}: {report}")
    assert not report.failed, f"{report}; see {directory / 'e2e.log'}: " + "\n  ".join(report.failed)
    assert len(report.passed) == wanted
