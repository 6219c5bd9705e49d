"""One cluster and one image for all tests here; they run when `make test-cluster` asks for them.

NODEWALL_CLUSTER_SHAPE is `CNI+PROXY`, ptp+iptables unless told; NODEWALL_CLUSTER_ENGINE an engine of the agent, auto
unless told. NODEWALL_IMAGE is an archive of the image; without it the image is built.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster import bed, deployment, overlay, programs, settings

ASKED = "NODEWALL_TEST_CLUSTER"


@pytest.fixture(scope="session")
def cluster() -> Iterator[bed.Bed]:
    if os.environ.get(ASKED) != "1":
        pytest.skip("make test-cluster runs these")
    cni, _, proxy = os.environ.get("NODEWALL_CLUSTER_SHAPE", "ptp+iptables").partition("+")
    shape = settings.Shape(name="nwct", cni=settings.Cni(cni), proxy=settings.Proxy(proxy))
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
def shipped(cluster: bed.Bed) -> pathlib.Path:
    """Return what is applied: `agent` and `uninstall` below it."""
    directory = cluster.shape.state / "overlay-of-the-test"
    overlay.write(directory, engine=os.environ.get("NODEWALL_CLUSTER_ENGINE", overlay.AUTO))
    return directory


@pytest.fixture
def agents(cluster: bed.Bed, image: pathlib.Path, shipped: pathlib.Path) -> Iterator[deployment.Deployment]:
    """Deploy the agents as users do; uninstall them afterwards."""
    assert image.exists()
    deployed = deployment.Deployment(cluster, overlay=shipped)
    deployed.apply()
    yield deployed
    deployed.delete()
    deployed.uninstall()
