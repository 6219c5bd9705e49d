"""What an egress set allows of a Service's backends."""

from __future__ import annotations

import random

from agent import desired
from agent.model import identity, net
from agent.policy import classes
from agent.services import frontends

ALLOW, DENY = desired.Action.ALLOW, desired.Action.DENY
ALL, NONE = desired.ServiceClass.ALL, desired.ServiceClass.NONE
ONE, TWO = frontends.Backend(300, 80, 6), frontends.Backend(301, 80, 6)


def egress(*rows: tuple[int, int, int, int, desired.Action], number: int = 5) -> desired.PolicySet:
    """Make a set; the rule of a row is its place, from 1."""
    return desired.PolicySet(
        id=number,
        digest=b"",
        direction=net.Direction.EGRESS,
        rows={desired.RowKey(*key): desired.Row(action, rule) for rule, (*key, action) in enumerate(rows, start=1)},
        isolating=(),
    )


def test_all_backends_allowed_names_the_rule_of_the_first() -> None:
    found = classes.classify([egress((301, 0, 0, 0, ALLOW), (300, 6, 80, 16, ALLOW))], {9: (ONE, TWO)})
    assert found == {(5, 9): (ALL, 2)}


def test_no_backend_allowed() -> None:
    assert classes.classify([egress()], {9: (ONE, TWO)}) == {(5, 9): (NONE, 0)}
    assert classes.classify([egress((300, 0, 0, 0, DENY))], {9: (ONE,)}) == {(5, 9): (NONE, 1)}


def test_mixed_backends_have_no_row() -> None:
    assert classes.classify([egress((300, 0, 0, 0, ALLOW))], {9: (ONE, TWO)}) == {}


def test_the_rows_of_any_decide_by_port_and_an_identitys_own_come_first() -> None:
    everyone = (identity.ANY, 6, 80, 16, ALLOW)
    other = (frontends.Backend(302, 81, 6),)
    assert classes.classify([egress(everyone)], {9: (ONE, TWO), 10: other}) == {(5, 9): (ALL, 1), (5, 10): (NONE, 0)}
    assert classes.classify([egress(everyone, (300, 0, 0, 0, DENY))], {9: (ONE,)}) == {(5, 9): (NONE, 2)}


def test_ingress_sets_have_no_say() -> None:
    ingress = desired.PolicySet(id=5, digest=b"", direction=net.Direction.INGRESS, rows={}, isolating=())
    assert classes.classify([ingress], {9: (ONE,)}) == {}


def test_the_short_cut_by_ports_agrees_with_looking_at_every_backend() -> None:
    rng = random.Random(2)
    for _ in range(200):
        rows = {
            (rng.choice((0, 300, 301)), 6, port, 16, rng.choice((ALLOW, DENY)))
            for port in rng.sample((80, 81, 82), rng.randint(0, 3))
        }
        services = {
            number: tuple(
                sorted({frontends.Backend(rng.randint(300, 304), rng.choice((80, 81, 82)), 6) for _ in range(3)})
            )
            for number in range(1, 6)
        }
        policy_set = egress(*sorted(rows, key=repr))
        reader = classes._Reader(policy_set)
        expected = {(5, number): frontends.classify(backends, reader.row) for number, backends in services.items()}
        found = classes.classify([policy_set], services)
        assert found == {key: value for key, value in expected.items() if value is not None}
