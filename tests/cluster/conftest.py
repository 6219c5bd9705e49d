"""One cluster and one image for all tests here; they run when `make test-cluster` asks for them.

A part of them, with the marker `daily`, is what `make test-cluster-daily` runs (`scripts/cluster-daily`).

NODEWALL_CLUSTER_COMBINATION is `CNI-PROXY-ENGINE`, ptp-iptables-nfbpf unless told. NODEWALL_IMAGE is an archive of the
image; without it the image is built.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster import bed, combinations, deployment, lacking, overlay, programs, settings

ASKED = "NODEWALL_TEST_CLUSTER"


@pytest.fixture(scope="session")
def combination() -> combinations.Combination:
    return combinations.asked_for()


@pytest.fixture(scope="session")
def cluster(combination: combinations.Combination) -> Iterator[bed.Bed]:
    if os.environ.get(ASKED) != "1":
        pytest.skip("make test-cluster runs these")
    shape = settings.Shape(name=lacking.NAME, cni=combination.cni, proxy=combination.proxy)
    try:
        programs.require()
    except programs.Missing as missing:
        pytest.skip(str(missing))
    started = bed.Bed(shape)
    started.down()
    with started:
        yield started


@pytest.fixture(scope="session")
def image(cluster: bed.Bed, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Return the archive of the image; it is loaded on every node."""
    given = os.environ.get("NODEWALL_IMAGE")
    archive = pathlib.Path(given) if given else tmp_path_factory.mktemp("image") / "nodewall.tar"
    if not given:
        subprocess.run([programs.ROOT / "scripts" / "cluster-image", archive], check=True)
    cluster.load(archive)
    return archive


@pytest.fixture(scope="session")
def shipped(cluster: bed.Bed, combination: combinations.Combination) -> pathlib.Path:
    """Return what is applied: `agent` and `uninstall` below it."""
    directory = cluster.shape.state / "overlay-of-the-test"
    overlay.write(directory, engine=combination.flag)
    return directory


class Kept:
    """Agents that stay from one file of tests to the next, as long as these can do with the same."""

    def __init__(self, applied: deployment.Deployment, mode: str) -> None:
        """Apply nothing yet."""
        self._applied = applied
        self._mode = mode
        self._here = False

    def here(self) -> deployment.Deployment:
        """Have them."""
        if not self._here:
            self._here = True
            self._applied.apply()
            assert self._applied.modes() == {self._mode}
        return self._applied

    def away(self) -> None:
        """Have none, and nothing of theirs in force."""
        if self._here:
            self._applied.delete()
            self._applied.uninstall()
            self._here = False


@pytest.fixture(scope="session")
def kept(
    cluster: bed.Bed, image: pathlib.Path, shipped: pathlib.Path, combination: combinations.Combination
) -> Iterator[Kept]:
    assert image.exists()
    agents = Kept(deployment.Deployment(cluster, overlay=shipped), combination.mode)
    yield agents
    agents.away()


@pytest.fixture(scope="module")
def deployed(kept: Kept) -> deployment.Deployment:
    """Deploy the agents for tests that leave them as they are, which other files share."""
    return kept.here()


@pytest.fixture
def bare(kept: Kept, cluster: bed.Bed) -> bed.Bed:
    """Return the cluster without agents."""
    kept.away()
    return cluster


@pytest.fixture
def agents(
    bare: bed.Bed, shipped: pathlib.Path, combination: combinations.Combination
) -> Iterator[deployment.Deployment]:
    """Deploy the agents for a test of its own, as users do; uninstall them afterwards."""
    with deployment.Deployment(bare, overlay=shipped) as applied:
        assert applied.modes() == {combination.mode}
        yield applied
