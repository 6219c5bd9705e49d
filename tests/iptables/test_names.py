"""Egress by name where iptables judges packets: rules that ask BPF programs, against real traffic, both variants."""

from __future__ import annotations

import dataclasses
import errno
import os
import pathlib
from collections.abc import Iterator

import pytest

from agent import desired
from agent.datapath import engines, judge, lookups, probe, tracing
from agent.datapath.bpf import layout, names_filter, syscalls
from agent.datapath.iptables import asked, commands, ruleset
from agent.model import identity, net
from tests.bpf import by_name, packets, states, test_names_enforced, traffic
from tests.bpf import learned as learned_
from tests.bpf import node as node_
from tests.bpf.dns import server

pytestmark = pytest.mark.root

BPFFS = pathlib.Path("/sys/fs/bpf")
PORT, OTHER = 8080, 9090
CLASS, RULE = identity.FIRST_NAME_CLASS + 9, 7002
POD = states.endpoint_of(0)
BY_SOCKET, BY_PACKET = errno.EACCES, errno.ECONNREFUSED
FAMILIES = pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])


@dataclasses.dataclass(frozen=True, slots=True)
class Rig:
    """A node whose sockets are judged by BPF, and its packets by iptables."""

    node: node_.Node
    running: engines.Running
    variant: commands.Variant
    home: engines.Home

    def apply(self, state: desired.DesiredState) -> None:
        """Do what the reconciler does."""
        self.running.datapath.attach_links(by_name.sandboxes(self.node))
        self.running.datapath.apply(state)
        self.running.datapath.settle()

    @property
    def pod(self) -> node_.Guest:
        """The pod that may reach others by name."""
        return self.node.pods[0]

    @property
    def unseen(self) -> node_.Guest:
        """The same, for processes that are in no cgroup of the node's: no socket program judges them."""
        return dataclasses.replace(self.pod, cgroup=probe.cgroup_root(None))

    def saved(self, table: ruleset.Table, family: net.Family = net.Family.IPV4) -> str:
        """Return a table as text."""
        return commands.save(family, self.variant, table)


def _home(node: node_.Node) -> engines.Home:
    return engines.Home(node=f"names-{os.getpid()}", bpffs=BPFFS, cgroup_root=node.cgroup)


