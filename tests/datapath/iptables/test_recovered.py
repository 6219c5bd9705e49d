"""Rules read back are the rules that were written, and what was taken out of them is named."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Mapping

import pytest

from agent import desired
from agent.datapath import judge, tracing
from agent.datapath.iptables import compared, explained, interpreter, recovered, render, ruleset, text
from agent.model import net
from tests.states import pictures

FILTER = ruleset.Table.FILTER
SOME = tuple(pictures.NAMES)[::6]
FLOW = judge.Flow(ipaddress.ip_address("10.0.1.2"), ipaddress.ip_address("10.0.1.3"), 6, 80)
COMPILED = tracing.Answer(allowed=True, reason="rule_allowed", why="")


def saved(rules: ruleset.Ruleset, version: str = "b") -> Mapping[ruleset.Table, str]:
    """Write what iptables-save would print."""
    versions = dict.fromkeys(rules.sets, version)
    return {
        table: "\n".join(
            [f"*{table.value}", ":FORWARD ACCEPT [0:0]", *(f":{chain} - [0:0]" for chain in chains)]
            + [f"-A {chain} {text.rule_text(rule, versions)}" for chain, found in chains.items() for rule in found]
            + ["-A FORWARD -j OTHERS", "COMMIT"]
        )
        for table, chains in rules.chains.items()
    }


def read_back(rules: ruleset.Ruleset, *, version: str = "b") -> ruleset.Ruleset:
    kernel = {name + version: content for name, content in rules.sets.items()}
    return recovered.rules(saved(rules, version), rules.jumps, rules.family, kernel.get)


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("family", list(net.Family))
def test_what_was_written_is_read_back_word_by_word(name: str, family: net.Family) -> None:
    rules = render.render(pictures.named(name), family, {}, 7)
    found = read_back(rules)
    assert found.chains == rules.chains
    used = {
        each for chains in rules.chains.values() for chain in chains.values() for rule in chain for each in rule.sets
    }
    assert {each: found.sets[each] for each in found.sets} == {each: rules.sets[each] for each in used}


def test_two_versions_of_one_set_are_two_sets() -> None:
    versions: dict[str, str] = {}
    first = recovered.rule("-m set --match-set NW4-xa src -j DROP", versions)
    second = recovered.rule("-m set --match-set NW4-xb src -j DROP", versions)
    assert (first.sets, second.sets) == (("NW4-x",), ("NW4-xb",))
    assert versions == {"NW4-x": "NW4-xa", "NW4-xb": "NW4-xb"}


def test_a_comment_that_is_not_ours_stays() -> None:
    rule = recovered.rule('-m comment --comment "somebody else" -j DROP', {})
    assert rule.words == ("-m", "comment", "--comment", "somebody else", "-j", "DROP")


def state() -> desired.DesiredState:
    return pictures.named("allowed by port name")


def layer(read: ruleset.Ruleset, flow: judge.Flow = FLOW) -> tracing.Layer:
    rules = render.render(state(), net.Family.IPV4, {}, 7)
    found = compared.layer(
        interpreter.Model(rules),
        interpreter.Model(read),
        (rules, read),
        tracing.Question(flow=flow, hook=judge.Hook.FORWARD),
        COMPILED,
    )
    assert found is not None
    return found


def rules_now() -> ruleset.Ruleset:
    return read_back(render.render(state(), net.Family.IPV4, {}, 7))


def allowed_flow() -> judge.Flow:
    """Return a flow that some rule allows."""
    known = state()
    for client in known.hosts:
        for server in known.hosts:
            flow = judge.Flow(client, server, 6, 80)
            looked = layer(rules_now(), flow)
            if (
                client != server
                and looked.loaded.allowed
                and any("NW-SET" in one.table for one in looked.loaded.lookups)
            ):
                return flow
    raise AssertionError("no such flow")


def test_rules_as_they_were_rendered_differ_nowhere() -> None:
    assert layer(rules_now()).differences == ()


def test_a_rule_that_is_gone_is_named_with_its_chain() -> None:
    flow, read = allowed_flow(), rules_now()
    chain = next(name for name in layer(read, flow).loaded.lookups if "NW-SET" in name.table).table.split()[1]
    chains = {**read.chains, FILTER: {**read.chains[FILTER], chain: read.chains[FILTER][chain][1:]}}
    found = layer(dataclasses.replace(read, chains=chains), flow)
    assert not found.loaded.allowed
    (difference,) = found.differences
    assert difference.table == f"filter {chain} (IPv4)"
    assert (difference.row, difference.found) == ("rule 1", "not there")


def test_a_member_that_is_gone_is_named_with_its_set() -> None:
    flow, read = allowed_flow(), rules_now()
    looked = next(one for one in layer(read, flow).loaded.lookups if one.table.startswith("set NW4-N-"))
    name = looked.table.removeprefix("set ")
    content = read.sets[name]
    members = {one: found for one, found in content.members.items() if ruleset.describe(one) != looked.entry}
    sets = {**dict(read.sets), name: dataclasses.replace(content, members=members)}
    found = layer(dataclasses.replace(read, sets=sets), flow)
    assert not found.loaded.allowed
    assert [(one.table, one.row) for one in found.differences] == [(looked.table, looked.entry)]


def test_a_jump_that_is_gone_is_named() -> None:
    read = dataclasses.replace(rules_now(), jumps={FILTER: ()})
    found = layer(read)
    assert ("filter FORWARD (IPv4)", "-j NW-FORWARD") in {(one.table, one.row) for one in found.differences}


def test_a_chain_that_is_gone_and_a_rule_nobody_can_follow_are_told() -> None:
    read = rules_now()
    for change, why in (
        ({name: found for name, found in read.chains[FILTER].items() if name != "NW-EGRESS"}, "there is none"),
        (
            {**read.chains[FILTER], "NW-EGRESS": (ruleset.Rule(("-m", "quota", "--quota", "5", "-j", "DROP")),)},
            "none of",
        ),
    ):
        found = layer(dataclasses.replace(read, chains={**read.chains, FILTER: change}))
        assert found.loaded.reason == "unread"
        assert why in found.loaded.why
        assert found.differences


def test_a_rule_is_explained_by_whose_it_is() -> None:
    known = state()
    endpoint = next(item for item in known.endpoints.values() if item.ingress_set)
    chain = f"NW-SET-{endpoint.ingress_set:08x}"
    rule = ruleset.Rule(("-d", f"{endpoint.addresses[0]}/32", "-g", chain))
    assert f"# {endpoint.namespace}/{endpoint.pod}, set {endpoint.ingress_set} (" in explained.rule(rule, known)
    assert explained.concerns("NW-INGRESS", rule, endpoint)
    assert explained.concerns(chain + "-R", ruleset.Rule(("-j", "DROP")), endpoint)
    assert not explained.concerns("NW-SET-00000001", rule, endpoint)
    assert explained.set_number("NW-SET-zz") is None
    assert explained.rule(ruleset.Rule(("-j", "DROP")), known) == "-j DROP"
