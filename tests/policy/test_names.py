"""Name classes: their numbers, the rows that they get, and what is said where names cannot be enforced."""

from __future__ import annotations

import dataclasses
import ipaddress
from collections.abc import Iterable

import pytest

from agent import desired
from agent.datapath import memory
from agent.fqdn import classes, patterns
from agent.model import endpoint, fqdn, identity, labels, net, resources
from agent.policy import compiler, names, rows, selectors, sets, tiers
from tests.support import cases, flows

TABLE = cases.DIRECTORY / "clusternetworkpolicy" / "domain-names.yaml"
ALLOW = tiers.Action.ALLOW
EVERY = desired.RowKey(0, desired.ANY_PROTOCOL, 0, 0)


def compiled(*, learns: bool, step: int = 1) -> compiler.Compiled:
    cluster = flows.snapshot_of(cases.load(TABLE).steps[step])
    pods = [pod for pod in cluster.pods.values() if pod.node == "node-1"]
    sandboxes = tuple(
        endpoint.Sandbox(
            namespace=pod.namespace,
            pod=pod.name,
            uid=pod.uid,
            netns_cookie=number,
            veth_ifindex=number,
            ingress_ifindex=number,
            addresses=pod.addresses,
        )
        for number, pod in enumerate(pods, start=1000)
    )
    view = endpoint.NodeView(name="node-1", sandboxes=sandboxes, learns_names=learns)
    return compiler.compile_node(cluster, view)


def test_classes_share_the_column_of_identities_and_no_number() -> None:
    state = compiled(learns=True).state
    assert state.names.contents
    assert min(state.names.contents) >= identity.FIRST_NAME_CLASS > max(state.identities)
    rows_of = {key.identity for one in state.sets.values() for key in one.rows}
    assert rows_of & state.names.contents.keys()
    assert rows_of <= {identity.ANY, *state.identities, *state.names.contents}


def test_a_datapath_that_learns_no_names_gets_no_row_of_them_and_says_so_at_each_rule() -> None:
    """Rules A50, D15, E15."""
    without, with_names = compiled(learns=False), compiled(learns=True)
    assert without.state.names == classes.Classes()
    found = {row for one in without.state.sets.values() for row in one.rows.values()}
    assert {(row.rank, row.passed) for row in found} == {(desired.NO_RANK, desired.NO_RANK)}
    assert [str(problem.ref) for problem in without.problems] == [
        "CiliumNetworkPolicy x/later",
        "ClusterNetworkPolicy names",
    ]
    assert [problem.path for problem in without.problems] == ["spec.egress[0].toFQDNs", "spec.egress[2].to"]
    assert with_names.problems == ()
    assert without.state.sets.keys() == with_names.state.sets.keys()


def selection(*rules: tiers.Rule, name: str = "names") -> sets.Selection:
    direction, ref = net.Direction.EGRESS, resources.ObjectRef("CiliumNetworkPolicy", "x", name)
    policy = tiers.Policy(
        ref=ref, namespace="x", subject=labels.EVERYTHING, directions=frozenset({direction}), egress=rules
    )
    tier = tiers.Tier(name="NetworkPolicy", end=tiers.EndOfTier.DENY, policies=(policy,), ordered=False)
    return sets.Selection(direction=direction, stack=(tier,), refs=((tier.name, ref),))


def by_name(index: int, *texts: str) -> tiers.Rule:
    peer = tiers.NamesPeer(patterns=tuple(patterns.parse_cilium_pattern(text) for text in texts))
    return tiers.Rule(action=ALLOW, index=index, peers=(peer,))


def test_a_pattern_without_room_says_so_at_its_rule_and_the_others_of_the_rule_count() -> None:
    """Rule A50, requirement F4."""
    hard = [f"*{letter}*.example.com" for letter in "abcdefghijkl"]
    found = names.find(
        [selection(by_name(0, "a.example"), by_name(1, "*.b.example", *hard))], classes.build, learns=True
    )
    assert {(problem.path, problem.reason.partition(":")[0]) for problem in found.problems} == {
        ("spec.egress[1].toFQDNs", f"{text} matches no name") for text in hard
    }
    assert found.classes.of("a.example")
    assert found.classes.of("x.b.example")
    assert not found.classes.of("abcdefghijkl.example.com")


