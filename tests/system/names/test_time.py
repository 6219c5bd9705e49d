"""When an address is open: from the moment its answer is there until it expires, and what goes on after: F15 to F20."""

from __future__ import annotations

import pathlib
import time
from typing import Any

import pytest

from agent.model import verdict
from tests.support import traffic
from tests.system.names import conftest, zones
from tests.system.names import stage as stage_

pytestmark = pytest.mark.root

FIGURES = pathlib.Path("build/figures")
FRESH = [pytest.param(500, id="500"), pytest.param(10_000, id="10000", marks=(pytest.mark.matrix, pytest.mark.slow))]
SNIFFED_FIRST = 10_000
CATCH_UP_S = 0.001
"""After each connect(), so that the sniffer is late by its own way alone, and not by the addresses before."""
SNIFFER = "tests.system.names.sniffer"
OWN_RULE = f"*.{zones.FRESH}"
LONGEST_S = 10.0
SETTLED_NS = 50_000_000
SECOND_NS = 1_000_000_000
GAP_S = 0.4


def _note(stage: stage_.Stage, name: str, line: object) -> None:
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"names-{name}-{stage.engine.name}.txt").write_text(f"{line}\n")


@conftest.ON_EACH_LAYER
@pytest.mark.parametrize("count", FRESH)
def test_every_fresh_address_is_open_at_once(stage: stage_.Stage, count: int) -> None:
    """F15: resolved and connected to, one after the other, at the pace of one process."""
    stage.apply(stage_.cilium(stage_.by_name(OWN_RULE)))
    seen = stage.client.ask(do="fresh", resolver=stage.resolver, first=0, count=count, port=stage_.PORT)
    _note(stage, f"fresh-{count}", seen)
    assert seen["failed"] == []
    assert seen["outcomes"] == {"ok": count}


@pytest.mark.parametrize("count", FRESH)
def test_a_learner_in_user_space_would_come_too_late_for_some(stage: stage_.Stage, count: int) -> None:
    """The control of F15: the same against a server that the kernel does not believe, learned from by a sniffer."""
    if not stage.in_kernel:
        pytest.skip("there is no map that the sniffer could write to")
    asking = {"toEndpoints": [{"matchLabels": {"app": "resolver"}}], "toPorts": [{"ports": [{"port": "53"}]}]}
    stage.apply(stage_.cilium(stage_.by_name(OWN_RULE), asking))
    where = (stage.lab.plan.pods[stage_.CLIENT].veth, str(stage.pin("fqdn_learned")))
    what = (str(stage.endpoint("client")), str(stage.class_of(zones.fresh(zones.FRESH_NAMES - 1))))
    with traffic.PodProcess(stage.lab, f"node/{stage_.NODE}", SNIFFER, *where, *what) as sniffer:
        assert sniffer.ask() == {"learned": 0}
        wanted = {"resolver": stage.address(stage_.RESOLVER), "first": SNIFFED_FIRST, "count": count}
        seen = stage.client.ask(do="fresh", port=stage_.PORT, rest_s=CATCH_UP_S, **wanted)
        learned = sniffer.ask()["learned"]
    _note(stage, f"sniffed-{count}", {**seen, "learned": learned})
    assert learned == count, "the sniffer saw every answer"
    assert seen["outcomes"].keys() <= {"ok", stage_.REFUSED}
    assert seen["outcomes"].get(stage_.REFUSED, 0) > 0


@conftest.ON_EACH_LAYER
def test_it_closes_when_it_expires_and_the_verdict_says_who_asked_for_what(stage: stage_.Stage) -> None:
    """F16: neither before nor after; between the two layers of a connect() it may expire, too."""
    stage.apply(stage_.cilium(stage_.by_name("*.one.test")))
    answer = stage.ask("short.one.test")
    (address,) = answer["addresses"]
    told = stage.client.ask(do="connect_until_refused", address=address, port=stage_.PORT, longest_s=LONGEST_S)
    begin, end = stage_.expires_ns(answer)
    assert told["times"] > 0
    # Sets count in ticks, which a busy machine is late with.
    assert told["last_ns"] <= end + (0 if stage.in_kernel else SETTLED_NS)
    assert told["began_ns"] >= begin - told["took_ns"]
    assert told["outcome"] in {stage_.REFUSED, stage.engine.far.connect}
    since_ns = time.time_ns()
    again = stage.client.ask(do="connect", address=address, port=stage_.PORT)
    assert again["outcome"] == stage_.REFUSED
    _note(stage, "refused-ns", again["took_ns"])
    (event, *_) = stage.told(address, since_ns)
    assert (event.source.pod, event.destination.port) == ("client", stage_.PORT)
    assert event.verdict is verdict.Verdict.DROPPED
    assert event.destination.names[0] == "short.one.test"
    (known,) = (one for one in stage.agent.learned(stage_.CLIENT) if str(one.address) == address)
    assert known.names[0].name == "short.one.test"
    assert known.names[0].expires_s < 0


