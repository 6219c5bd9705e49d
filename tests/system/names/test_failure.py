"""What goes on without the agent, what a restart and a new policy keep, and a content network's hour: F23 to F27."""

from __future__ import annotations

import contextlib
import json
import pathlib
import random
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from agent.model import net
from tests.system import stress
from tests.system.names import stage as stage_
from tests.system.names import zones

pytestmark = pytest.mark.root

FIGURES = pathlib.Path("build/figures")
ORPHANS, ORPHANS_FIRST = 1000, 20_000
OVER_RESTART, OVER_RESTART_FIRST = 1000, 22_000
PER_SECOND = 50
CHANGE_S = 0.5
FLIPPING_S = 4
ENFORCED_NS = 1_000_000_000
SEED = 11
SAVED_S = 2.5
"""What was answered is written down a second later."""


def test_new_addresses_are_learned_while_the_agent_is_dead(stage: stage_.Stage) -> None:
    """F24: killed, not ended."""
    if not stage.in_kernel:
        pytest.skip("F30, not F24: see test_fallback")
    stage.apply(stage_.cilium(stage_.by_name(f"*.{zones.FRESH}")))
    stress.end_agents(stage.lab, stage_.NODE)
    try:
        wanted = {"first": ORPHANS_FIRST, "count": ORPHANS, "port": stage_.PORT}
        seen = stage.client.ask(do="fresh", resolver=stage.resolver, **wanted)
        assert stage.visit("other.test") == {stage_.REFUSED}
    finally:
        stress.start_agents(stage.lab, stage_.NODE, flags=stage_.FLAGS)
    assert (seen["failed"], seen["outcomes"]) == ([], {"ok": ORPHANS})


def test_a_restart_loses_nothing_and_changes_no_verdict(stage: stage_.Stage) -> None:
    """F25: new addresses meanwhile, and those that were learned before."""
    if not stage.in_kernel:
        pytest.skip("nothing new is learned meanwhile: see test_fallback")
    policy = stage_.cilium(stage_.by_name(f"*.{zones.FRESH}", "restart.one.test"))
    stage.apply(policy)
    assert stage.visit("restart.one.test") == {"ok"}
    before = stage.learned()
    wanted = {"first": OVER_RESTART_FIRST, "count": OVER_RESTART, "port": stage_.PORT}
    stage.client.tell(do="fresh", resolver=stage.resolver, **wanted)
    stage_.restart(stage.lab, stage_.NODE)
    stage.apply(policy)
    seen = stage.client.answer()
    assert (seen["failed"], seen["outcomes"]) == ([], {"ok": OVER_RESTART})
    after = stage.learned()
    assert {address: one.class_ for address, one in before.items()}.items() <= {
        address: one.class_ for address, one in after.items()
    }.items()
    assert all(after[address].expires_ns >= one.expires_ns for address, one in before.items())


@pytest.mark.parametrize("restarted", [False, True], ids=["at once", "over a restart"])
def test_a_policy_that_comes_after_the_answer_finds_it(stage: stage_.Stage, *, restarted: bool) -> None:
    """F26: without another look-up; where packets wait, those of pods whose policies have names."""
    name = "later.test" if restarted else "exact.test"
    stage.apply(stage_.cilium() if stage.in_kernel else stage_.cilium(stage_.by_name("db.test")))
    (address,) = stage.ask(name)["addresses"]
    assert stage.reach(address) == stage_.REFUSED
    if restarted:
        time.sleep(SAVED_S)
        stage_.restart(stage.lab, stage_.NODE)
    stage.apply(stage_.cilium(stage_.by_name(name)))
    assert stage.reach(address) == "ok"


