"""The learner of names by NFQUEUE against real packets: before the answer is there, both families, UDP and TCP."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import subprocess
from collections.abc import Iterator

import pytest

from agent import clock, errors
from agent.datapath.iptables import datapath as datapath_
from agent.datapath.iptables import names_learner, names_pairs, names_queue, variant
from agent.fqdn import classes, history
from agent.model import fqdn, net
from tests.bpf import node as node_
from tests.bpf import states
from tests.bpf.dns import server
from tests.iptables import names_node

pytestmark = pytest.mark.root

COUNT = 50
ENDPOINT = states.endpoint_of(0)
PAIR = names_pairs.Pair(ENDPOINT, names_node.CLASS, net.Family.IPV4)


@dataclasses.dataclass(frozen=True, slots=True)
class Scene:
    """A node that holds DNS, and counts datagrams to addresses that were not learned when they came."""

    node: node_.Node
    learner: names_learner.Learner

    def late(self) -> int:
        """Return how many came too early for the sets."""
        shown = _tool("iptables-legacy", "-t", "security", "-nvxL", "FORWARD")
        return int(re.findall(r"^\s*(\d+)\s+\d+\s+DROP", shown, re.MULTILINE)[0])


def _tool(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _learner() -> names_learner.Learner:
    return names_learner.Learner(history.Lifetimes(), clock.SystemClock().boot_ns)


def _hold() -> None:
    """Write rules as `names_rules` does, without sets of pods and resolvers."""
    for family in ("iptables-legacy", "ip6tables-legacy"):
        for protocol in ("udp", "tcp"):
            for option in ("--sport", "--dport"):
                hold = f"-p {protocol} {option} 53 -j NFQUEUE --queue-num {names_queue.QUEUE} --queue-bypass"
                _tool(family, "-t", "security", "-A", "FORWARD", *hold.split())


@pytest.fixture
def scene() -> Iterator[Scene]:
    with contextlib.ExitStack() as undo:
        node = undo.enter_context(node_.running(pods=1))
        node_.ip(f"route add 198.18.0.0/15 via {node.outside.address4}")
        learner = _learner()
        learner.open()
        undo.callback(learner.close)
        undo.callback(learner.ring.close)
        state = names_node.state(node)
        learner.stage(state)
        learner.mend(state)
        _hold()
        dropped = f"-d 198.18.0.0/15 -m set ! --match-set {PAIR.fresh} dst -j DROP"
        _tool("iptables-legacy", "-t", "security", "-A", "FORWARD", *dropped.split())
        ready = undo.enter_context(node.outside.started(server.serves()))
        assert ready() == "listens"
        yield Scene(node, learner)


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_an_address_is_in_the_set_before_the_answer_is_there(scene: Scene, family: int, *, tcp: bool) -> None:
    """F15."""
    resolver = node_.addresses(scene.node.outside)[family]
    assert scene.node.pods[0].run(names_node.resolves(resolver, COUNT, tcp=tcp)) == COUNT
    assert scene.late() == 0
    assert len(scene.learner.known().addresses) == COUNT
    assert len(scene.learner.ring.read()) == COUNT
    counted = scene.learner.counters()
    assert (counted["dns_learned"], counted["dns_not_learned"], counted["dns_unasked"]) == (COUNT, 0, 0)


def test_without_a_reader_dns_goes_on_and_nothing_is_learned(scene: Scene) -> None:
    """F30."""
    scene.learner.close()
    assert scene.node.pods[0].run(names_node.resolves(scene.node.outside.address4, COUNT)) == COUNT
    assert scene.late() == COUNT
    assert _tool("ipset", "list", PAIR.fresh).rstrip().endswith("Members:")


def test_what_was_learned_is_known_to_the_next_agent(scene: Scene) -> None:
    """F25: with the time that is left; the sets are not touched."""
    scene.node.pods[0].run(names_node.resolves(scene.node.outside.address4, COUNT))
    before = scene.learner.known().addresses
    scene.learner.close()
    following = _learner()
    following.open()
    try:
        after = following.known().addresses
        assert after.keys() == before.keys()
        for place, (one,) in after.items():
            assert one.class_number == names_node.CLASS
            assert abs(one.expires_ns - before[place][0].expires_ns) < 3 * history.SECOND_NS
        following.stage(names_node.state(scene.node))
        assert scene.node.pods[0].run(names_node.resolves(scene.node.outside.address4, 1)) == 1
    finally:
        following.close()
        following.ring.close()


def test_sets_come_filled_with_what_is_known_and_go_when_no_rule_names_them(scene: Scene) -> None:
    """F26, F27: a class that another rule has from now on."""
    scene.node.pods[0].run(names_node.resolves(scene.node.outside.address4, 3))
    nothing = dataclasses.replace(names_node.state(scene.node, {}), names=classes.Classes())
    scene.learner.stage(nothing)
    scene.learner.mend(nothing)
    assert PAIR.fresh in _tool("ipset", "list", "-n"), "a rule names it still"
    _tool("iptables-legacy", "-t", "security", "-F", "FORWARD")
    scene.learner.mend(nothing)
    assert _tool("ipset", "list", "-n") == ""
    again = names_node.state(scene.node)
    assert scene.learner.stage(again) == {names_node.CLASS}
    assert _tool("ipset", "list", PAIR.fresh).count("198.18.0.") == 3
    assert _tool("ipset", "list", PAIR.kept).count("198.18.0.") == 3


def test_an_address_expires_in_the_kernel_and_is_kept_for_connections(scene: Scene) -> None:
    """F16, F17: and never sooner than it was said at first (F19)."""
    address, now_ns = names_node.FIRST, clock.SystemClock().boot_ns()
    for left_s in (0, 1, 300, 1):
        learned = fqdn.Learned(names_node.CLASS, now_ns + left_s * history.SECOND_NS)
        scene.learner.replay({(ENDPOINT, address + left_s): (learned,)})
    shown = _tool("ipset", "list", PAIR.fresh)
    assert f"{address} " not in shown
    assert re.search(rf"{address + 300} timeout (299|300)", shown)
    assert _tool("ipset", "list", PAIR.kept).count("198.18.") == 3


def test_a_second_reader_is_refused(scene: Scene) -> None:
    with pytest.raises(errors.DatapathError, match="is read by another process"):
        names_queue.Queue()
    assert scene.learner.alive


def test_where_packets_cannot_be_held_the_report_says_so() -> None:
    """The iptables of nftables needs nft_queue, which not every kernel has."""
    with node_.running(pods=0):
        learner = names_learner.Learner(history.Lifetimes(), clock.SystemClock().boot_ns)
        datapath = datapath_.IptablesDatapath(variant=variant.Variant.NFT, learner=learner)
        try:
            report = datapath.open()
            denied = [line for line in report.reasons if line.startswith("what is allowed by name is denied: ")]
            assert len(denied) == (not report.learns_names)
        finally:
            datapath.uninstall()
            learner.ring.close()
