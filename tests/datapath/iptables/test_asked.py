"""Rules that ask programs for names: where they stand, and that an answer becomes what the memory datapath decides."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib

import pytest

from agent import desired, errors
from agent.datapath import memory
from agent.datapath.iptables import asked, by_name, commands, interpreter, prefix, regions, render, ruleset, selftest
from agent.model import identity, net
from agent.policy import compiler
from tests.datapath.iptables import test_render
from tests.support import random_cluster, random_dialects

SEEDS = range(40)
PROGRAMS = pathlib.Path("/sys/fs/bpf/x")
ASKED = asked.Asked(PROGRAMS)
Table = ruleset.Table
WAY = (Table.MANGLE, Table.FILTER, Table.SECURITY)


def _rendered(state: desired.DesiredState, family: net.Family, cache: render.Cache | None = None) -> ruleset.Ruleset:
    return render.render(state, family, test_render.INTERFACES, 7, cache, by_name=ASKED)


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """A node that knows what DNS has told its pods, and one that does not."""

    state: desired.DesiredState
    learned: memory.MemoryDatapath
    ignorant: memory.MemoryDatapath
    models: dict[net.Family, interpreter.Model]

    @classmethod
    def drawn(cls, seed: int) -> tuple[Node, list[random_cluster.Attempt]]:
        """Draw the node that asked most."""
        cluster, answers = random_dialects.cluster(seed)
        pods = cluster.snapshot.pods
        name = next(iter(cluster.views))
        view = cluster.views[name]
        state = compiler.compile_node(cluster.snapshot, view).state
        learned, ignorant = memory.MemoryDatapath(), memory.MemoryDatapath()
        learned.apply(state)
        ignorant.apply(state)
        own = [one for one in answers if pods[one.pod].node == name]
        for one in own:
            cookie = next((box.netns_cookie for box in view.sandboxes if (box.namespace, box.pod) == one.pod), 0)
            learned.learn(cookie, one.name, [one.address])
        models = {family: interpreter.Model(_rendered(state, family)) for family in net.Family}
        return cls(state, learned, ignorant, models), list(random_dialects.attempts(cluster, own))

    def compare(self, attempt: random_cluster.Attempt) -> bool:
        """Have a flow judged both ways; tell whether a name decided."""
        flow = attempt.client, attempt.server, attempt.protocol.value, attempt.port
        client, server, protocol, port = flow
        expected, local, unnamed = (
            datapath.judge(client=client, server=server, protocol=protocol, port=port, hook=hook).allowed
            for datapath, hook in (
                (self.learned, memory.Hook.FORWARD),
                (self.learned, memory.Hook.LOCAL_IN),
                (self.ignorant, memory.Hook.LOCAL_IN),
            )
        )
        named = local and not unnamed
        model = self.models[net.family_of(client)]
        first = dataclasses.replace(test_render.packet(flow), named=named)
        for packet in (first, dataclasses.replace(first, state="ESTABLISHED")):
            outcome = model.hook("FORWARD", packet, *WAY)
            assert outcome.passed is expected, (flow, outcome)
            assert model.hook("INPUT", packet, *WAY).passed is local, flow
            assert outcome.mark == (0 if expected else outcome.mark), "marks of ours go no further"
        answer = model.hook("FORWARD", dataclasses.replace(test_render.reply(flow), named=named), *WAY)
        assert answer.passed is expected, (flow, answer)
        return named


def test_what_the_programs_say_is_what_passes() -> None:
    decided = 0
    for seed in SEEDS:
        node, attempts = Node.drawn(seed)
        decided += sum(node.compare(attempt) for attempt in attempts)
    assert decided > len(SEEDS)


def _named() -> desired.DesiredState:
    return next(
        node.state
        for node, _ in map(Node.drawn, SEEDS)
        if any(map(by_name.has_names, node.state.sets.values()))
        and Table.MANGLE in _rendered(node.state, net.Family.IPV4).chains
    )


def test_only_packets_of_endpoints_whose_set_has_names_are_asked_about() -> None:
    state = _named()
    rules = _rendered(state, net.Family.IPV4)
    named = {number for number, found in state.sets.items() if by_name.has_names(found)}
    owners = {
        str(net.host_network(address))
        for one in state.endpoints.values()
        if one.egress_set in named and not one.held
        for address in one.addresses
        if address.version == net.Family.IPV4.value
    }
    assert {str(member.network) for member in rules.sets["NW4-NAMED"].members} == owners
    assert all(chain.startswith(ruleset.CHAIN_PREFIX) for chain in rules.chains[Table.MANGLE])


def test_what_a_filter_restricts_is_denied_by_rules_and_asked_of_the_programs() -> None:
    key = desired.RowKey(identity.WORLD, net.Protocol.UDP.value, 53, 16)
    rows = {key: desired.Row(desired.Action.ALLOW, 1, asks=77)}
    found = desired.PolicySet(id=5, digest=b"", direction=net.Direction.EGRESS, rows=rows, isolating=())
    assert by_name.has_names(found)
    assert not regions.of_set(found).of(identity.WORLD).allows(net.Protocol.UDP.value, 53)


def test_nobody_is_asked_where_nobody_can_answer() -> None:
    state = _named()
    rules = render.render(state, net.Family.IPV4, test_render.INTERFACES, 7)
    assert Table.MANGLE not in rules.chains
    assert not any(
        "--object-pinned" in rule.words
        for chains in rules.chains.values()
        for found in chains.values()
        for rule in found
    )


def test_what_a_render_leaves_to_the_next_does_not_show() -> None:
    state = _named()
    cache = render.Cache()
    first = _rendered(state, net.Family.IPV4, cache)
    assert _rendered(state, net.Family.IPV4, cache) == first == _rendered(state, net.Family.IPV4)
    assert Table.MANGLE not in render.render(state, net.Family.IPV4, test_render.INTERFACES, 7, cache).chains


def test_an_emptied_chain_opens_nothing() -> None:
    """What falls off the chains of mangle is not named; nor is what others have marked so before."""
    node, attempts = next(
        drawn for drawn in map(Node.drawn, SEEDS) if any(drawn[0].compare(attempt) for attempt in drawn[1])
    )
    for attempt in attempts:
        if not node.compare(attempt):
            continue
        family = net.family_of(attempt.client)
        flow = attempt.client, attempt.server, attempt.protocol.value, attempt.port
        packet = dataclasses.replace(test_render.packet(flow), named=True)
        for chain in ("NW-NAMES", "NW-NAMES-FROM"):
            outcome = node.models[family].emptied(Table.MANGLE, chain).hook("FORWARD", packet, *WAY)
            assert not outcome.passed
            assert prefix.Note.DENIED in outcome.notes
        marked = dataclasses.replace(packet, named=False, mark=0x20)
        assert not node.models[family].hook("FORWARD", marked, *WAY).passed


def test_a_machine_that_takes_no_such_rule_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> None:
        raise errors.ApplyFailed("no such match")

    monkeypatch.setattr(commands, "restore", refuses)
    with pytest.raises(errors.NotSupported, match=r"asking a BPF program from iptables-legacy.*no such match"):
        selftest.require_asking(commands.Variant.LEGACY, PROGRAMS)


def test_a_pin_s_path_is_one_word() -> None:
    frame = ASKED.frame(
        net.Family.IPV4,
        {
            ipaddress.ip_address("10.0.0.1"): desired.Endpoint(
                id=1,
                namespace="x",
                pod="a",
                uid="u",
                labels={},
                netns_cookie=1,
                veth_ifindex=1,
                ingress_ifindex=1,
                addresses=(),
                ingress_set=0,
                egress_set=1,
            )
        },
    )
    words = {word for rules in frame.chains[Table.MANGLE].values() for rule in rules for word in rule.words}
    assert {str(PROGRAMS / name) for name in asked.PROGRAMS} <= words
