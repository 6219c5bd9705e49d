"""What is said of names: what a pod was told, what of it counts, and what that opens."""

from __future__ import annotations

import dataclasses

import pytest

from agent import errors
from agent.fqdn import patterns
from agent.model import net, resources
from agent.rpc import names
from tests.support import served, told

NOW = told.enforcement()
TOLD = told.told(NOW)


def test_what_a_pod_was_told_is_joined_with_what_the_kernel_learned() -> None:
    first, second, unmeant = names.addresses(NOW, TOLD, "x/a")
    assert (first.namespace, first.pod, first.address, first.used) == ("x", "a", told.FIRST, True)
    assert [(one.name, one.expires_s) for one in first.names] == [(told.NAME, 60.0), ("www.example.com", 30.0)]
    assert [(one.patterns, one.expires_s) for one in first.classes] == [((told.STARRED,), 60.0)]
    assert [one.expires_s for one in second.classes] == [-5.0]
    assert (unmeant.address, unmeant.classes) == (told.UNMEANT, ())
    assert names.addresses(NOW, TOLD) == [first, second, unmeant]
    assert names.addresses(NOW, TOLD, "x/b") == []
    with pytest.raises(errors.NotFound):
        names.addresses(NOW, TOLD, "x/nobody")


def test_what_was_learned_for_a_policy_that_is_gone_has_no_pattern() -> None:
    gone = served.enforcement()
    first, *_ = names.addresses(gone, TOLD, "x/a")
    assert [one.patterns for one in first.classes] == [()]


def test_patterns_are_listed_with_their_policies_and_what_counts_for_them() -> None:
    found = names.known_names(NOW, TOLD)
    assert found.learns
    assert [(one.pattern, one.dialect, one.policies, one.addresses) for one in found.patterns] == [
        (told.STARRED, "CiliumNetworkPolicy", (told.BY_NAME.ref,), 1),
        (told.INFIX, "CiliumNetworkPolicy", (told.BY_NAME.ref,), 0),
    ]
    resolvers = dataclasses.replace(NOW, state=dataclasses.replace(NOW.state, resolvers=frozenset({told.FIRST})))
    assert names.known_names(resolvers, TOLD).resolvers == (told.FIRST,)


def test_a_pattern_that_has_no_room_says_why() -> None:
    hard = resources.NamesPeer(
        patterns=tuple(patterns.parse_cilium_pattern(f"*{letter}*.example.com") for letter in "abcdefghijkl")
    )
    policy = dataclasses.replace(told.BY_NAME, name="hard", egress=(resources.PolicyRule(peers=(hard,)),))
    found = names.known_names(told.enforcement(policy), TOLD)
    assert {one.pattern for one in found.patterns if one.refused} == {str(pattern) for pattern in hard.patterns}


@pytest.mark.parametrize(
    ("pod", "asked", "because"),
    [
        ("x/a", told.NAME, "1 of 2 addresses are open"),
        ("x/a", "API.example.com.", "1 of 2 addresses are open"),
        ("x/a", str(told.FIRST), "1 of 1 addresses are open"),
        ("x/a", str(told.SECOND_ADDRESS), "has expired"),
        ("x/a", str(told.UNMEANT), "what the pod was told of it opens nothing"),
        ("x/a", "elsewhere.example.org", "what the pod was told of it opens nothing"),
        ("x/a", "new.example.com", "no resolver that is believed told the pod of it"),
        ("x/b", told.NAME, "no resolver that is believed told the pod of it"),
    ],
)
def test_what_is_in_the_way_is_said(pod: str, asked: str, because: str) -> None:
    """F16: whoever is denied finds out whether to resolve again, ask another resolver, or write a policy."""
    assert because in names.explain(NOW, TOLD, pod, asked).because[0]


def test_a_name_is_explained_with_its_patterns_policies_and_rows() -> None:
    found = names.explain(NOW, TOLD, "a", told.NAME)
    assert (found.namespace, found.pod, found.asked) == ("x", "a", told.NAME)
    assert found.patterns == (told.STARRED,)
    assert found.policies == (told.BY_NAME.ref,)
    assert [one.address for one in found.addresses] == [told.FIRST, told.SECOND_ADDRESS]
    assert [(row.peer, row.protocol, row.ports, row.action) for row in found.rows] == [
        (told.STARRED, "TCP", "443", "allow")
    ]
    other = names.explain(NOW, told.told(NOW, "x/b"), "x/b", told.NAME)
    assert other.because == ("no policy by name that selects the pod means it",)


def test_it_is_said_which_rule_lets_a_pod_ask_for_a_name() -> None:
    """Rule E17."""
    asks = tuple(map(patterns.parse_cilium_pattern, (told.STARRED, "a.example.org")))
    match = resources.PortMatch(protocol=net.Protocol.UDP, port=net.PortRange(53, 53), asks=asks)
    policy = dataclasses.replace(told.BY_NAME, name="asks", egress=(resources.PolicyRule(ports=(match,)),))
    now = told.enforcement(policy)
    restricts = "where CiliumNetworkPolicy x/asks egress[0] has it ask for *.example.com or a.example.org alone"
    for asked, admitted in ((told.NAME, "it may ask"), ("example.com", "it may not ask")):
        assert f"{restricts}, {admitted} for this" in names.explain(now, told.told(now), "x/a", asked).because
    known = {one.pattern: one.policies for one in names.known_names(now, told.told(now)).patterns}
    assert known["a.example.org"] == (policy.ref,)


def test_an_engine_that_learns_nothing_says_so() -> None:
    blind = dataclasses.replace(TOLD, learns=False)
    assert names.explain(NOW, blind, "x/a", told.NAME).because == (names.NOT_LEARNED,)


@pytest.mark.parametrize("wrong", ["", ".", "a b", "e\x1b[31m", "bücher.example", "x" * 300])
def test_what_is_neither_name_nor_address_is_refused(wrong: str) -> None:
    with pytest.raises(errors.InvalidInput, match="host name"):
        names.explain(NOW, TOLD, "x/a", wrong)