def test_names_of_a_set_with_more_rules_than_there_are_ranks_are_denied_and_each_rule_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rule A50."""
    few = selection(by_name(0, "a.example"), name="few")
    many = selection(by_name(0, "a.example"), by_name(1, "b.example"), tiers.Rule(action=ALLOW, index=2), name="many")
    monkeypatch.setattr(sets, "RULES_MAX", 2)
    assert names.find([few], classes.build, learns=True).problems == ()
    found = names.find([few, many], classes.build, learns=True)
    assert [problem.path for problem in found.problems] == ["spec.egress[0].toFQDNs", "spec.egress[1].toFQDNs"]
    compiled_, *_ = sets.build([few, many], selectors.Index(()), found.classes.contents)
    assert any(key.identity in found.classes.contents for key in compiled_[few].rows)
    assert not any(key.identity in found.classes.contents for key in compiled_[many].rows)


def test_the_names_of_one_policy_are_one_group_whatever_selects_with_it() -> None:
    """Requirement F4: what one policy asks for must not take the room of another's."""
    asked: list[frozenset[fqdn.NamePattern]] = []

    def classify(groups: Iterable[Iterable[fqdn.NamePattern]]) -> classes.Classes:
        asked.extend(map(frozenset, groups))
        return classes.Classes()

    names.find([selection(by_name(0, "a.example"), by_name(1, "b.example"))], classify, learns=True)
    assert [sorted(map(str, group)) for group in asked] == [["a.example", "b.example"]]


def test_what_passes_the_admin_tier_by_a_static_rule_is_ranked_before_a_name_that_comes_later() -> None:
    """Rule D2: the name's Accept is asked after the Pass, and the name of the next tier still counts."""
    admin = rows.Clause(ALLOW, 7, None, 2)
    later = rows.Clause(ALLOW, 8, ((net.Protocol.TCP, net.PortRange(443, 443)),), 5)
    outcome = rows.by_name([admin], [later])
    assert outcome.others == desired.Row(desired.Action.ALLOW, 7, 2, desired.NO_RANK)
    assert outcome.stretches(net.Protocol.TCP)[1] == (443, 443, desired.Row(desired.Action.ALLOW, 7, 2, 5))
    assert rows.by_name([], [later]).others == rows.DEFAULT_DENY


@pytest.mark.parametrize(
    ("static", "named", "allowed"),
    [
        ((desired.NO_RANK, desired.NO_RANK), (3, desired.NO_RANK), True),
        ((2, desired.NO_RANK), (3, desired.NO_RANK), False),
        ((4, desired.NO_RANK), (3, desired.NO_RANK), True),
        ((desired.NO_RANK, 2), (3, desired.NO_RANK), False),
        ((desired.NO_RANK, 4), (3, desired.NO_RANK), True),
        ((desired.NO_RANK, 2), (3, 9), True),
        ((8, 2), (3, 9), False),
        ((9, desired.NO_RANK), (desired.NO_RANK, 9), False),
    ],
)
def test_a_name_allows_what_it_is_asked_before(
    static: tuple[int, int], named: tuple[int, int], *, allowed: bool
) -> None:
    """Rules D1, D2, E6, E15: by ranks alone, as the kernel will."""
    pod, far = ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("203.0.113.7")
    known = classes.build([[patterns.parse_cilium_name("a.example")]])
    (class_,) = known.contents
    state = desired.DesiredState(
        endpoints={
            9: desired.Endpoint(
                id=9,
                namespace="x",
                pod="a",
                uid="u",
                labels=labels.NO_LABELS,
                netns_cookie=77,
                veth_ifindex=3,
                ingress_ifindex=3,
                addresses=(pod,),
                ingress_set=0,
                egress_set=4,
            )
        },
        sets={
            4: desired.PolicySet(
                id=4,
                digest=b"",
                direction=net.Direction.EGRESS,
                rows={
                    EVERY: desired.Row(desired.Action.DENY, 1, *static),
                    dataclasses.replace(EVERY, identity=class_): desired.Row(desired.Action.ALLOW, 2, *named),
                },
                isolating=(),
            )
        },
        names=known,
    )
    datapath = memory.MemoryDatapath()
    datapath.apply(state)
    assert not datapath.judge(client=pod, server=far, protocol=6, port=80).allowed
    datapath.learn(77, "a.example", [far])
    judged = datapath.judge(client=pod, server=far, protocol=6, port=80)
    assert judged.allowed is allowed
    assert datapath.judge_connect(77, far, 6, 80).allowed is allowed
    assert judged.rule == (2 if allowed else 1)
