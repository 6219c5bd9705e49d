"""One connection, one verdict a direction: tables of what the layers say and what is told."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Sequence
from typing import NoReturn

import pytest

from agent.observer import again, joining

TCP, UDP = 6, 17
SOCKET, PACKET = 1, 2
INGRESS, EGRESS = 1, 2
FORWARDED, DROPPED = 1, 2
RULE_ALLOWED, NOT_ISOLATED, POLICY_DENIED, SPOOFED = 1, 2, 3, 6
MS = 1_000_000

POD, OTHER_POD, SERVICE, OTHER_SERVICE = (bytes(12) + bytes([10, 0, 0, last]) for last in (3, 4, 96, 97))
HTTP, TARGET = b"\0\x50", b"\x1f\x90"
BACKENDS = {
    (SERVICE, HTTP): frozenset({(POD, TARGET), (OTHER_POD, TARGET)}),
    (OTHER_SERVICE, HTTP): frozenset({(POD, TARGET)}),
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`joining.Event`, with the name a table calls it by."""

    name: str
    time_ns: int
    layer: int = PACKET
    direction: int = EGRESS
    verdict: int = FORWARDED
    reason: int = RULE_ALLOWED
    endpoint: int = 1
    protocol: int = TCP
    address: bytes = POD
    port: bytes = TARGET
    rule: int = 9
    repeats: int = 0
    client_port: int | None = None
    """None: one that no other event has."""

    @property
    def came_from(self) -> Hashable:
        return self.name if self.client_port is None else self.client_port

    @property
    def towards(self) -> joining.Towards:
        return self.endpoint, self.protocol, self.address, self.port


def call(name: str, at_ms: int = 0, **more: object) -> Event:
    return dataclasses.replace(Event(name=name, time_ns=at_ms * MS, layer=SOCKET), **more)  # type: ignore[arg-type]  # a test names real fields


def packet(name: str, at_ms: int = 0, **more: object) -> Event:
    return dataclasses.replace(Event(name=name, time_ns=at_ms * MS), **more)  # type: ignore[arg-type]  # likewise


def dial(name: str, at_ms: int = 0, address: bytes = SERVICE) -> Event:
    return call(name, at_ms, address=address, port=HTTP)


def refused(name: str, at_ms: int = 0) -> Event:
    return call(name, at_ms, verdict=DROPPED, reason=POLICY_DENIED)


class Told:
    """A joiner, and what it has told, by name: `call+packet` where two became one."""

    def __init__(self, *, silent: bool = False) -> None:
        """`silent` is deny mode `drop`."""
        self.joiner: joining.Joiner[Event] = joining.Joiner()
        self._silent = silent

    def join(self, *events: Event, until_ms: int = 0) -> list[str]:
        return self._names(
            self.joiner.join(
                events,
                until_ns=until_ms * MS,
                backends=lambda event: BACKENDS.get((event.address, event.port)),
                followed=lambda _: self._silent,
            )
        )

    def rest(self) -> list[str]:
        return self._names(self.joiner.rest())

    @staticmethod
    def _names(told: Sequence[Event | joining.Joined[Event]]) -> list[str]:
        return [one.name if isinstance(one, Event) else _joined(one) for one in told]


def _joined(one: joining.Joined[Event]) -> str:
    call, more = one.socket, one.more
    return (f"{call.name}+" if call else "") + one.packet.name + (f"({more} more)" if more else "")


