"""Names by NFQUEUE and sets against real traffic: what a pod may reach once it has resolved it, and until when."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import subprocess
import time
from collections.abc import Iterator

import pytest

from agent import clock, desired
from agent.datapath.iptables import datapath as datapath_
from agent.datapath.iptables import names_learner, names_pairs, variant
from agent.fqdn import classes, history
from agent.model import fqdn, net
from tests.bpf import node as node_
from tests.bpf import states, traffic
from tests.bpf.dns import server
from tests.iptables import names_node

pytestmark = pytest.mark.root

PORT, OTHER = names_node.PORT, 5432
COUNT = 30
ENDPOINT = states.endpoint_of(0)
ADDRESS, LATER = names_node.FIRST, names_node.FIRST + 1000
SOON_S = 1


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """A node that enforces names, and a world outside with a resolver and a server on every address."""

    node: node_.Node
    datapath: datapath_.IptablesDatapath

    @property
    def pod(self) -> node_.Guest:
        """Whose egress is isolated."""
        return self.node.pods[0]

    def apply(self, state: desired.DesiredState) -> None:
        """Do what the reconciler does."""
        self.datapath.attach_links(states.sandboxes(self.node))
        self.datapath.learn_names(state)
        self.datapath.apply(state)
        self.datapath.settle()

    def learn(self, address: net.Address, left_s: int) -> None:
        """Have the pod know an address."""
        expires_ns = clock.SystemClock().boot_ns() + left_s * history.SECOND_NS
        self.datapath.replay({(ENDPOINT, address): (fqdn.Learned(names_node.CLASS, expires_ns),)})

    def reach(self, address: net.Address, port: int = PORT, pod: int = 0) -> int:
        """Have a pod connect; return the errno."""
        return self.node.pods[pod].run(traffic.connects(address, port))


@pytest.fixture(scope="module")
def running() -> Iterator[Scene]:
    with contextlib.ExitStack() as undo:
        node = undo.enter_context(node_.running(pods=2))
        node_.ip(f"route add 198.18.0.0/15 via {node.outside.address4}")
        node_.within(node.outside.namespace, lambda: node_.ip("route add local 198.18.0.0/15 dev lo"))
        learner = names_learner.Learner(history.Lifetimes(grace_s=0), clock.SystemClock().boot_ns)
        datapath = datapath_.IptablesDatapath(variant=variant.Variant.LEGACY, learner=learner)
        undo.callback(learner.ring.close)
        undo.callback(datapath.uninstall)
        report = datapath.open()
        if not report.learns_names:
            pytest.skip(f"this kernel holds no packets: {report.reasons}")
        for serves in (server.serves(), traffic.listens(PORT), traffic.listens(OTHER)):
            undo.enter_context(node.outside.started(serves))()
        yield Scene(node, datapath)


@pytest.fixture
def scene(running: Scene) -> Scene:
    """Return it with nothing learned that counts."""
    running.apply(desired.DesiredState())
    running.apply(names_node.state(running.node))
    return running


def test_what_was_resolved_is_reached_at_once_and_nothing_else(scene: Scene) -> None:
    """F8, F9, F15: another port, another pod, another address."""
    assert scene.reach(ADDRESS) == errno.ECONNREFUSED
    assert scene.pod.run(names_node.resolves(scene.node.outside.address4, COUNT)) == COUNT
    assert [scene.reach(ADDRESS + index) for index in range(COUNT)] == [0] * COUNT
    assert scene.reach(ADDRESS, OTHER) == errno.ECONNREFUSED
    assert scene.reach(LATER) == errno.ECONNREFUSED
    state = names_node.state(scene.node)
    both = {number: dataclasses.replace(each, egress_set=states.EGRESS_SET) for number, each in state.endpoints.items()}
    scene.apply(dataclasses.replace(state, endpoints=both))
    assert (scene.reach(ADDRESS), scene.reach(ADDRESS, pod=1)) == (0, errno.ECONNREFUSED)


def test_a_flow_that_is_open_outlives_its_name(scene: Scene) -> None:
    """F16, F17; datagrams: tests/system/names."""
    address = ADDRESS + 2000
    scene.learn(address, SOON_S)
    with scene.pod.started(names_node.sends(address, PORT, 3 * SOON_S)) as result:
        time.sleep(2 * SOON_S)
        assert scene.reach(address) == errno.ECONNREFUSED
        assert result() == 0


def test_ranks_decide_between_names_and_addresses(scene: Scene) -> None:
    """A denial of an address that is asked before the name holds, one that is asked after it does not."""
    world, first = names_node.ROWS, {}
    for rank, outcome in ((0, errno.ECONNREFUSED), (5, 0)):
        first = {desired.RowKey(400, 0, 0, 0): desired.Row(states.DENY, states.RULE + 2, rank)}
        state = dataclasses.replace(
            names_node.state(scene.node, {**world, **first}),
            cidrs={ipaddress.ip_network("198.18.1.0/24"): names_node.IDENTITY},
        )
        scene.apply(state)
        denied, other = ipaddress.ip_address("198.18.1.7"), ipaddress.ip_address("198.18.2.7")
        scene.learn(denied, 60)
        scene.learn(other, 60)
        assert (scene.reach(denied), scene.reach(other)) == (outcome, 0)


def test_policies_that_come_and_go_keep_what_is_learned(scene: Scene) -> None:
    """F26: another policy, then the first one again; sets that no rule names are gone meanwhile."""
    scene.learn(ADDRESS + 5, 60)
    assert scene.reach(ADDRESS + 5) == 0
    without = dataclasses.replace(names_node.state(scene.node, {}), names=classes.Classes())
    scene.apply(without)
    assert scene.reach(ADDRESS + 5) == errno.ECONNREFUSED
    assert not any(map(names_pairs.pair_of, _sets()))
    scene.apply(names_node.state(scene.node))
    assert scene.reach(ADDRESS + 5) == 0


def test_repair_finds_nothing_to_repair_while_names_are_learned(scene: Scene) -> None:
    scene.learn(ADDRESS + 6, 60)
    for _ in range(5):
        assert scene.datapath.repair() == ()


def _sets() -> list[str]:
    return subprocess.run(["ipset", "list", "-n"], check=True, capture_output=True, text=True).stdout.split()
