"""A node with an open iptables engine, of each variant in turn, removed without a trace afterwards."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Callable, Iterator

import pytest

from agent import desired
from agent.datapath.iptables import commands, ruleset, variant
from agent.datapath.iptables import datapath as datapath_
from agent.model import net
from tests.bpf import node as node_
from tests.bpf import states


@dataclasses.dataclass(frozen=True, slots=True)
class Rig:
    """A node and its open datapath."""

    node: node_.Node
    datapath: datapath_.IptablesDatapath
    variant: variant.Variant

    def apply(self, state: desired.DesiredState) -> None:
        """Do what the reconciler does."""
        self.datapath.attach_links(states.sandboxes(self.node))
        self.datapath.apply(state)
        self.datapath.settle()

    def foreign(self, *arguments: str, family: net.Family = net.Family.IPV4) -> None:
        """Write to the tables as somebody else does."""
        command = f"{commands.PREFIXES[family]}-{self.variant.value}"
        subprocess.run([command, "-w", *arguments], check=True, capture_output=True)

    def saved(self, family: net.Family = net.Family.IPV4) -> str:
        """Return our three tables as text."""
        return "".join(commands.save(family, self.variant, table) for table in ruleset.Table)


@pytest.fixture(scope="module", params=tuple(variant.Variant), ids=lambda which: which.value)
def running(request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Open a datapath on a node with two routed pods and an outside host."""
    with node_.running() as node:
        datapath = datapath_.IptablesDatapath(variant=request.param)
        try:
            datapath.open()
            yield Rig(node, datapath, request.param)
        finally:
            datapath.uninstall()


@pytest.fixture
def rig(running: Rig) -> Rig:
    """Return it with nothing enforced."""
    running.datapath.repair()
    running.apply(desired.DesiredState())
    return running


@pytest.fixture
def successor(rig: Rig) -> Iterator[Callable[[], Rig]]:
    """Return what makes the agent that comes after the rig's own, on the same node."""
    made = []

    def make() -> Rig:
        datapath = datapath_.IptablesDatapath(variant=rig.variant)
        datapath.open()
        made.append(datapath)
        return dataclasses.replace(rig, datapath=datapath)

    yield make
    for datapath in made:
        datapath.close()
