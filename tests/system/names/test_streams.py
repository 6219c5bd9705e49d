"""DNS over TCP in pieces: what a stream brings is learned with the segment that completes it (F28, F15, F24)."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator

import pytest

from agent.lab import orders
from agent.services import resolvers
from tests.support import traffic
from tests.system import stress
from tests.system.names import conftest, dns, slicing
from tests.system.names import stage as stage_

pytestmark = [pytest.mark.root, conftest.ON_EACH_LAYER]

LOCAL = str(resolvers.NODE_LOCAL)
MANY = 120
SEGMENTS = (536, 256)
"""Bytes; the large answer takes several of them."""
SLICED = [pytest.param(1000, id="1000"), pytest.param(6000, id="6000", marks=(pytest.mark.matrix, pytest.mark.slow))]
ORPHANS_FIRST = 20_000
LOSSY_ROUNDS = 6
EVERY_FOURTH = ("statistic", "--mode", "nth", "--every", "4", "--packet", "2")


@contextlib.contextmanager
def _slicing(stage: stage_.Stage) -> Iterator[None]:
    """Serve names in pieces from the cache's address on the pods' node, and let the client ask there."""
    party = f"node/{stage_.NODE}"
    netns = orders.party_netns(party, stage.lab.plan, stage.lab.paths)
    address = ["nsenter", f"--net={netns}", "ip", "address"]
    stage.apply(stage_.cilium(stage_.by_name(f"*.{slicing.ZONE}"), stage_.by_network(f"{LOCAL}/32", dns.PORT)))
    subprocess.run([*address, "add", f"{LOCAL}/32", "dev", "lo"], check=True)
    try:
        with traffic.PodProcess(stage.lab, party, slicing.__name__, LOCAL) as server:
            assert server.ask() == {"listens": True}
            yield
    finally:
        subprocess.run([*address, "del", f"{LOCAL}/32", "dev", "lo"], check=True)


def _resolve(stage: stage_.Stage, first: int, count: int) -> None:
    """Resolve so many names in pieces; every address is open at once."""
    seen = stage.client.ask(do="sliced", resolver=LOCAL, first=first, count=count, port=stage_.PORT)
    each = count // len(slicing.WAYS)
    addresses = {way: each * (2 if way == slicing.PAIR else 1) for way in slicing.WAYS}
    assert (seen["failed"], seen["outcomes"]) == ([], {f"{way} ok": times for way, times in addresses.items()})


@pytest.mark.parametrize("count", SLICED)
def test_answers_in_pieces_open_at_once_what_they_say(stage: stage_.Stage, count: int) -> None:
    """However they are cut, and their questions, too."""
    with _slicing(stage):
        _resolve(stage, 0, count)


def test_nobody_need_put_them_together_but_the_kernel(stage: stage_.Stage) -> None:
    """F24: the agent is killed."""
    if not stage.in_kernel:
        pytest.skip("F30: here the agent does, see test_fallback")
    with _slicing(stage):
        stress.end_agents(stage.lab, stage_.NODE)
        try:
            _resolve(stage, ORPHANS_FIRST, 1000)
        finally:
            stress.start_agents(stage.lab, stage_.NODE, flags=stage_.FLAGS)


@pytest.mark.parametrize("segment", SEGMENTS)
def test_an_answer_in_several_segments_is_learned_whole(stage: stage_.Stage, segment: int) -> None:
    stage.apply(stage_.cilium(stage_.by_name("*.one.test")))
    before = stage.counted("nodewall_dns_answers_unread_total", reason="split")
    answer = stage.ask("split.one.test", tcp=True, segment=segment)
    assert len(answer["addresses"]) == MANY
    assert {stage.reach(address) for address in answer["addresses"]} == {"ok"}
    assert stage.counted("nodewall_dns_answers_unread_total", reason="split") == before


def test_what_is_lost_on_the_way_is_sent_again_and_learned(stage: stage_.Stage) -> None:
    """Before the pod's veth, where a segment that overtook the lost one is dropped until that has come."""
    stage.apply(stage_.cilium(stage_.by_name("*.one.test")))
    before = stage.counted("nodewall_dns_segments_held_total")
    with _losing(stage):
        for _ in range(LOSSY_ROUNDS):
            answer = stage.ask("split.one.test", tcp=True, segment=SEGMENTS[-1])
            assert len(answer["addresses"]) == MANY
            assert {stage.reach(address) for address in answer["addresses"]} == {"ok"}
    assert (stage.counted("nodewall_dns_segments_held_total") > before) is stage.in_kernel


@contextlib.contextmanager
def _losing(stage: stage_.Stage) -> Iterator[None]:
    """Have the resolver's node lose every fourth of its segments."""
    netns = orders.party_netns(f"node/{stage_.FAR}", stage.lab.plan, stage.lab.paths)
    rule = ["FORWARD", "-p", "tcp", "--sport", str(dns.PORT), "-m", *EVERY_FOURTH, "-j", "DROP"]
    command = ["nsenter", f"--net={netns}", "iptables", "-w"]
    done = subprocess.run([*command, "-I", *rule], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"this kernel cannot lose packets: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run([*command, "-D", *rule], check=True)
