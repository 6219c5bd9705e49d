"""Tiers become rows, ports become prefixes: what the rows say must be what the clauses say, in the fewest rows."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping

import pytest

from agent import desired
from agent.model import net
from agent.policy import prefixes, rows, tiers

TCP, UDP, SCTP = net.Protocol.TCP, net.Protocol.UDP, net.Protocol.SCTP
ALLOW, DENY, PASS, LOG = tiers.Action.ALLOW, tiers.Action.DENY, tiers.Action.PASS, tiers.Action.LOG
EDGES = (0, 1, 2, 79, 80, 81, 127, 128, 443, 1023, 1024, 8080, 32767, 32768, 65534, 65535)
PROBES = sorted({*EDGES, *(edge - 1 for edge in EDGES if edge), *(edge + 1 for edge in EDGES if edge < 65535)})
OTHER = 1


def clause(rule: int, *spans: tuple[net.Protocol, int, int], action: tiers.Action = ALLOW) -> rows.Clause:
    ports = tuple((protocol, net.PortRange(first, last)) for protocol, first, last in spans)
    return rows.Clause(action, rule, ports)


def everything(rule: int, action: tiers.Action = ALLOW) -> rows.Clause:
    return rows.Clause(action, rule, None)


def union(*clauses: rows.Clause) -> rows.Stage:
    """Make a tier as NetworkPolicy has."""
    return rows.Stage(tiers.EndOfTier.DENY, ordered=False, clauses=clauses)


def ordered(*clauses: rows.Clause, end: tiers.EndOfTier = tiers.EndOfTier.NEXT_TIER) -> rows.Stage:
    return rows.Stage(end, ordered=True, clauses=clauses)


def longest(found: Mapping[rows.RowPort, desired.Row], protocol: int, port: int) -> desired.Row | None:
    for bits in range(16, -1, -1):
        row = found.get((protocol, port >> (16 - bits) << (16 - bits), bits))
        if row is not None:
            return row
    return found.get((desired.ANY_PROTOCOL, 0, 0))


def say(layers: Iterable[Mapping[rows.RowPort, desired.Row]], protocol: int, port: int) -> desired.Row:
    for layer in layers:
        row = longest(layer, protocol, port)
        if row is not None:
            return row
    return rows.DEFAULT_DENY


@pytest.mark.parametrize(
    ("first", "last", "count"),
    [(80, 80, 1), (0, 65535, 1), (1, 65535, 16), (8000, 8100, 4), (32768, 65535, 1), (1, 65534, 30), (65535, 65535, 1)],
)
def test_a_range_becomes_the_fewest_prefixes(first: int, last: int, count: int) -> None:
    """Rule A36: all of the range and nothing else."""
    found = prefixes.spanning(first, last)
    ports = [port for start, bits in found for port in range(start, start + (1 << 16 - bits))]
    assert ports == list(range(first, last + 1))
    assert len(found) == count


def test_a_rule_without_ports_is_one_row_for_every_protocol() -> None:
    """Rule A5."""
    outcome = rows.flatten([union(everything(7))])
    assert rows.cover(outcome) == {(desired.ANY_PROTOCOL, 0, 0): desired.Row(desired.Action.ALLOW, 7)}


def test_a_port_entry_without_port_is_one_row_for_its_protocol() -> None:
    """Rule A8."""
    outcome = rows.flatten([union(clause(7, (UDP, 0, 65535)))])
    assert rows.cover(outcome) == {(17, 0, 0): desired.Row(desired.Action.ALLOW, 7)}


def test_isolation_without_rules_has_no_rows() -> None:
    """Rule A3."""
    assert rows.cover(rows.flatten([union()])) == {}


def test_sctp_never_allows_tcp() -> None:
    """Rule A35."""
    found = rows.cover(rows.flatten([union(clause(7, (SCTP, 80, 80)))]))
    assert say([found], 6, 80) == rows.DEFAULT_DENY
    assert say([found], 132, 80) == desired.Row(desired.Action.ALLOW, 7)


def test_the_first_rule_that_allows_is_named_and_exceptions_nest() -> None:
    found = rows.cover(rows.flatten([union(clause(1, (TCP, 80, 80)), everything(2), clause(3, (TCP, 0, 65535)))]))
    assert found == {
        (desired.ANY_PROTOCOL, 0, 0): desired.Row(desired.Action.ALLOW, 2),
        (6, 80, 16): desired.Row(desired.Action.ALLOW, 1),
    }


def test_where_the_layer_below_allows_no_row_is_spent() -> None:
    below = rows.flatten([union(clause(1, (TCP, 80, 80)))])
    both = rows.flatten([union(clause(1, (TCP, 80, 80)), clause(2, (TCP, 80, 81)))])
    assert rows.cover(both, below) == {(6, 81, 16): desired.Row(desired.Action.ALLOW, 2)}
    assert rows.cover(below, below) == {}


def test_a_wide_row_spans_what_the_layer_below_allows_already() -> None:
    below = rows.flatten([union(clause(1, (TCP, 80, 80)))])
    both = rows.flatten([union(clause(1, (TCP, 80, 80)), clause(2, (TCP, 0, 65535)))])
    assert len(rows.cover(both, below)) <= 2


def test_admin_deny_beats_network_policy_and_pass_leads_to_it() -> None:
    admin = ordered(clause(1, (TCP, 22, 22), action=DENY), clause(2, (TCP, 80, 80), action=PASS), everything(3, DENY))
    outcome = rows.flatten([admin, union(everything(4))])
    found = rows.cover(outcome)
    assert say([found], 6, 22) == desired.Row(desired.Action.DENY, 1)
    assert say([found], 6, 80) == desired.Row(desired.Action.ALLOW, 4)
    assert say([found], 17, 53) == desired.Row(desired.Action.DENY, 3)


def test_pass_without_network_policy_leads_to_baseline_and_beyond_it_all_is_allowed() -> None:
    admin = ordered(clause(1, (TCP, 80, 90), action=PASS))
    baseline = ordered(clause(2, (TCP, 85, 85), action=DENY))
    found = rows.cover(rows.flatten([admin, baseline]))
    assert say([found], 6, 85) == desired.Row(desired.Action.DENY, 2)
    assert say([found], 6, 80) == rows.DEFAULT_ALLOW
    assert say([found], OTHER, 0) == rows.DEFAULT_ALLOW


def test_log_goes_on_and_end_of_tier_denies() -> None:
    """Rules F2, F3."""
    tier = ordered(everything(1, LOG), clause(2, (TCP, 80, 80)), end=tiers.EndOfTier.DENY)
    found = rows.cover(rows.flatten([tier, union(everything(3))]))
    assert say([found], 6, 80) == desired.Row(desired.Action.ALLOW, 2)
    assert say([found], 6, 81) == rows.DEFAULT_DENY


def test_in_an_unordered_tier_deny_beats_allow() -> None:
    found = rows.cover(rows.flatten([union(everything(1), clause(2, (TCP, 80, 80), action=DENY))]))
    assert say([found], 6, 80) == desired.Row(desired.Action.DENY, 2)
    assert say([found], 6, 81) == desired.Row(desired.Action.ALLOW, 1)


def test_a_peer_denied_by_default_gets_rows_where_everybody_else_is_allowed() -> None:
    """An ordered tier may pass one peer on to isolation while another rule allows everyone."""
    everyone = rows.flatten([ordered(everything(2)), union()])
    passed = rows.flatten([ordered(everything(1, PASS), everything(2)), union()])
    found = rows.cover(passed, everyone)
    assert found == {(desired.ANY_PROTOCOL, 0, 0): rows.DEFAULT_DENY}


def draw_span(rng: random.Random) -> tuple[net.Protocol, int, int]:
    first, last = sorted(rng.choices(EDGES, k=2))
    return rng.choice((TCP, UDP)), first, last


def draw(rng: random.Random) -> list[rows.Stage]:
    stages = []
    for _ in range(rng.randint(1, 3)):
        clauses = []
        for _ in range(rng.randint(0, 4)):
            action = rng.choice((ALLOW, ALLOW, DENY, PASS, LOG))
            spans = [draw_span(rng) for _ in range(rng.randint(0, 3))]
            number = rng.randint(1, 4)
            clauses.append(everything(number, action) if rng.random() < 0.2 else clause(number, *spans, action=action))
        stages.append(rows.Stage(rng.choice(list(tiers.EndOfTier)), ordered=rng.random() < 0.5, clauses=tuple(clauses)))
    return stages


def interpret(stages: list[rows.Stage], protocol: net.Protocol | None, port: int) -> desired.Row:
    """Read the tiers as their definition says, for one port."""
    for stage in stages:
        hits = [each for each in stage.clauses if each.covers(protocol, port) and each.action is not LOG]
        if not stage.ordered:
            hits.sort(key=lambda each: (DENY, ALLOW, PASS).index(each.action))
        if hits and hits[0].action is not PASS:
            action = desired.Action.ALLOW if hits[0].action is ALLOW else desired.Action.DENY
            return desired.Row(action, hits[0].rule)
        if not hits and stage.end is tiers.EndOfTier.DENY:
            return rows.DEFAULT_DENY
    return rows.DEFAULT_ALLOW


@pytest.mark.parametrize("seed", range(200))
def test_rows_say_what_the_tiers_say_port_by_port(seed: int) -> None:
    rng = random.Random(seed)
    everyone, single = draw(rng), draw(rng)
    below = rows.flatten(everyone)
    outcome = rows.flatten(single)
    upper, lower = rows.cover(outcome, below), rows.cover(below)
    for protocol, port in itertools.product((TCP, UDP, None), PROBES):
        number = OTHER if protocol is None else protocol.value
        assert say([lower], number, port) == interpret(everyone, protocol, port)
        expected, found = interpret(single, protocol, port), say([upper, lower], number, port)
        assert found.action is expected.action
        if expected.action is desired.Action.DENY:
            assert found == expected, "a denial names its own rule"


def fewest(want: tuple[int, ...]) -> int:
    """Try every cover of a small port space: the least rows for ports coloured `want`, 0 being uncovered."""

    def cost(low: int, high: int, inherited: int) -> int:
        if high - low == 1:
            return 0 if want[low] == inherited else (1 if want[low] else 99)
        middle = (low + high) // 2
        keep = cost(low, middle, inherited) + cost(middle, high, inherited)
        return min([keep, *(1 + cost(low, middle, each) + cost(middle, high, each) for each in set(want) - {0})])

    return cost(0, len(want), 0)


@pytest.mark.parametrize("seed", range(40))
def test_no_cover_has_fewer_rows(seed: int) -> None:
    rng = random.Random(seed)
    want = tuple(rng.choice((0, 1, 1, 2)) if rng.random() < 0.7 else 1 for _ in range(8))
    wide = 1 << 13  # eight equal parts of the port space, so that prefixes align with them
    clauses = [clause(colour, (TCP, i * wide, (i + 1) * wide - 1)) for i, colour in enumerate(want) if colour]
    assert len(rows.cover(rows.flatten([union(*clauses)]))) == fewest(want)