@pytest.mark.parametrize(
    ("events", "told"),
    [
        pytest.param([call("c"), packet("p", 1)], ["c+p"], id="a pod's address"),
        pytest.param(
            [call("c"), packet("e", 1), packet("i", 1, direction=INGRESS, endpoint=2)],
            ["c+e", "i"],
            id="both directions",
        ),
        pytest.param([dial("c"), packet("p", 1)], ["c+p"], id="a Service"),
        pytest.param([dial("c"), packet("p", 1, address=OTHER_POD)], ["c+p"], id="another backend of it"),
        pytest.param([dial("c"), packet("p", 1, port=HTTP)], ["p", "c"], id="another port of a backend"),
        pytest.param(
            [dial("c"), packet("p", 1, address=SERVICE, port=HTTP)], ["c+p"], id="a Service nobody translates"
        ),
        pytest.param([dial("c"), call("d", 1), packet("p", 2), packet("q", 3)], ["c+p", "d+q"], id="oldest of both"),
        pytest.param(
            [dial("c"), dial("d", 1, OTHER_SERVICE), packet("p", 2), packet("q", 3)],
            ["c+p", "d+q"],
            id="two Services with one backend",
        ),
        pytest.param(
            [call("c"), call("d", 1), packet("p", 2), packet("q", 3)], ["c+p", "d+q"], id="two connections at once"
        ),
        pytest.param(
            [call("c"), call("d", endpoint=2), packet("q", 1, endpoint=2), packet("p", 2)],
            ["d+q", "c+p"],
            id="two pods",
        ),
        pytest.param([call("c"), packet("p", 1, protocol=UDP)], ["p", "c"], id="another protocol"),
        pytest.param(
            [call("c"), packet("p", 1, verdict=DROPPED, reason=POLICY_DENIED)], ["c+p"], id="forbidden in between"
        ),
        pytest.param(
            [call("c"), packet("s", 1, verdict=DROPPED, reason=SPOOFED), packet("p", 2)], ["s", "c+p"], id="forged"
        ),
        pytest.param([call("c"), packet("p", 1, direction=INGRESS)], ["p", "c"], id="no egress packet"),
        pytest.param([packet("p"), packet("q", 1)], ["p", "q"], id="UDP by sendto, or no socket layer"),
        pytest.param(
            [call("c", protocol=UDP), packet("p", 1, protocol=UDP), packet("q", 2, protocol=UDP)],
            ["c+p", "q"],
            id="UDP connected, and sendto to the same",
        ),
        pytest.param([refused("c"), packet("p", 1)], ["c", "p"], id="a refused call has no packet"),
        pytest.param([call("c", 5), packet("p", 4)], ["p", "c"], id="a packet from before the call"),
        pytest.param([packet("p", 1), call("c")], ["p"], id="order swapped"),
        pytest.param([packet("p", 1), dial("c")], ["p"], id="order swapped, Service"),
        pytest.param([packet("p", 1), call("c"), call("d")], ["p", "d"], id="one packet has one call"),
    ],
)
def test_what_is_told_of(events: list[Event], told: list[str]) -> None:
    first = Told(silent=False)
    early = [*first.join(call("x", endpoint=9)), *first.join(*events), *first.rest()]
    assert [name for name in early if name != "x"] == told
    # However the ring is read, the same is told.
    for cut in range(1, len(events)):
        parts = Told()
        parts.join(call("x", endpoint=9))
        names = [*parts.join(*events[:cut]), *parts.join(*events[cut:]), *parts.rest()]
        assert [name for name in names if name != "x"] == told


def datagram(name: str, at_s: float, **more: object) -> Event:
    return packet(name, int(at_s * 1000), **({"protocol": UDP, "client_port": 5353} | more))


def syn(name: str, at_s: float, **more: object) -> Event:
    denied: dict[str, object] = {"verdict": DROPPED, "reason": POLICY_DENIED, "client_port": 40000}
    return packet(name, int(at_s * 1000), **(denied | more))


@pytest.mark.parametrize(
    ("events", "told"),
    [
        pytest.param([datagram("p", 0), datagram("q", 0.1), datagram("r", 29)], ["p"], id="UDP nobody answers"),
        pytest.param(
            [datagram("p", 0), datagram("q", 1, repeats=4), datagram("r", 31), datagram("s", 32)],
            ["p", "r(5 more)"],
            id="for longer than conntrack remembers",
        ),
        pytest.param([datagram("p", 0), datagram("i", 0, direction=INGRESS)], ["p", "i"], id="both directions"),
        pytest.param([datagram("p", 0), datagram("q", 1, rule=10)], ["p", "q"], id="another rule"),
        pytest.param([datagram("p", 0), datagram("q", 1, client_port=5354)], ["p", "q"], id="another client"),
        pytest.param(
            [call("c", protocol=UDP), datagram("p", 0), call("d", 1, protocol=UDP), datagram("q", 0.002)],
            ["c+p", "d"],
            id="UDP connected twice",
        ),
        pytest.param([syn("p", 0), syn("q", 1), syn("r", 3), syn("s", 7)], ["p"], id="a SYN sent again"),
        pytest.param(
            [syn("p", 0), syn("q", 0.1), syn("r", 1.1), syn("s", 2.6)],
            ["p", "q", "s(1 more)"],
            id="another call from the same port",
        ),
        pytest.param([syn("p", 0), syn("q", 1), syn("r", 132)], ["p", "r(1 more)"], id="long after"),
        pytest.param(
            [syn("p", 0, verdict=FORWARDED, reason=RULE_ALLOWED), syn("q", 1, verdict=FORWARDED, reason=RULE_ALLOWED)],
            ["p", "q"],
            id="allowed TCP",
        ),
    ],
)
def test_of_packets_between_the_same_ends_is_told(events: list[Event], told: list[str]) -> None:
    fresh = Told()
    assert [*fresh.join(*events), *fresh.rest()] == told


