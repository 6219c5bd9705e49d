"""The datapath lets pods ask for some names only: from the flip on, and nowhere that nobody reads what they ask."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import multiprocessing
import multiprocessing.synchronize
import pathlib
import socket
from collections.abc import Callable, Iterator

import pytest

from agent import desired
from agent.datapath import base, plan
from agent.datapath.bpf import datapath as datapath_
from agent.datapath.bpf import fqdn_answers, fqdn_layout, rows, syscalls
from agent.fqdn import classes
from agent.model import fqdn, identity, net
from tests.bpf import by_name, conftest, packets, states, traffic
from tests.bpf import node as node_
from tests.bpf.dns import server, wire

pytestmark = pytest.mark.root

FILTER, OTHER_FILTER = 0x0F117E50, 0x0F117E51
STARRED, OTHER_ZONE = f"*.{by_name.ZONE}", "static.example.net"
NO_ERROR, REFUSED, NO_SUCH_NAME = 0, 5, 3
FLIPS = 12


@pytest.fixture
def filtering(rig: conftest.Rig) -> Iterator[conftest.Rig]:
    """Have the programs at both pods, and a resolver outside."""
    rig.datapath.attach_links(by_name.sandboxes(rig.node))
    with rig.node.outside.started(server.serves()) as resolver:
        assert resolver() == "listens"
        yield rig
    rig.datapath.attach_links(())


def _restricted(node: node_.Node, *admitted: str, number: int = FILTER) -> desired.DesiredState:
    """Let the first pod ask the outside host for names of these patterns; what is learned opens nothing."""
    names = by_name.build(*admitted)
    state = by_name.state(node, names)
    key = desired.RowKey(identity.WORLD, states.UDP, wire.PORT, 16)
    rows = {key: desired.Row(states.ALLOW, states.RULE, asks=number)}
    old = state.sets[states.EGRESS_SET]
    new = dataclasses.replace(old, id=number, rows=rows)
    pod = states.endpoint_of(0)
    subject = dataclasses.replace(state.endpoints[pod], egress_set=new.id)
    return dataclasses.replace(
        state,
        sets={new.id: new},
        endpoints={**state.endpoints, pod: subject},
        filters={number: _classes_with(names)},
    )


def _classes_with(names: classes.Classes) -> frozenset[int]:
    return frozenset(names.contents)


def _asks(resolver: net.Address, *names: str) -> Callable[[], list[int]]:
    """Ask for each name; answer with the response codes."""

    def action() -> list[int]:
        with socket.socket(traffic.family(resolver), socket.SOCK_DGRAM) as client:
            client.settimeout(by_name.PATIENCE_S)
            client.connect((str(resolver), wire.PORT))
            codes = []
            for number, name in enumerate(names):
                client.send(wire.query(name, number=number))
                codes.append(client.recv(4096)[3] & 0xF)
            return codes

    return action


def _named(rig: conftest.Rig, *zones: str) -> list[str]:
    return [by_name.name_of(rig.node, zone) for zone in zones]


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_a_pod_resolves_what_it_may_ask_for_and_is_refused_the_rest(filtering: conftest.Rig, family: int) -> None:
    """Another pod, which no policy selects, asks for what it likes."""
    resolver = node_.addresses(filtering.node.outside)[family]
    ask = _asks(resolver, *_named(filtering, by_name.ZONE, OTHER_ZONE))
    filtering.datapath.apply(_restricted(filtering.node, STARRED))
    assert filtering.node.pods[0].run(ask) == [NO_ERROR, REFUSED]
    assert filtering.node.pods[1].run(ask) == [NO_ERROR, NO_ERROR]
    assert _looked_for(filtering)
    filtering.datapath.apply(by_name.state(filtering.node, by_name.build(STARRED)))
    assert filtering.node.pods[0].run(ask) == [NO_ERROR, NO_ERROR]
    filtering.datapath.settle()
    assert not _looked_for(filtering), "who has no filter pays for none"


def _looked_for(rig: conftest.Rig) -> bool:
    """Tell whether the programs look for filters."""
    with syscalls.owned(syscalls.open_pin(rig.datapath.answers_path.with_name("fqdn_config"))) as config:
        raw = rows.lookup(config, bytes(4), fqdn_layout.CONFIG.size)
    return bool(fqdn_layout.CONFIG.unpack(raw or b"")[fqdn_layout.FILTERS_WORD])


def test_a_stream_is_denied_where_the_process_asks_for_it(filtering: conftest.Rig) -> None:
    """Rows of a filter are of UDP alone."""
    filtering.datapath.apply(_restricted(filtering.node, STARRED))
    connect = traffic.connects(filtering.node.outside.address4, wire.PORT)
    assert filtering.node.pods[0].run(connect) == errno.EACCES


def test_a_refusal_is_counted_and_told(filtering: conftest.Rig) -> None:
    filtering.datapath.apply(_restricted(filtering.node, STARRED))
    before = filtering.datapath.counters()["dns_refused"]
    with contextlib.closing(fqdn_answers.AnswerReader(filtering.datapath.answers_path)) as ring:
        while ring.read():
            pass
        filtering.node.pods[0].run(_asks(filtering.node.outside.address4, "www.example.org"))
        (record,) = ring.read()
    assert (record.outcome, record.endpoint) == (base.Outcome.REFUSED, states.endpoint_of(0))
    assert (record.policy_set, record.rule, record.resolver) == (FILTER, states.RULE, filtering.node.outside.address4)
    assert filtering.datapath.counters()["dns_refused"] == before + 1


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_where_nobody_reads_what_is_asked_nothing_may_be_asked(filtering: conftest.Rig, family: int) -> None:
    """Never wider: neither layer lets through what the program at the veth would have to look at."""
    pod, resolver = filtering.node.pods[0], node_.addresses(filtering.node.outside)[family]
    state = _restricted(filtering.node, STARRED)
    (name,) = _named(filtering, by_name.ZONE)
    filtering.datapath.attach_links(by_name.sandboxes(filtering.node)[1:])
    filtering.datapath.apply(state)
    with pytest.raises(OSError, match=r"ermission denied|not permitted"):
        pod.run(_asks(resolver, name))
    filtering.verdicts()
    own = node_.addresses(pod)[family]
    raw = packets.udp(own, resolver, wire.PORT, payload=wire.query(name))
    pod.run(traffic.sends_raw(raw, ethertype=packets.ethertype(own), to=pod.mac))
    told = [(event.verdict, event.rule) for event in filtering.verdicts() if event.endpoint == states.endpoint_of(0)]
    assert told == [(2, 0)]
    filtering.datapath.attach_links(by_name.sandboxes(filtering.node))
    filtering.datapath.apply(state)
    assert pod.run(_asks(resolver, name)) == [NO_ERROR]


def _asks_until(
    stop: multiprocessing.synchronize.Event, resolver: net.Address, always: str, never: str
) -> Callable[[], tuple[int, int, int]]:
    """Ask for both by turns; answer how often, how often the first was refused, and how often the second was not."""

    def action() -> tuple[int, int, int]:
        asked = refused = let_through = 0
        while not stop.is_set():
            first, second = _asks(resolver, always, never)()
            asked += 1
            refused += first != NO_ERROR
            let_through += second != REFUSED
        return asked, refused, let_through

    return action


def test_no_query_falls_between_two_filters(filtering: conftest.Rig) -> None:
    """What both admit passes at every moment, whatever its class is called; what neither does at none."""
    node = filtering.node
    always, never = _named(filtering, by_name.ZONE, "example.org")
    stop = multiprocessing.Event()
    pair = (
        _restricted(node, STARRED, number=FILTER),
        _restricted(node, STARRED, f"a-*.{by_name.ZONE}", f"*.{OTHER_ZONE}", number=OTHER_FILTER),
    )
    filtering.datapath.apply(pair[0])
    with node.pods[0].started(_asks_until(stop, node.outside.address4, always, never)) as counted:
        for turn in range(1, FLIPS + 1):
            filtering.datapath.apply(pair[turn & 1])
            filtering.datapath.settle()
        stop.set()
        asked, refused, let_through = counted()
    assert asked > FLIPS
    assert (refused, let_through) == (0, 0)


def test_a_change_of_classes_alone_refuses_nobody_after_any_of_its_steps(
    filtering: conftest.Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same filter, whose name gets another class by a pattern that nobody here may ask for: no flip, only rows."""
    node, datapath = filtering.node, filtering.datapath
    ask = _asks(node.outside.address4, *_named(filtering, by_name.ZONE, "example.org"))
    plain = _restricted(node, STARRED)
    finer = by_name.build(STARRED, by_name.name_of(node))
    admitted = frozenset(
        number for number, content in finer.contents.items() if STARRED in {pattern.text for pattern in content}
    )
    datapath.apply(plain)
    datapath.settle()
    write, codes = datapath._write, []

    def write_and_ask(step: plan.Step) -> None:
        write(step)
        codes.append((step.name, node.pods[0].run(ask)))

    monkeypatch.setattr(datapath, "_write", write_and_ask)
    for state in (dataclasses.replace(plain, names=finer, filters={FILTER: admitted}), plain):
        datapath.apply(state)
        datapath.settle()
    assert codes == [("rows", [NO_ERROR, REFUSED]), ("mend", [NO_ERROR, REFUSED])]


def test_the_agent_that_comes_after_says_how_to_refuse(
    filtering: conftest.Rig, bpffs: pathlib.Path, successor: Callable[[], datapath_.BPFDatapath]
) -> None:
    """--dns-reject; what is refused is refused meanwhile, too."""
    state, ask = _restricted(filtering.node, STARRED), _asks(filtering.node.outside.address4, "www.example.org")
    filtering.datapath.apply(state)
    filtering.datapath.settle()
    home = filtering.datapath._home
    following = datapath_.BPFDatapath(
        node=home.name, bpffs=bpffs, cgroup_root=filtering.node.cgroup, reject=fqdn.Reject.NAME_ERROR
    )
    try:
        assert following.open().filters_queries
        assert filtering.node.pods[0].run(ask) == [NO_SUCH_NAME]
    finally:
        following.close()
    last = successor()
    try:
        last.open()
        assert filtering.node.pods[0].run(ask) == [REFUSED]
    finally:
        last.close()
