"""The well-known policy of egress by name, as it was written for another implementation, over its own zone.

Its DNS rule restricts which names may be asked for (`test_filter`). What it says of addresses is tested here with a DNS
rule that only observes, so that names outside of it resolve, too.
"""

from __future__ import annotations

import copy
import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from agent.lab import resolve
from tests.support import cases, traffic
from tests.system.names import stage as stage_
from tests.system.names import zones

pytestmark = pytest.mark.root

(PATH,) = (cases.DIRECTORY / "seeds").glob("*-cilium-egress-dns.yaml")


def _seed() -> tuple[resolve.Document, dict[str, dict[str, Any]]]:
    """Return the policy, and what is said of each name of its zone."""
    (step,) = yaml.safe_load(PATH.read_text())["steps"]
    (policy,) = step["policies"]
    return policy, step["zone"]


@pytest.fixture(scope="module")
def frontend(stage: stage_.Stage) -> Iterator[traffic.PodProcess]:
    with traffic.PodProcess(stage.lab, stage_.FRONTEND, stage_.APPLICATION) as process:
        yield process


def test_the_zone_is_served_as_it_was_written() -> None:
    _, zone = _seed()
    assert {one.name: one.addresses for one in zones.SEED} == {
        name: tuple(map(ipaddress.IPv4Address, said["A"])) for name, said in zone.items()
    }
    assert {one.ttl_s for one in zones.SEED} == {said["ttl"] for said in zone.values()}


def test_with_questions_observed_exactly_the_named_domains_are_reachable(
    stage: stage_.Stage, frontend: traffic.PodProcess
) -> None:
    policy, zone = _seed()
    observing = copy.deepcopy(policy)
    observing["spec"]["egress"][0]["toPorts"][0]["rules"]["dns"] = [{"matchPattern": "*"}]
    stage.apply(observing)
    assert not stage.agent.status().problems
    seen = {name: stage.visit(name, by=frontend) == {"ok"} for name in zone}
    assert seen == {name: said["reachable"] for name, said in zone.items()}
    (address,) = zone["cilium.io"]["A"]
    assert stage.reach(address, stage_.OTHER_PORT, by=frontend) == stage_.REFUSED
