"""Both layers against real traffic of a pod that may reach others by name only: what begins, and what is under way."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import multiprocessing
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from agent import desired
from agent.datapath.bpf import datapath as datapath_
from agent.model import identity, net
from agent.model import verdict as verdict_
from tests.bpf import by_name, conftest, packets, states, traffic
from tests.bpf import learned as learned_
from tests.bpf import node as node_
from tests.bpf.dns import server, wire

pytestmark = pytest.mark.root

PORT, OTHER = 8080, 9090
CLASS, RULE = identity.FIRST_NAME_CLASS + 9, 7002
POD = states.endpoint_of(0)
ZONE = "cdn.example.net"
FIRST = ipaddress.IPv4Address("198.18.0.1")
CDN = "198.18.0.0/15"
FRESH = 200
PATIENCE_S = 5.0
CHILD_SECONDS = 240
"""An agent that takes over may compile."""
FORWARDED, DROPPED = verdict_.Verdict.FORWARDED.value, verdict_.Verdict.DROPPED.value


@pytest.fixture
def learned(rig: conftest.Rig) -> learned_.Learned:
    known = learned_.Learned(rig.datapath._maps.descriptor("fqdn_learned"))
    known.clear()
    return known


def _by_name(rig: conftest.Rig) -> desired.DesiredState:
    """Isolate the first pod for egress; a name opens PORT by TCP and UDP."""
    state = states.pods(rig.node, egress={})
    rows = {
        desired.RowKey(CLASS, protocol, PORT, 16): desired.Row(desired.Action.ALLOW, RULE, 0)
        for protocol in (states.TCP, states.UDP)
    }
    named = dataclasses.replace(state.sets[states.EGRESS_SET], rows=rows)
    return dataclasses.replace(state, sets={**state.sets, named.id: named})


def _renumbered(state: desired.DesiredState) -> desired.DesiredState:
    """Return what a change of another rule makes of a state: its set has another number, and one more row."""
    old = state.sets[states.EGRESS_SET]
    key = desired.RowKey(states.identity_of(1), states.TCP, OTHER, 16)
    rows = {**old.rows, key: desired.Row(desired.Action.ALLOW, states.RULE)}
    new = dataclasses.replace(old, id=old.id + 10, rows=rows)
    subject = dataclasses.replace(state.endpoints[POD], egress_set=new.id)
    return dataclasses.replace(state, sets={new.id: new}, endpoints={**state.endpoints, POD: subject})


def _verdicts(rig: conftest.Rig) -> set[tuple[verdict_.Layer, int, int]]:
    """Return layer, verdict and rule of what was told of the first pod's side."""
    egress = net.Direction.EGRESS.value
    return {
        (verdict_.Layer(event.layer), event.verdict, event.rule)
        for event in rig.verdicts()
        if event.endpoint == POD and event.direction == egress
    }


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_an_address_opens_when_it_is_learned_and_closes_when_it_expires(
    rig: conftest.Rig, learned: learned_.Learned, family: int
) -> None:
    """F15, F16: for connect() and sendmsg(), at once, and told with the rule that names it."""
    pod, outside = rig.node.pods[0], rig.node.outside
    target = node_.addresses(outside)[family]
    rig.datapath.apply(_by_name(rig))
    with outside.started(traffic.listens(PORT)) as ready, outside.started(traffic.listens(OTHER)) as also:
        ready(), also()
        assert pod.run(traffic.connects(target, PORT)) == errno.EACCES
        learned.put(POD, target, {CLASS: learned_.VALID_S})
        rig.verdicts()
        assert pod.run(traffic.connects(target, PORT)) == 0
        assert _verdicts(rig) == {(layer, FORWARDED, RULE) for layer in verdict_.Layer}
        assert pod.run(traffic.asks(target, PORT)) == 0
        assert pod.run(traffic.connects(target, OTHER)) == errno.EACCES
        learned.put(POD, target, {CLASS: learned_.EXPIRED_S})
        rig.verdicts()
        assert pod.run(traffic.connects(target, PORT)) == errno.EACCES
        assert pod.run(traffic.asks(target, PORT)) == errno.EACCES
        assert _verdicts(rig) == {(verdict_.Layer.SOCKET, DROPPED, 0)}