def test_connections_that_were_told_of_are_forgotten_when_there_are_too_many() -> None:
    told = Told()
    told.join(datagram("p", 0))
    told.join(*(packet(f"p{number}", 1, protocol=UDP, client_port=-number) for number in range(again.REMEMBERED)))
    assert told.join(datagram("q", 1)) == ["q"]


def test_in_deny_mode_drop_a_refused_call_waits_for_its_packet() -> None:
    told = Told(silent=True)
    assert told.join(refused("c"), packet("p", 1, verdict=DROPPED, reason=POLICY_DENIED)) == ["c+p"]


def test_a_call_whose_packet_does_not_come_is_told_once_it_has_waited() -> None:
    told = Told()
    assert told.join(call("c", 100), until_ms=100) == []
    assert told.joiner.due_ns == 100 * MS + joining.WAIT_NS
    assert told.join(until_ms=349) == []
    assert told.join(until_ms=350) == ["c"]
    assert told.joiner.due_ns is None
    assert told.join(packet("p", 360), until_ms=360) == ["p"], "too late: told for itself"


def test_what_is_still_unread_is_waited_for_however_late_it_is_read() -> None:
    told = Told()
    told.join(call("c", 100), until_ms=100)
    assert told.join(packet("p", 101), until_ms=5_000) == ["c+p"]


def test_what_waits_is_bounded_and_the_oldest_goes_first() -> None:
    told = Told()
    names = told.join(*(call(f"c{number}", number) for number in range(joining.WAITING_MOST + 3)))
    assert names == ["c0", "c1", "c2"]
    assert len(told.rest()) == joining.WAITING_MOST
    assert told.rest() == []


def test_of_a_restarted_agent_packets_whose_calls_were_read_before_are_told_for_themselves() -> None:
    before = Told()
    before.join(call("c"))
    after = Told()
    assert after.join(packet("p", 1), call("d", 2), packet("q", 3)) == ["p", "d+q"]
    assert before.rest() == ["c"], "an agent that ends in order tells what waits"


def test_calls_to_more_services_than_are_remembered_are_told_alone() -> None:
    told = Told()
    backends = frozenset({(POD, TARGET)})
    calls = [
        call(f"c{number}", address=bytes(14) + number.to_bytes(2, "big"), port=HTTP)
        for number in range(joining.SERVICES_MOST + 1)
    ]
    told.joiner.join(calls, until_ns=0, backends=lambda _: backends, followed=lambda _: False)
    names = told.join(*(packet(f"p{number}", 1) for number in range(joining.SERVICES_MOST + 1)))
    assert names == [*(f"c{number}+p{number}" for number in range(joining.SERVICES_MOST)), f"p{joining.SERVICES_MOST}"]
    assert told.rest() == [f"c{joining.SERVICES_MOST}"]


def test_nothing_is_lost_or_made_up_whatever_the_order() -> None:
    events = [call("c"), dial("d", 1), packet("p", 2), packet("q", 3), refused("r", 4)]
    for order in itertools.permutations(events):
        told = Told()
        names = [*told.join(*order), *told.rest()]
        parts = [part for name in names for part in name.split("+")]
        assert len(parts) == len(set(parts))
        assert {"p", "q", "r"} <= set(parts)
        assert 3 <= len(names) <= 5


def test_of_several_packets_read_before_their_calls_each_has_one() -> None:
    joiner = Told()
    assert joiner.join(call("x", endpoint=9)) == []
    assert joiner.join(packet("p", 2), packet("q", 3)) == ["p", "q"]
    assert joiner.join(call("c"), call("d", 1), call("e", 1)) == []
    assert joiner.rest() == ["x", "e"], "the third has no packet yet"


class Walked(frozenset[tuple[bytes, bytes]]):
    """Backends that must not be looked at one by one."""

    def __iter__(self) -> NoReturn:
        """Fail."""
        raise AssertionError("a call walked the backends of its Service")


def test_a_call_to_a_service_of_many_backends_costs_no_more_than_another(monkeypatch: pytest.MonkeyPatch) -> None:
    many = ((number.to_bytes(16, "big"), TARGET) for number in range(5000))
    monkeypatch.setitem(BACKENDS, (SERVICE, HTTP), Walked([*many, (POD, TARGET)]))
    joiner = Told()
    joiner.join(call("x", endpoint=9))
    assert joiner.join(packet("p", 2), packet("other", 2, endpoint=2)) == ["p", "other"]
    assert joiner.join(dial("c")) == []
    assert joiner.rest() == ["x"]