@pytest.fixture(scope="module", params=tuple(commands.Variant), ids=lambda which: which.value)
def running(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with node_.running() as node:
        home = _home(node)
        try:
            which = engines.Iptables(request.param.value)
            found = engines.start(engines.Engine.SOCKET_IPTABLES, which, home, tell=str)
            yield Rig(node, found, request.param, home)
            found.datapath.close()
        finally:
            engines.uninstall(engines.Engine.SOCKET_IPTABLES, home)


@pytest.fixture
def rig(running: Rig) -> Rig:
    running.apply(desired.DesiredState())
    return running


@pytest.fixture
def learned(rig: Rig) -> Iterator[learned_.Learned]:
    with syscalls.owned(syscalls.open_pin(_pins(rig) / "fqdn_learned")) as descriptor:
        known = learned_.Learned(descriptor)
        known.clear()
        yield known


def _pins(rig: Rig) -> pathlib.Path:
    return rig.home.bpffs / "nodewall" / rig.home.node / f"v{layout.ABI}"


def _by_name(rig: Rig, *, rank: int = 0, denied: desired.Row | None = None) -> desired.DesiredState:
    """Isolate the first pod for egress; a name opens PORT by TCP and UDP. `denied`: what a row says of the world."""
    state = states.pods(rig.node, egress={})
    rows = {
        desired.RowKey(CLASS, protocol, PORT, 16): desired.Row(desired.Action.ALLOW, RULE, rank)
        for protocol in (states.TCP, states.UDP)
    }
    if denied is not None:
        rows[desired.RowKey(identity.WORLD, desired.ANY_PROTOCOL, 0, 0)] = denied
    named = dataclasses.replace(state.sets[states.EGRESS_SET], rows=rows)
    return dataclasses.replace(state, sets={**state.sets, named.id: named})


def test_the_engine_says_that_it_learns_names(rig: Rig) -> None:
    assert rig.running.report.learns_names
    assert rig.running.report.mode == "socket+iptables"
    assert rig.running.datapath.missing() == ()


@FAMILIES
def test_an_address_opens_to_packets_when_it_is_learned_and_closes_when_it_expires(
    rig: Rig, learned: learned_.Learned, family: int
) -> None:
    """F15, F16: for both layers, and for a process that only the packet layer sees."""
    outside = rig.node.outside
    target = node_.addresses(outside)[family]
    rig.apply(_by_name(rig))
    with outside.started(traffic.listens(PORT)) as ready, outside.started(traffic.listens(OTHER)) as also:
        ready(), also()
        for process, denied in ((rig.pod, BY_SOCKET), (rig.unseen, BY_PACKET)):
            learned.clear()
            assert process.run(traffic.connects(target, PORT)) == denied
            learned.put(POD, target, {CLASS: learned_.VALID_S})
            assert process.run(traffic.connects(target, PORT)) == 0
            assert process.run(traffic.asks(target, PORT)) == 0
            assert process.run(traffic.connects(target, OTHER)) == denied
            learned.put(POD, target, {CLASS: learned_.EXPIRED_S})
            assert process.run(traffic.connects(target, PORT)) == denied
        neighbour = dataclasses.replace(rig.node.pods[1], cgroup=rig.unseen.cgroup)
        assert neighbour.run(traffic.connects(target, OTHER)) == 0, "no policy selects it"


def test_what_denies_first_is_not_opened_by_a_name(rig: Rig, learned: learned_.Learned) -> None:
    """The one decision in names.h: by ranks, and by Passes of the Admin tier."""
    outside = rig.node.outside
    learned.put(POD, outside.address4, {CLASS: learned_.VALID_S})
    deny = desired.Action.DENY
    with outside.started(traffic.listens(PORT)) as ready:
        ready()
        for denied, outcome in (
            (desired.Row(deny, 7003, rank=4), BY_PACKET),
            (desired.Row(deny, 7003, rank=6), 0),
            (desired.Row(deny, 7003, rank=6, passed=4), BY_PACKET),
            (desired.Row(deny, 7003, rank=6, passed=5), BY_PACKET),
        ):
            rig.apply(_by_name(rig, rank=5, denied=denied))
            assert rig.unseen.run(traffic.connects(outside.address4, PORT)) == outcome, denied


def test_an_established_connection_outlives_its_name_but_not_its_rule(rig: Rig, learned: learned_.Learned) -> None:
    """F17, F27."""
    outside = rig.node.outside
    target = outside.address4
    rig.apply(_by_name(rig))
    learned.put(POD, target, {CLASS: learned_.VALID_S})
    with (
        outside.started(test_names_enforced._echoes(PORT)) as ready,
        test_names_enforced._talking(rig.unseen, test_names_enforced._streams(target)) as talk,
    ):
        ready()
        assert talk() == 0
        learned.put(POD, target, {CLASS: learned_.EXPIRED_S})
        assert talk() == 0
        assert rig.unseen.run(traffic.connects(target, PORT)) == BY_PACKET
        assert learned.used_ns(POD, target) > 0
        rig.apply(states.pods(rig.node, egress={}))
        assert talk() == errno.ETIMEDOUT


def test_datagrams_outlive_their_name_until_there_is_none_for_a_minute(rig: Rig, learned: learned_.Learned) -> None:
    """F18."""
    outside = rig.node.outside
    rig.apply(_by_name(rig))
    learned.put(POD, outside.address4, {CLASS: learned_.VALID_S})
    with (
        outside.started(traffic.listens(PORT)) as ready,
        test_names_enforced._talking(
            rig.unseen, test_names_enforced._datagrams(outside.address4, connected=False)
        ) as talk,
    ):
        ready()
        assert talk() == 0
        learned.put(POD, outside.address4, {CLASS: learned_.EXPIRED_S}, datagrams_until_s=2)
        assert talk() == 0
        learned.put(POD, outside.address4, {CLASS: learned_.EXPIRED_S}, datagrams_until_s=-1)
        assert talk() in {errno.ETIMEDOUT, errno.EHOSTUNREACH}


def test_what_dns_says_is_learned_and_open_at_once(rig: Rig) -> None:
    """F15, by the learner at the veth."""
    names = by_name.build(f"*.{by_name.ZONE}")
    rig.apply(by_name.state(rig.node, names))
    outside = rig.node.outside
    with outside.started(server.serves()) as resolver, outside.started(traffic.listens(by_name.PORT)) as ready:
        resolver(), ready()
        assert rig.unseen.run(traffic.connects(outside.address4, by_name.PORT)) == BY_PACKET
        assert rig.pod.run(by_name.resolves(outside.address4, by_name.name_of(rig.node)))
        assert rig.pod.run(traffic.connects(outside.address4, by_name.PORT)) == 0
        assert rig.unseen.run(traffic.connects(outside.address4, by_name.PORT)) == 0
    assert rig.running.datapath.known().used


def test_a_forged_packet_is_no_other_pod_s(rig: Rig, learned: learned_.Learned) -> None:
    """F9: what one pod learned opens nothing to another that is isolated, too."""
    first, second = rig.node.pods
    state = _by_name(rig)
    numbers = {states.endpoint_of(index) for index in range(2)}
    alike = {
        number: dataclasses.replace(one, egress_set=states.EGRESS_SET) if number in numbers else one
        for number, one in state.endpoints.items()
    }
    rig.apply(dataclasses.replace(state, endpoints=alike))
    target = rig.node.outside.address4
    learned.put(POD, target, {CLASS: learned_.VALID_S})
    with rig.node.outside.started(traffic.listens(PORT)) as ready:
        ready()
        outcomes = [
            dataclasses.replace(pod, cgroup=rig.unseen.cgroup).run(traffic.connects(target, PORT))
            for pod in (first, second)
        ]
    assert outcomes == [0, BY_PACKET]


def test_rules_that_others_change_are_put_back(rig: Rig) -> None:
    rig.apply(_by_name(rig))
    before = rig.saved(ruleset.Table.MANGLE)
    assert all(before.count(f"/{name} ") == 1 for name in names_filter.PROGRAMS)
    commands.restore(net.Family.IPV4, rig.variant, "*mangle\n-F NW-NAMES-FROM\n-F FORWARD\nCOMMIT\n")
    lines = rig.running.datapath.repair()
    assert any("NW-NAMES-FROM" in line for line in lines)
    assert _rules(rig.saved(ruleset.Table.MANGLE)) == _rules(before)


def test_nothing_is_asked_where_no_policy_has_names(rig: Rig) -> None:
    rig.apply(_by_name(rig))
    assert "NW-" in rig.saved(ruleset.Table.MANGLE, net.Family.IPV6)
    rig.apply(states.pods(rig.node, egress={}))
    assert all("NW-" not in rig.saved(ruleset.Table.MANGLE, family) for family in net.Family)


def test_a_trace_follows_what_the_name_opens(rig: Rig, learned: learned_.Learned) -> None:
    state = _by_name(rig)
    rig.apply(state)
    target = rig.node.outside.address4
    flow = judge.Flow(client=rig.pod.address4, server=target, protocol=states.TCP, port=PORT)
    question = tracing.Question(flow=flow, hook=judge.Hook.FORWARD, netns_cookie=rig.pod.cookie)
    for left_s, allowed in ((learned_.EXPIRED_S, False), (learned_.VALID_S, True)):
        learned.put(POD, target, {CLASS: left_s})
        loaded = rig.running.datapath.loaded()
        try:
            for layer in loaded.trace(question, state):
                assert (layer.compiled.allowed, layer.loaded.allowed) == (allowed, allowed)
                assert layer.differences == ()
        finally:
            loaded.close()


def test_a_logged_packet_is_told_with_the_rule_that_names_it(rig: Rig, learned: learned_.Learned) -> None:
    state = _by_name(rig)
    rig.apply(state)
    target = rig.node.outside.address4
    source = rig.running.open_source(str)
    assert source is not None
    try:
        source.reader.read()
        for left_s in (learned_.EXPIRED_S, learned_.VALID_S):
            learned.put(POD, target, {CLASS: left_s})
            raw = packets.udp(rig.pod.address4, target, PORT, sport=2000 + round(left_s))
            rig.pod.run(traffic.sends_raw(raw, ethertype=packets.ethertype(target), to=rig.pod.mac))
        told = [event for event in source.reader.read() if event.endpoint == POD and event.direction == 2]
    finally:
        source.reader.close()
    assert {(event.verdict, event.rule) for event in told} == {
        (test_names_enforced.DROPPED, 0),
        (test_names_enforced.FORWARDED, RULE),
    }


def test_both_sides_name_the_same_programs() -> None:
    assert asked.PROGRAMS == names_filter.PROGRAMS
    assert lookups.nothing_learned(POD, node_.OUTSIDE4) == ()


def _rules(saved: str) -> list[str]:
    return [line for line in saved.splitlines() if line.startswith("-A NW-") or "-j NW-" in line]