@conftest.ON_EACH_LAYER
def test_an_established_connection_outlives_its_name_and_the_agent_but_not_its_rule(stage: stage_.Stage) -> None:
    """F17, F27."""
    stage.apply(stage_.cilium(stage_.by_name("stream.one.test")))
    answer = stage.ask("stream.one.test")
    (address,) = answer["addresses"]
    stream: dict[str, Any] = {"key": "stream", "address": address, "port": stage_.PORT, "kind": "tcp"}
    stage.client.ask(do="open", **stream)
    stage_.sleep_until(stage_.expires_ns(answer)[1] + SETTLED_NS)
    assert stage.reach(address) == stage_.REFUSED
    assert stage.client.ask(do="talk", **stream)["outcome"] == "ok"
    stage_.restart(stage.lab, stage_.NODE)
    assert stage.client.ask(do="talk", **stream)["outcome"] == "ok"
    stage.apply(stage_.cilium(stage_.by_name("stream.one.test"), stage_.by_name("db.test")))
    assert stage.client.ask(do="talk", **stream)["outcome"] == "ok"
    stage.apply(stage_.cilium(stage_.by_name("db.test")))
    assert stage.client.ask(do="talk", **stream)["outcome"] == "time-out"
    stage.client.ask(do="hang_up")


def test_datagrams_go_on_past_the_expiry_of_their_name(stage: stage_.Stage) -> None:
    """F18: sent from a socket that is not connected, as by QUIC libraries; until when: tests/bpf/test_names.py."""
    stage.apply(stage_.cilium(stage_.by_name("datagrams.one.test", protocol="UDP")))
    answer = stage.ask("datagrams.one.test")
    (address,) = answer["addresses"]
    socket_: dict[str, Any] = {"key": "datagrams", "address": address, "port": stage_.PORT, "kind": "udp"}
    stage.client.ask(do="open", **socket_)
    end = stage_.expires_ns(answer)[1] + 2 * SECOND_NS
    while time.clock_gettime_ns(time.CLOCK_BOOTTIME) < end:
        assert stage.client.ask(do="talk", **socket_)["outcome"] == "ok"
        time.sleep(GAP_S)
    assert stage.reach(address) == stage_.REFUSED
    stage.client.ask(do="hang_up")


def test_a_later_answer_never_shortens(stage: stage_.Stage) -> None:
    """F19: of another name with the same rule, at the same address."""
    stage.apply(stage_.cilium(stage_.by_name("*.one.test")))
    (address,) = stage.ask("lasting.one.test")["addresses"]
    brief = stage.ask("brief.one.test")
    assert brief["addresses"] == [address]
    stage_.sleep_until(stage_.expires_ns(brief)[1] + SETTLED_NS)
    assert stage.reach(address) == "ok"


@pytest.mark.parametrize(("name", "ttl_s"), [("soon.one.test", 1), ("zero.one.test", 0)], ids=["alias", "0"])
def test_an_address_lasts_as_long_as_the_shortest_record_and_the_grace(
    stage: stage_.Stage, name: str, ttl_s: int
) -> None:
    """F19, F20: an alias of a second before an address of a minute, and a TTL of nothing at all."""
    stage.apply(stage_.cilium(stage_.by_name("*.one.test")))
    answer = stage.ask(name)
    assert answer["ttl_s"] == ttl_s
    (address,) = answer["addresses"]
    assert stage.reach(address) == "ok"
    stage_.sleep_until(stage_.expires_ns(answer)[1] + SETTLED_NS)
    assert stage.reach(address) == stage_.REFUSED