def test_a_rule_that_is_gone_closes_within_a_second(stage: stage_.Stage) -> None:
    """F27: counted from the change of the manifests, by the agent's clock."""
    stage.apply(stage_.cilium(stage_.by_name("api.one.test")))
    (address,) = stage.ask("api.one.test")["addresses"]
    assert stage.reach(address) == "ok"
    stage.apply(stage_.cilium())
    assert stage.reach(address) == stage_.REFUSED
    status = stage.agent.status()
    assert status.enforced_unix_ns - status.source_changed_unix_ns < ENFORCED_NS


def _changes(chance: random.Random) -> Iterator[dict[int, dict[str, list[net.Address]]]]:
    """Yield what the names of the content network say, one after the other."""
    while True:
        yield {
            ttl: {
                name: [
                    zones.ipv4(zones.CDN_FIRST + number)
                    for number in chance.sample(range(zones.CDN_ADDRESSES), zones.CDN_ANSWER)
                ]
                for name in names
            }
            for ttl, names in zones.cdn_names().items()
        }


@contextlib.contextmanager
def _changing(stage: stage_.Stage) -> Iterator[None]:
    """Have the names of the content network have other addresses, twice a second."""
    changes = _changes(random.Random(SEED))
    stage.changing.say(next(changes))
    over = threading.Event()

    def change() -> None:
        while not over.wait(CHANGE_S):
            stage.changing.say(next(changes))

    thread = threading.Thread(target=change)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _note(stage: stage_.Stage, name: str, seen: Mapping[str, Any]) -> None:
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"names-{name}-{stage.engine.name}.txt").write_text(f"{json.dumps(seen)}\n")


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(5, id="short"), pytest.param(600, id="long", marks=[pytest.mark.matrix, pytest.mark.slow])],
)
def test_a_content_network_is_never_denied_and_takes_no_more_room_than_it_has_addresses(
    stage: stage_.Stage, seconds: int
) -> None:
    """F23: TTLs of 1 to 5 seconds, 8 of 1,000 addresses at random, 50 questions a second."""
    stage.apply(stage_.cilium(stage_.by_name(f"**.{zones.CDN}")))
    browsing = {"seconds": seconds, "per_second": PER_SECOND, "seed": SEED, "port": stage_.PORT}
    with _changing(stage):
        stage.client.tell(do="browse", resolver=stage.resolver, **browsing)
        seen = stage.client.answer(seconds + 60)
    rows = [one for one in stage.learned() if zones.is_cdn(one)]
    _note(stage, f"cdn-{seconds}", {**seen, "rows": len(rows)})
    assert seen["outcomes"].keys() == {"ok", "again ok"}
    assert seen["turns"] >= seconds * PER_SECOND / 2
    assert zones.CDN_ANSWER < len(rows) <= zones.CDN_ADDRESSES


def test_policies_that_come_and_go_close_nothing_that_another_rule_keeps_open(stage: stage_.Stage) -> None:
    """F17, F26: each gives names other classes, which what is learned already has to have before the flip.

    No more of them than the four that one address can have, whatever names share it.
    """
    kept = stage_.by_name(f"**.{zones.CDN}")
    others = [
        stage_.by_name(pattern, port=stage_.OTHER_PORT)
        for pattern in (f"*.t1.{zones.CDN}", f"n1.t*.{zones.CDN}", f"n2.t2.{zones.CDN}")
    ]
    chance = random.Random(SEED)
    stage.apply(stage_.cilium(kept))
    browsing = {"seconds": FLIPPING_S, "per_second": PER_SECOND, "seed": SEED, "port": stage_.PORT}
    end, flips = time.monotonic() + FLIPPING_S, 0
    with _changing(stage):
        stage.client.tell(do="browse", resolver=stage.resolver, **browsing)
        while time.monotonic() < end:
            stage.apply(stage_.cilium(*chance.sample(others, chance.randrange(len(others))), kept))
            flips += 1
        seen = stage.client.answer()
    _note(stage, "flips", {**seen, "flips": flips})
    assert seen["outcomes"].keys() == {"ok", "again ok"}
    assert flips > 1
