"""Programs at veths that others take away are noticed, put back and told of; what is not ours is left alone."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest

from agent import desired, errors
from agent.datapath import judge, rtnetlink, tracing
from agent.datapath.bpf import datapath as datapath_
from agent.datapath.bpf import learner, syscalls, tc
from agent.datapath.bpf import links as links_
from agent.model import identity, net
from tests.bpf import by_name, conftest, states, test_tc, traffic
from tests.bpf import node as node_
from tests.bpf.dns import wire

pytestmark = pytest.mark.root

Answer = TypeVar("Answer")
FILTER = 0x0F117E50
PATIENCE_S = 10.0


@pytest.fixture
def node(rig: conftest.Rig) -> node_.Node:
    return rig.node


@pytest.fixture
def program() -> Iterator[int]:
    with test_tc.returning(test_tc.PASS) as found:
        yield found


@pytest.fixture
def filters() -> Iterator[tc.Clsact]:
    found = tc.Clsact()
    yield found
    found.close()
    tc.remove_filters(*tc.HOOKS)


@pytest.fixture
def pinned(bpffs: pathlib.Path) -> Iterator[tuple[tc.Tcx, pathlib.Path]]:
    pins = bpffs / f"nodewall-taken-{os.getpid()}"
    pins.mkdir()
    yield tc.Tcx(links_.Links(pins)), pins
    for pin in pins.iterdir():
        links_.remove(pin)
    pins.rmdir()


def by_tc(words: str) -> None:
    """Do what anybody may do to a veth."""
    subprocess.run(["tc", *words.split()], check=True, capture_output=True)


TAKEN: dict[str, Callable[[str], None]] = {
    "the qdisc": lambda veth: by_tc(f"qdisc del dev {veth} clsact"),
    "one side": lambda veth: by_tc(f"filter del dev {veth} ingress"),
    "one filter": lambda veth: by_tc(f"filter del dev {veth} ingress prio {tc.FIRST_PRIORITY + tc.DNS_QUERY.order}"),
}


@pytest.mark.parametrize("what", TAKEN)
def test_filters_that_others_delete_are_told_of_until_they_are_back(
    node: node_.Node, filters: tc.Clsact, program: int, what: str
) -> None:
    veths = [pod.ifindex for pod in node.pods]
    for veth in veths:
        for hook in (tc.DNS_QUERY, tc.DNS_ANSWER):
            filters.attach(hook, program, veth)
    assert filters.lost() == frozenset()
    TAKEN[what](socket.if_indextoname(veths[0]))
    both = {(tc.DNS_QUERY, veths[0]), (tc.DNS_ANSWER, veths[0])}
    gone = both if what == "the qdisc" else {(tc.DNS_QUERY, veths[0])}
    assert filters.lost() == gone
    assert filters.lost() == gone, "as long as nobody has put them back"
    assert not any(filters.stands(*place) for place in gone)
    for hook, veth in gone:
        filters.attach(hook, program, veth)
    assert filters.lost() == frozenset()
    assert all(filters.stands(hook, veth) for veth in veths for hook in (tc.DNS_QUERY, tc.DNS_ANSWER))


def test_an_agent_that_starts_looks_everywhere_once(node: node_.Node, filters: tc.Clsact, program: int) -> None:
    veth = node.pods[0].ifindex
    filters.attach(tc.DNS_QUERY, program, veth)
    by_tc(f"qdisc del dev {socket.if_indextoname(veth)} clsact")
    assert filters.lost() == {(tc.DNS_QUERY, veth)}, "though the kernel told of it before anybody listened"


def test_what_goes_with_its_interface_is_not_lost(filters: tc.Clsact, program: int) -> None:
    node_.ip("link add gone0 type veth peer name gone1")
    number = socket.if_nametoindex("gone0")
    filters.attach(tc.DNS_QUERY, program, number)
    assert filters.lost() == frozenset()
    node_.ip("link del gone0")
    assert filters.lost() == frozenset()
    filters.detach(tc.DNS_QUERY, number)


def test_filters_of_others_that_come_and_go_are_nothing_to_us(
    node: node_.Node, filters: tc.Clsact, program: int
) -> None:
    veth = node.pods[0].ifindex
    filters.attach(tc.DNS_QUERY, program, veth)
    assert filters.lost() == frozenset()
    name = socket.if_indextoname(veth)
    with rtnetlink.connection() as netlink:
        netlink.tc("add-filter", "bpf", veth, 1, parent=tc.Side.INGRESS.value, prio=9, fd=program, name="theirs")
    by_tc(f"filter del dev {name} ingress prio 9")
    assert filters.lost() == frozenset()


def test_changes_that_there_is_no_room_for_are_told_as_too_many() -> None:
    changes = rtnetlink.Changes(rtnetlink.TRAFFIC_CONTROL)
    try:
        changes._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        node_.ip("link add full0 type veth peer name full1")
        for _ in range(40):
            by_tc("qdisc add dev full0 clsact")
            by_tc("qdisc del dev full0 clsact")
        assert changes.interfaces() is None
        by_tc("qdisc add dev full0 clsact")
        assert changes.interfaces() == frozenset({socket.if_nametoindex("full0")})
        assert changes.interfaces() == frozenset()
    finally:
        changes.close()
        node_.ip("link del full0")


@pytest.mark.parametrize("how", ["unpinned", "detached"])
def test_links_that_others_take_away_are_told_of_until_they_are_back(
    node: node_.Node, pinned: tuple[tc.Tcx, pathlib.Path], program: int, how: str
) -> None:
    tcx, pins = pinned
    veth = node.pods[0].ifindex
    tcx.attach(tc.DNS_QUERY, program, veth)
    tcx.attach(tc.DNS_ANSWER, program, veth)
    pin = pins / f"{tc.DNS_QUERY.prefix}{veth}"
    assert tcx.lost() == frozenset()
    if how == "unpinned":
        pin.unlink()
    else:
        with syscalls.owned(syscalls.open_pin(pin)) as link:
            syscalls.link_detach(link)
    told = [tcx.lost() for _ in range(tc.LOOK_EACH)]
    assert told[-1] == {(tc.DNS_QUERY, veth)}
    assert all(one == told[-1] for one in told) or how == "detached", "a pin is missed at once"
    assert not tcx.stands(tc.DNS_QUERY, veth)
    _patiently(lambda: tcx.attach(tc.DNS_QUERY, program, veth))
    assert tcx.stands(tc.DNS_QUERY, veth)
    assert [tcx.lost() for _ in range(tc.LOOK_EACH)] == [frozenset()] * tc.LOOK_EACH
    tcx.detach(tc.DNS_ANSWER, veth)
    assert tcx.lost() == frozenset()


def _patiently(put_back: Callable[[], Answer]) -> Answer:
    """Try again, as an agent does every second, while the kernel has not let go of the link that was unpinned."""
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            return put_back()
        except errors.DatapathError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def _learns(rig: conftest.Rig, zone: str) -> bool:
    """Tell whether the first pod may connect to what it has just resolved."""
    rig.datapath.apply(by_name.state(rig.node, by_name.build(f"*.{zone}")))
    assert rig.node.pods[0].run(by_name.resolves(rig.node.outside.address4, by_name.name_of(rig.node, zone)))
    connected: int = rig.node.pods[0].run(traffic.connects(rig.node.outside.address4, by_name.PORT))
    return connected == 0


def test_the_datapath_puts_back_what_others_took_and_says_so(learning: conftest.Rig) -> None:
    datapath, veth = learning.datapath, learning.node.pods[0].ifindex
    assert datapath.repair() == ()
    links = datapath.events_path.parent / "links"
    for hook in learner.HOOKS:
        (links / f"{hook.prefix}{veth}").unlink()
    assert not _learns(learning, "first.example.net")
    said = _repaired(datapath, len(learner.HOOKS))
    assert sorted(said) == [
        f"the program {name} was gone from interface {veth}; it is back" for name in sorted(learner.HOOKS.values())
    ]
    assert datapath.repair() == ()
    assert _learns(learning, "second.example.net")


def _repaired(datapath: datapath_.BPFDatapath, count: int) -> list[str]:
    """Return what was said until so many were back."""
    said: list[str] = []
    while len(said) < count:
        said += _patiently(datapath.repair)
    return said


@contextlib.contextmanager
def _by_filters(rig: conftest.Rig, monkeypatch: pytest.MonkeyPatch) -> Iterator[tc.Clsact]:
    """Have the datapath work as before Linux 6.6."""
    veths, filters = rig.datapath._veths, tc.Clsact()
    assert veths.learner is not None
    assert veths._attachments is not None
    links = veths._attachments
    rig.datapath.attach_links(())
    try:
        monkeypatch.setattr(veths, "_attachments", filters)
        veths.learner.use(filters, veths._programs)
        rig.datapath.attach_links(by_name.sandboxes(rig.node))
        yield filters
    finally:
        rig.datapath.attach_links(())
        filters.close()
        veths.learner.use(links, veths._programs)


def test_the_datapath_puts_back_filters_too(learning: conftest.Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    veth = learning.node.pods[0].ifindex
    with _by_filters(learning, monkeypatch):
        assert learning.datapath.repair() == ()
        by_tc(f"qdisc del dev {socket.if_indextoname(veth)} clsact")
        assert not _learns(learning, "third.example.net")
        assert len(learning.datapath.repair()) == len(learner.HOOKS)
        assert learning.datapath.repair() == ()
        assert _learns(learning, "fourth.example.net")


def _restricted(state: desired.DesiredState) -> desired.DesiredState:
    """Have what the first pod may send to its resolver be queries for the state's names."""
    old = state.sets[states.EGRESS_SET]
    dns = desired.RowKey(identity.WORLD, states.UDP, wire.PORT, 16)
    rows = {**old.rows, dns: desired.Row(states.ALLOW, states.RULE, asks=FILTER)}
    new = dataclasses.replace(old, rows=rows)
    return dataclasses.replace(state, sets={new.id: new}, filters={FILTER: frozenset(state.names.contents)})


