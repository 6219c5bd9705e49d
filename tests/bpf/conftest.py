"""A node with an open datapath, removed without a trace afterwards."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from agent import desired
from agent.datapath import probe
from agent.datapath.bpf import datapath as datapath_
from agent.datapath.bpf import events, layout
from tests.bpf import by_name, traffic
from tests.bpf import node as node_
from tests.bpf.dns import server
from tests.support import kernel

BPFFS = pathlib.Path("/sys/fs/bpf")


@dataclasses.dataclass(frozen=True, slots=True)
class Rig:
    """A node, its open datapath and the reader of its verdicts."""

    node: node_.Node
    datapath: datapath_.BPFDatapath
    reader: events.EventReader

    def verdicts(self) -> list[layout.RawEvent]:
        """Return the verdicts since the last call."""
        return self.reader.read()


@pytest.fixture(autouse=True)
def packet_layer(request: pytest.FixtureRequest) -> None:
    """Skip what uses the kernel where it cannot have the packet layer."""
    lacking = kernel.lacks_packet_layer()
    if lacking and request.node.get_closest_marker("root"):
        pytest.skip(lacking)


@pytest.fixture(scope="session")
def bpffs() -> pathlib.Path:
    """Return a directory on a bpffs, mounting one where the machine has none."""
    if not os.path.ismount(BPFFS):
        subprocess.run(["mount", "-t", "bpf", "bpf", str(BPFFS)], check=True)
    probe.require_bpffs(BPFFS)
    return BPFFS


@pytest.fixture(scope="module")
def routed_rig(bpffs: pathlib.Path) -> Iterator[Rig]:
    """Open a datapath on a node with two routed pods and an outside host; compiling once a module is enough."""
    with node_.running() as node:
        yield from _rig(node, bpffs)


@pytest.fixture(scope="module")
def bridged_rig(bpffs: pathlib.Path) -> Iterator[Rig]:
    """Open a datapath on a node whose two pods hang on a bridge."""
    with node_.running(bridge=True) as node:
        yield from _rig(node, bpffs)


@pytest.fixture
def rig(routed_rig: Rig) -> Rig:
    """Return the routed node with nothing enforced and no verdict unread."""
    return _fresh(routed_rig)


@pytest.fixture
def bridged(bridged_rig: Rig) -> Rig:
    """Return the bridged node likewise."""
    return _fresh(bridged_rig)


@pytest.fixture
def successor(rig: Rig, bpffs: pathlib.Path) -> Callable[[], datapath_.BPFDatapath]:
    """Return what makes the agent that comes after the rig's own, on the same node."""
    return lambda: _datapath(rig.node, bpffs)


def _datapath(node: node_.Node, bpffs: pathlib.Path) -> datapath_.BPFDatapath:
    return datapath_.BPFDatapath(node=f"test-{os.getpid()}", bpffs=bpffs, cgroup_root=node.cgroup)


def _fresh(rig: Rig) -> Rig:
    rig.datapath.apply(desired.DesiredState())
    while rig.verdicts():
        pass
    return rig


def _rig(node: node_.Node, bpffs: pathlib.Path) -> Iterator[Rig]:
    datapath = _datapath(node, bpffs)
    try:
        datapath.open()
        reader = events.EventReader(datapath.events_path)
        yield Rig(node, datapath, reader)
        reader.close()
    finally:
        datapath.uninstall()


@pytest.fixture
def learning(rig: Rig) -> Iterator[Rig]:
    """Have the learner at both pods, a resolver outside, and nothing learned."""
    rig.datapath.attach_links(by_name.sandboxes(rig.node))
    with (
        rig.node.outside.started(server.serves()) as resolver,
        rig.node.outside.started(traffic.listens(by_name.PORT)) as ready,
    ):
        assert (resolver(), ready()) == ("listens", "listens")
        yield rig
    rig.datapath.attach_links(())
