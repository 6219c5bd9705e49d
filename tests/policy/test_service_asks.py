"""What a Service may be asked for, where its backends are told apart (rules A42, E17)."""

from __future__ import annotations

import pytest

from agent import desired
from agent.model import identity, net
from agent.policy import service_asks
from agent.services import frontends

SET, SERVICE, UDP = 7, 9, net.Protocol.UDP.value
ALLOW, DENY = desired.Action.ALLOW, desired.Action.DENY
FREE, DENIED = desired.Row(ALLOW, 1), desired.Row(DENY, 2)
ONE, TWO = desired.Row(ALLOW, 3, asks=33), desired.Row(ALLOW, 4, asks=44)


def _set(
    *backends: desired.Row | None, direction: net.Direction = net.Direction.EGRESS
) -> tuple[desired.PolicySet, dict[int, tuple[frontends.Backend, ...]]]:
    rows = {
        desired.RowKey(identity.FIRST_ALLOCATED + place, UDP, 53, 16): row for place, row in enumerate(backends) if row
    }
    policy_set = desired.PolicySet(id=SET, digest=b"", direction=direction, rows=rows, isolating=())
    served = tuple(frontends.Backend(identity.FIRST_ALLOCATED + place, 53, UDP) for place in range(len(backends)))
    return policy_set, {SERVICE: served}


@pytest.mark.parametrize(
    ("backends", "expected"),
    [
        ([ONE], 33),
        ([ONE, ONE], 33),
        ([ONE, None], 33),
        ([ONE, DENIED], 33),
        ([ONE, TWO], desired.ASKS_NOTHING),
        ([ONE, FREE], desired.ASKS_NOTHING),
        ([ONE, FREE, None], desired.ASKS_NOTHING),
    ],
)
def test_a_service_is_asked_for_what_all_its_backends_that_are_allowed_have_in_common(
    backends: list[desired.Row | None], expected: int
) -> None:
    policy_set, services = _set(*backends)
    found = service_asks.find([policy_set], services)
    assert found.of == {(SET, SERVICE): expected}
    assert found.nothing == ({desired.ASKS_NOTHING: frozenset()} if expected == desired.ASKS_NOTHING else {})


@pytest.mark.parametrize("backends", [[FREE], [None], [FREE, DENIED], []])
def test_a_service_none_of_whose_backends_restricts_is_not_there(backends: list[desired.Row | None]) -> None:
    policy_set, services = _set(*backends)
    assert service_asks.find([policy_set], services) == service_asks.Asks(of={}, nothing={})


def test_sets_of_ingress_are_asked_by_nobody() -> None:
    policy_set, services = _set(ONE, direction=net.Direction.INGRESS)
    assert service_asks.find([policy_set], services).of == {}