def test_a_trace_asks_the_kernel_whether_queries_are_read(learning: conftest.Rig) -> None:
    """Rule E17: what restricts is no good where nobody looks, and a trace says that nobody does."""
    datapath, pod = learning.datapath, learning.node.pods[0]
    names = by_name.build("*.one.example")
    state = _restricted(by_name.state(learning.node, names))
    datapath.apply(state)
    flow = judge.Flow(node_.addresses(pod)[0], learning.node.outside.address4, net.Protocol.UDP.value, wire.PORT)

    def traced(name: str) -> tracing.Layer:
        question = tracing.Question(
            flow=flow, hook=judge.Hook.FORWARD, netns_cookie=pod.cookie, asks=name, veth_ifindex=pod.ifindex
        )
        with contextlib.closing(datapath.loaded()) as loaded:
            (layer,) = (layer for layer in loaded.trace(question, state) if layer.hook == tracing.QUERY)
            return layer

    for name, allowed in (("a.one.example", True), ("one.example", False), ("other.example", False)):
        layer = traced(name)
        assert [layer.compiled.allowed, layer.loaded.allowed] == [allowed] * 2, name
        assert layer.differences == ()
    (datapath.events_path.parent / "links" / f"{tc.DNS_QUERY.prefix}{pod.ifindex}").unlink()
    layer = traced("other.example")
    assert (layer.compiled.allowed, layer.loaded.allowed, layer.loaded.reason) == (False, True, tracing.UNREAD)
    assert [(one.table, one.row) for one in layer.differences] == [("interface", str(pod.ifindex))]
    _repaired(datapath, 1)
    assert traced("other.example").differences == ()
