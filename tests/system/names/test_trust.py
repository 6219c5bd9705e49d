"""Whose answers open anything: F11 to F13, every way to forge one, and that each is what it claims to be."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from agent.lab import plan
from tests.support import traffic
from tests.system.names import stage as stage_
from tests.system.names import zones

pytestmark = pytest.mark.root

NUMBER, PORTS = 0x1234, itertools.count(41000)
FORGED = itertools.count(12_000)
"""Each attempt forges an address of its own."""


@pytest.fixture
def names(stage: stage_.Stage) -> stage_.Stage:
    """Allow names that nobody answers for, and asking servers that nobody has to believe."""
    others = {"toEndpoints": [{"matchLabels": {"app": "resolver"}}], "toPorts": [{"ports": [{"port": "53"}]}]}
    stage.apply(stage_.cilium(stage_.by_name(f"*.{zones.SILENT}", "*.one.test"), others))
    return stage


@pytest.fixture
def injector(stage: stage_.Stage) -> Iterator[traffic.PodProcess]:
    """Send frames to the client's veth from the node, where only the way from the real resolver leads."""
    if not stage.in_kernel:
        pytest.skip("what is sent there does not come by where packets wait: see tests/iptables/test_names_reader")
    with traffic.PodProcess(stage.lab, f"node/{stage_.NODE}", "tests.system.names.injector") as process:
        yield process


def test_a_server_that_nobody_named_teaches_nothing(names: stage_.Stage) -> None:
    """F11: asked for by the pod, and answering truly."""
    before = names.counted("nodewall_dns_answers_unread_total", reason="untrusted")
    stranger = names.address(stage_.RESOLVER)
    assert names.visit("strange.one.test", resolver=stranger) == {stage_.REFUSED}
    assert names.visit("strange.one.test", resolver=stranger, tcp=True) == {stage_.REFUSED}
    if names.in_kernel:  # packets of others do not wait
        assert names.counted("nodewall_dns_answers_unread_total", reason="untrusted") > before
    assert names.visit("strange.one.test") == {"ok"}, "the same answer of the cluster's resolver opens it"


@pytest.mark.parametrize(
    ("way", "comes"),
    [("loopback", True), ("own pair", True), ("eth0", False)],
    ids=["loopback", "own pair of interfaces", "out of eth0"],
)
def test_a_pod_that_answers_itself_learns_nothing(names: stage_.Stage, way: str, *, comes: bool) -> None:
    """F12, F12b: with CAP_NET_RAW and CAP_NET_ADMIN; `comes` says that the forged answer is taken by the socket."""
    forged = str(zones.ipv4(next(FORGED)))
    given = {"resolver": names.address(stage_.KUBE_DNS), "own": names.address(stage_.CLIENT), "address": forged}
    told = names.client.ask(do="forge", way=way, name=f"self.{zones.SILENT}", port=next(PORTS), **given)
    assert told["came"] is comes
    assert forged not in names.learned()
    assert names.reach(forged) == stage_.REFUSED


def test_a_neighbour_that_speaks_in_the_resolvers_name_teaches_nobody(names: stage_.Stage) -> None:
    """F12: its packets do not leave its veth."""
    forged = str(zones.ipv4(next(FORGED)))
    question = _question(names, f"other.{zones.SILENT}")
    names.client.ask(do="wait_for", **question)
    own = names.address(stage_.CLIENT)
    names.neighbour.ask(do="forge", way="routed", own=own, address=forged, **question)
    assert names.client.ask(do="received")["addresses"] == []
    assert forged not in names.learned()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with an answer."""

    text: str
    given: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Other than in the right answer."""
    ports_on: int = 0
    asked: bool = True


FAULTS = (
    Fault(text="wrong number", given={"number": NUMBER + 1}),
    Fault(text="wrong port", ports_on=1),
    Fault(text="other question", given={"name": f"elsewhere.{zones.SILENT}"}),
    Fault(text="another server's address", given={"resolver": "192.0.2.53"}),
    Fault(text="nobody asked", asked=False),
)


def _question(names: stage_.Stage, name: str) -> dict[str, Any]:
    return {"resolver": names.address(stage_.KUBE_DNS), "name": name, "port": next(PORTS), "number": NUMBER}


def _way(names: stage_.Stage) -> dict[str, Any]:
    pod = names.lab.plan.pods[stage_.CLIENT]
    return {"own": names.address(stage_.CLIENT), "interface": pod.veth, "hardware": plan.mac(str(pod.addresses[0]))}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.text)
def test_an_answer_that_is_none_teaches_nothing(
    names: stage_.Stage, injector: traffic.PodProcess, fault: Fault
) -> None:
    """F13, F11: injected behind the node's checks, as a resolver's real answers come; the right one still teaches."""
    right, wrong = (str(zones.ipv4(next(FORGED))) for _ in range(2))
    question, way = _question(names, f"wrong.{zones.SILENT}"), _way(names)
    if fault.asked:
        names.client.ask(do="wait_for", **question)
    other_port = {"port": question["port"] + fault.ports_on}
    injector.ask(do="inject", address=wrong, **{**question, **way, **other_port, **fault.given})
    assert wrong not in names.learned()
    if fault.asked:
        injector.ask(do="inject", address=right, **question, **way)
        assert right in names.client.ask(do="received")["addresses"]
        assert names.reach(right) == "ok", "the control: the same, without the fault"
    assert names.reach(wrong) == stage_.REFUSED


def test_a_second_answer_teaches_nothing_new(names: stage_.Stage, injector: traffic.PodProcess) -> None:
    """F13: the first that comes is the answer, and a query has one."""
    first, second = (str(zones.ipv4(next(FORGED))) for _ in range(2))
    question, way = _question(names, f"twice.{zones.SILENT}"), _way(names)
    names.client.ask(do="wait_for", **question)
    for address in (first, second):
        injector.ask(do="inject", address=address, **question, **way)
    assert names.client.ask(do="received")["addresses"] == [first, second]
    assert {first, second} & names.learned().keys() == {first}
    assert [names.reach(address) for address in (first, second)] == ["ok", stage_.REFUSED]