@pytest.mark.parametrize("family", [0, 1], ids=["ipv4", "ipv6"])
def test_past_the_sockets_no_packet_gets_to_what_has_expired(
    rig: conftest.Rig, learned: learned_.Learned, family: int
) -> None:
    pod = rig.node.pods[0]
    source, target = node_.addresses(pod)[family], node_.addresses(rig.node.outside)[family]
    rig.datapath.apply(_by_name(rig))
    for left_s, verdict, rule in ((learned_.EXPIRED_S, DROPPED, 0), (learned_.VALID_S, FORWARDED, RULE)):
        learned.put(POD, target, {CLASS: left_s})
        raw = packets.udp(source, target, PORT, sport=2000 + rule)
        pod.run(traffic.sends_raw(raw, ethertype=packets.ethertype(target), to=pod.mac))
        assert _verdicts(rig) == {(verdict_.Layer.PACKET, verdict, rule)}


def test_an_established_connection_outlives_its_name_and_an_agent_but_not_its_rule(
    rig: conftest.Rig,
    learned: learned_.Learned,
    successor: Callable[[], datapath_.BPFDatapath],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """F17, F27; and rule A39, by which a permission that is revoked cuts what is under way."""
    monkeypatch.setattr(node_, "CHILD_SECONDS", CHILD_SECONDS)
    pod, outside = rig.node.pods[0], rig.node.outside
    state = _by_name(rig)
    rig.datapath.apply(state)
    learned.put(POD, outside.address4, {CLASS: learned_.VALID_S})
    with (
        outside.started(_echoes(PORT)) as ready,
        _talking(pod, _streams(outside.address4)) as talk,
    ):
        ready()
        assert talk() == 0
        learned.put(POD, outside.address4, {CLASS: learned_.EXPIRED_S})
        assert talk() == 0
        following = successor()
        following.open()
        following.apply(state)
        following.close()
        assert talk() == 0
        rig.datapath.apply(_renumbered(state))
        assert talk() == 0, "another set that says the same of the name"
        assert pod.run(traffic.connects(outside.address4, PORT)) == errno.EACCES
        assert learned.used_ns(POD, outside.address4) > 0
        rig.datapath.apply(states.pods(rig.node, egress={}))
        assert talk() == errno.ETIMEDOUT


@pytest.mark.parametrize("connected", [False, True], ids=["sendto", "connect"])
def test_datagrams_outlive_their_name_until_there_is_none_for_a_minute(
    rig: conftest.Rig, learned: learned_.Learned, *, connected: bool
) -> None:
    """F18: unconnected ones are judged one by one, connected ones by the packet layer."""
    pod, outside = rig.node.pods[0], rig.node.outside
    rig.datapath.apply(_by_name(rig))
    learned.put(POD, outside.address4, {CLASS: learned_.VALID_S})
    with (
        outside.started(traffic.listens(PORT)) as ready,
        _talking(pod, _datagrams(outside.address4, connected=connected)) as talk,
    ):
        ready()
        assert talk() == 0
        (until_s, *_) = learned.datagrams_until_s(POD, outside.address4)
        assert until_s * learned_.SECOND_NS > learned_.clock_ns() + 59 * learned_.SECOND_NS
        learned.put(POD, outside.address4, {CLASS: learned_.EXPIRED_S}, datagrams_until_s=2)
        assert talk() == 0
        assert talk() == 0
        learned.put(POD, outside.address4, {CLASS: learned_.EXPIRED_S}, datagrams_until_s=-1)
        assert talk() == (errno.ETIMEDOUT if connected else errno.EACCES)


def test_every_fresh_address_can_be_reached_from_the_moment_its_answer_is_there(
    rig: conftest.Rig, learned: learned_.Learned
) -> None:
    """F15, with the learner at the pod's veth and nobody but the kernel between answer and connect()."""
    pod, outside = rig.node.pods[0], rig.node.outside
    rig.datapath.attach_links(by_name.sandboxes(rig.node))
    rig.datapath.apply(by_name.state(rig.node, by_name.build(f"*.{ZONE}")))
    with outside.started(server.serves()) as ready, outside.started(_serves_everywhere()) as also:
        ready(), also()
        node_.ip(f"route add {CDN} via {outside.address4}")
        assert pod.run(_resolves_and_connects(outside.address4)) == []
        assert pod.run(traffic.connects(FIRST + FRESH, PORT)) == errno.EACCES, "it was never asked for"
    assert learned.used_ns(POD, FIRST) > 0


def _resolves_and_connects(resolver: net.Address) -> Callable[[], list[tuple[str, int]]]:
    """Resolve fresh names and connect to each address; return those that cannot be reached, and why."""

    def action() -> list[tuple[str, int]]:
        failed = []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(PATIENCE_S)
            asking.connect((str(resolver), wire.PORT))
            for address in (FIRST + index for index in range(FRESH)):
                asking.send(wire.query(server.name_of(address, ZONE), number=int(address) & 0xFFFF))
                asking.recv(4096)
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as client:
                    client.settimeout(PATIENCE_S)
                    if code := client.connect_ex((str(address), PORT)):
                        failed.append((str(address), code))
        return failed

    return action


def _serves_everywhere() -> Callable[[], str]:
    """Listen on every address of CDN."""

    def action() -> str:
        node_.ip(f"route add local {CDN} dev lo")
        return traffic.listens(PORT)()

    return action


def _echoes(port: int) -> Callable[[], str]:
    """Echo one stream, in a thread."""

    def action() -> str:
        listener = socket.create_server(("", port))

        def echo() -> None:
            accepted, _ = listener.accept()
            while content := accepted.recv(64):
                accepted.sendall(content)

        threading.Thread(target=echo, daemon=True).start()
        return "listens"

    return action


Talk = Callable[[], int]


@contextlib.contextmanager
def _talking(pod: node_.Guest, begin: Callable[[], Talk]) -> Iterator[Talk]:
    """Begin something in the pod; each call has it go on a step, and returns the errno."""
    ours, theirs = multiprocessing.Pipe()

    def action() -> None:
        theirs.recv()
        go_on = begin()
        while True:
            theirs.send(go_on())
            theirs.recv()

    def talk() -> int:
        ours.send(True)  # noqa: FBT003 - a mere nudge
        assert ours.poll(PATIENCE_S), "it has ended"
        code: int = ours.recv()
        return code

    with pod.started(action):
        yield talk


def _streams(target: net.Address) -> Callable[[], Talk]:
    """Connect once; say something and hear it at each call."""

    def begin() -> Talk:
        client = socket.create_connection((str(target), PORT), timeout=traffic.PATIENCE_SECONDS)
        return lambda: _said(client, lambda: client.sendall(b"x"))

    return begin


def _datagrams(target: net.Address, *, connected: bool) -> Callable[[], Talk]:
    """Make one socket; send a datagram and wait for its echo at each call."""

    def begin() -> Talk:
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.settimeout(traffic.PATIENCE_SECONDS)
        if connected:
            client.connect((str(target), PORT))
            return lambda: _said(client, lambda: client.send(b"x"))
        return lambda: _said(client, lambda: client.sendto(b"x", (str(target), PORT)))

    return begin


def _said(client: socket.socket, say: Callable[[], object]) -> int:
    try:
        say()
        client.recv(64)
    except TimeoutError:
        return errno.ETIMEDOUT
    except OSError as error:
        return error.errno or -1
    return 0
