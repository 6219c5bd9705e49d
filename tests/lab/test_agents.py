"""What a lab's agents are started with."""

from __future__ import annotations

import pathlib

import pytest

from agent import config, errors
from agent.datapath import engines
from agent.lab import agents, lab, orders, plan, resolve, rundir
from tests.lab import manifests

PATHS = rundir.RunDirectory("t")
PLAN = plan.plan(resolve.resolve([manifests.pod("a"), manifests.pod("b", node="node-2")]), plan.Topology.ROUTED)


@pytest.mark.parametrize("engine", lab.ENGINES)
@pytest.mark.parametrize("iptables", lab.VARIANTS)
def test_engine_and_iptables_reach_the_agent_as_flags_that_it_takes(
    engine: str, iptables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "_directory", pathlib.Path)
    parsed = config.parse(agents.flags("node-1", PATHS, engine, iptables))
    assert parsed.engine is engines.Engine(engine)
    assert parsed.iptables is engines.Iptables(iptables)


def test_a_node_has_one_lock_for_its_agent_and_its_services_and_no_two_nodes_share_one() -> None:
    locks = {name: agents.environment(name, PATHS)[orders.XTABLES_LOCKFILE] for name in PLAN.nodes}
    assert len(set(locks.values())) == 2
    for restore in orders.restores(orders.compare(None, PLAN), PATHS):
        (name,) = [name for name in PLAN.nodes if str(PATHS.node_netns(name)) == restore["netns"]]
        for command in restore["commands"]:
            assert command[:2] == ["env", f"XTABLES_LOCKFILE={locks[name]}"]


@pytest.mark.parametrize(("iptables", "first"), [("auto", "nft"), ("nft", "nft"), ("legacy", "legacy")])
def test_services_are_made_with_the_iptables_that_was_asked_for(iptables: str, first: str) -> None:
    for restore in orders.restores(orders.compare(None, PLAN), PATHS, iptables):
        assert f"-{first}-restore" in restore["commands"][0][2]


@pytest.mark.parametrize(("wrong", "field"), [({"engine": "memory"}, "engine"), ({"iptables": "ebtables"}, "iptables")])
def test_a_lab_without_such_an_engine_is_refused_before_anything_is_built(wrong: dict[str, str], field: str) -> None:
    with pytest.raises(errors.InvalidInput, match=f"^{field}: "):
        lab.Lab(name="t", **wrong)  # type: ignore[arg-type]
