"""Programs at interfaces, by links and by filters: attached, replaced, let go; what others have there stays."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from agent import errors
from agent.datapath import rtnetlink
from agent.datapath.bpf import assembly, syscalls, tc
from agent.datapath.bpf import links as links_
from agent.model import net
from tests.bpf import node as node_
from tests.bpf import traffic

pytestmark = pytest.mark.root

SCHED_CLS = 3
DROP, PASS = 2, -1
"""TC_ACT_SHOT and TC_ACT_UNSPEC."""
PORT = 8080
FLOOD_S = 1.0


@pytest.fixture(scope="module")
def node() -> Iterator[node_.Node]:
    with node_.running(pods=2) as found:
        yield found


@pytest.fixture
def ifindex(node: node_.Node) -> int:
    return node.pods[0].ifindex


@pytest.fixture(params=["tcx", "clsact"])
def attachments(request: pytest.FixtureRequest, bpffs: pathlib.Path) -> Iterator[tc.Attachments]:
    if request.param == "clsact":
        yield tc.Clsact()
        tc.remove_filters(*tc.HOOKS)
        return
    pins = bpffs / f"nodewall-tc-{os.getpid()}"
    pins.mkdir()
    found = tc.Tcx(links_.Links(pins))
    yield found
    for pin in pins.iterdir():
        links_.remove(pin)
    pins.rmdir()


@contextlib.contextmanager
def returning(value: int) -> Iterator[int]:
    """Load a program that does nothing but return."""
    code = (assembly.put(0, value), assembly.RETURN_1[-1])
    with syscalls.owned(syscalls.load_program(code, kind=SCHED_CLS, attach=0, name="nw_returns")) as program:
        yield program


def asks(node: node_.Node) -> int:
    """Return the errno of a datagram from the first pod to the second, and its echo."""
    with node.pods[1].started(traffic.listens(PORT)) as ready:
        ready()
        code: int = node.pods[0].run(traffic.asks(node.pods[1].address4, PORT))
        return code


@pytest.mark.parametrize("hook", tc.HOOKS, ids=lambda hook: hook.prefix)
def test_a_program_is_replaced_in_place_and_let_go(
    node: node_.Node, attachments: tc.Attachments, ifindex: int, hook: tc.Hook
) -> None:
    assert attachments.attached(hook) == frozenset()
    with returning(DROP) as drops, returning(PASS) as passes:
        attachments.attach(hook, drops, ifindex)
        assert attachments.attached(hook) == {ifindex}
        assert asks(node) != 0
        attachments.attach(hook, passes, ifindex)
        assert attachments.attached(hook) == {ifindex}
        assert asks(node) == 0
        attachments.attach(hook, drops, ifindex)
        attachments.detach(hook, ifindex)
        assert attachments.attached(hook) == frozenset()
        assert asks(node) == 0
        attachments.detach(hook, ifindex)


def test_hooks_of_one_side_are_beside_each_other(node: node_.Node, attachments: tc.Attachments, ifindex: int) -> None:
    with returning(DROP) as drops, returning(PASS) as passes:
        attachments.attach(tc.SOURCE, passes, ifindex)
        attachments.attach(tc.DNS_QUERY, drops, ifindex)
        assert asks(node) != 0
        attachments.detach(tc.DNS_QUERY, ifindex)
        assert attachments.attached(tc.SOURCE) == {ifindex}
        assert asks(node) == 0


def test_an_interface_that_has_gone_is_no_error(attachments: tc.Attachments) -> None:
    node_.ip("link add gone0 type veth peer name gone1")
    number = socket.if_nametoindex("gone0")
    with returning(PASS) as program:
        attachments.attach(tc.DNS_ANSWER, program, number)
        node_.ip("link del gone0")
        attachments.detach(tc.DNS_ANSWER, number)
        attachments.attach(tc.DNS_QUERY, program, number)
        attachments.detach(tc.DNS_QUERY, number)


def _floods(target: net.Address) -> Callable[[], int]:
    """Send datagrams for a second; answer how many came back."""

    def action() -> int:
        came = 0
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((str(target), PORT))
            client.settimeout(0)
            end = time.monotonic() + FLOOD_S
            while time.monotonic() < end:
                client.send(b"x")
                time.sleep(0.0005)
                with contextlib.suppress(BlockingIOError):
                    client.recv(64)
                    came += 1
        return came

    return action


def test_no_packet_passes_while_a_filter_is_replaced(node: node_.Node, ifindex: int) -> None:
    """As for links (bpf_link_update): one request takes the old program away and puts the new one there."""
    filters = tc.Clsact()
    with contextlib.ExitStack() as undo:
        programs = [undo.enter_context(returning(DROP)) for _ in range(2)]
        undo.callback(tc.remove_filters, *tc.HOOKS)
        filters.attach(tc.DNS_QUERY, programs[0], ifindex)
        undo.enter_context(node.pods[1].started(traffic.listens(PORT)))()
        with node.pods[0].started(_floods(node.pods[1].address4)) as came:
            end = time.monotonic() + FLOOD_S
            for program in itertools.cycle(programs):
                filters.attach(tc.DNS_QUERY, program, ifindex)
                if time.monotonic() > end:
                    break
            assert came() == 0
    assert asks(node) == 0


def test_filters_of_others_stay_and_their_qdisc_too(ifindex: int) -> None:
    veth = _name(ifindex)
    _tc(f"qdisc add dev {veth} clsact")
    filters = tc.Clsact()
    try:
        with returning(PASS) as program, rtnetlink.connection() as netlink:
            side = tc.Side.INGRESS.value
            netlink.tc("add-filter", "bpf", ifindex, 1, parent=side, prio=9, fd=program, name="theirs")
            filters.attach(tc.DNS_QUERY, program, ifindex)
            assert tc.Clsact().attached(tc.DNS_QUERY) == {ifindex}, "who comes later finds it"
        assert tc.remove_filters(tc.DNS_QUERY)
        assert not tc.remove_filters(tc.DNS_QUERY)
        assert "theirs" in _tc(f"filter show dev {veth} ingress")
        assert "clsact" in _tc(f"qdisc show dev {veth}")
    finally:
        _tc(f"qdisc del dev {veth} clsact")


def test_a_qdisc_that_we_made_goes_with_the_last_filter(ifindex: int) -> None:
    with returning(PASS) as program:
        tc.Clsact().try_out(tc.DNS_QUERY, program, ifindex)
        assert "clsact" not in _tc(f"qdisc show dev {_name(ifindex)}")
        tc.Clsact().attach(tc.DNS_ANSWER, program, ifindex)
        assert "clsact" in _tc(f"qdisc show dev {_name(ifindex)}")
    tc.remove_filters(*tc.HOOKS)
    assert "clsact" not in _tc(f"qdisc show dev {_name(ifindex)}")


def test_an_ingress_qdisc_in_the_way_is_an_error_that_names_the_interface(ifindex: int) -> None:
    """Its filters see one side only: what belongs to the other would judge the wrong packets."""
    veth = _name(ifindex)
    _tc(f"qdisc add dev {veth} ingress")
    try:
        with returning(PASS) as program, pytest.raises(errors.DatapathError, match=f"dns_answer_{ifindex}"):
            tc.Clsact().attach(tc.DNS_ANSWER, program, ifindex)
    finally:
        _tc(f"qdisc del dev {veth} ingress")


def _name(ifindex: int) -> str:
    return socket.if_indextoname(ifindex)


def _tc(words: str) -> str:
    return subprocess.run(["tc", *words.split()], check=True, capture_output=True, text=True).stdout
