"""What an egress set allows of a Service's backends."""

from __future__ import annotations

import dataclasses
import ipaddress
import random

import pytest

from agent import desired, snapshot
from agent.model import endpoint, fqdn, identity, labels, net, resources
from agent.policy import classes, compiler
from agent.services import frontends
from tests.states import pictures
from tests.support import random_cluster

ALLOW, DENY = desired.Action.ALLOW, desired.Action.DENY
ALL, NONE = desired.ServiceClass.ALL, desired.ServiceClass.NONE
FIRST_CLASS = identity.FIRST_NAME_CLASS
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
        reader = classes.Reader(policy_set)
        expected = {(5, number): frontends.classify(backends, reader.row) for number, backends in services.items()}
        found = classes.classify([policy_set], services)
        assert found == {key: value for key, value in expected.items() if value is not None}


def by_name(
    key: tuple[int, int, int, int], rank: int = desired.NO_RANK, passed: int = desired.NO_RANK
) -> dict[desired.RowKey, desired.Row]:
    return {desired.RowKey(*key): desired.Row(ALLOW, 7, rank, passed)}


@pytest.mark.parametrize(
    ("named", "denying", "found"),
    [
        (by_name((FIRST_CLASS, 6, 80, 16), passed=3), desired.Row(DENY, 0), {}),
        (by_name((FIRST_CLASS, 6, 80, 16), passed=3), desired.Row(DENY, 0, rank=3), {(5, 9): (NONE, 0)}),
        (by_name((FIRST_CLASS, 6, 81, 16), passed=3), desired.Row(DENY, 0), {(5, 9): (NONE, 0)}),
        (by_name((FIRST_CLASS, 17, 80, 16), passed=3), desired.Row(DENY, 0), {(5, 9): (NONE, 0)}),
        (by_name((FIRST_CLASS, 0, 0, 0), rank=2), desired.Row(DENY, 0, rank=3), {}),
        (by_name((FIRST_CLASS, 0, 0, 0), rank=2), desired.Row(DENY, 0, rank=3, passed=1), {(5, 9): (NONE, 0)}),
        (by_name((FIRST_CLASS, 6, 64, 10), rank=2), desired.Row(DENY, 0, rank=3), {}),
    ],
)
def test_a_service_is_not_denied_where_a_name_may_open_a_backend(
    named: dict[desired.RowKey, desired.Row], denying: desired.Row, found: dict[tuple[int, int], classes.Class]
) -> None:
    """Rules D15, E15: what the packet layer compares, `datapath.judge`."""
    rows = {**named, desired.RowKey(300, 0, 0, 0): denying}
    policy_set = desired.PolicySet(id=5, digest=b"", direction=net.Direction.EGRESS, rows=rows, isolating=())
    assert classes.classify([policy_set], {9: (ONE,)}, {FIRST_CLASS}) == found


def test_where_a_service_is_denied_no_name_opens_a_backend() -> None:
    """Rows drawn at random, judged as a packet is: the longest row of the class, then the ranks."""
    rng = random.Random(4)
    denied = 0
    for _ in range(300):
        drawn = [
            (desired.RowKey(who, 6, port, bits), desired.Row(action, 0, rng.choice((1, 3, desired.NO_RANK)), passed))
            for who, action in ((300, DENY), (301, rng.choice((ALLOW, DENY))), (FIRST_CLASS, ALLOW), (0, DENY))
            for port, bits in ((80, rng.choice((12, 16))), (64, 10))
            for passed in (rng.choice((0, 2, desired.NO_RANK)),)
        ]
        rows = dict(rng.sample(drawn, rng.randint(2, len(drawn))))
        policy_set = desired.PolicySet(id=5, digest=b"", direction=net.Direction.EGRESS, rows=rows, isolating=())
        found = classes.classify([policy_set], {9: (ONE, TWO)}, {FIRST_CLASS})
        if found.get((5, 9), (ALL, 0))[0] is not NONE:
            continue
        denied += 1
        reader = classes.Reader(policy_set)
        for backend in (ONE, TWO):
            row = reader.row(backend) or desired.Row(DENY, 0)
            named = classes._longest(reader._rows.get(FIRST_CLASS, {}), backend)
            assert row.action is DENY
            assert named is None or not (named.rank < min(row.rank, row.passed) or named.passed < row.rank)
    assert denied > 30


@pytest.mark.parametrize(
    ("dialect", "outside", "found"),
    [
        (fqdn.Dialect.CILIUM, (), [NONE]),
        (fqdn.Dialect.CILIUM, ("203.0.113.9",), []),
        (fqdn.Dialect.CLUSTER_NETWORK_POLICY, (), []),
    ],
)
def test_connecting_to_a_service_of_pods_fails_at_once_where_names_mean_no_pods(
    dialect: fqdn.Dialect, outside: tuple[str, ...], found: list[desired.ServiceClass]
) -> None:
    """Rules D15, E15: Cilium's names never mean pods or nodes, and an endpoint elsewhere may have any name."""
    names = resources.NamesPeer(patterns=(fqdn.NamePattern(dialect, "api.example.com"),))
    cilium = dialect is fqdn.Dialect.CILIUM
    allowing = resources.NetworkPolicy(
        namespace="x" if cilium else "",
        name="names",
        kind=dialect.value,
        subject_namespaces=None if cilium else labels.EVERYTHING,
        tier=resources.Tier.NETWORK_POLICY if cilium else resources.Tier.ADMIN,
        egress=(pictures.rule(names),),
    )
    served = resources.EndpointSlice(
        namespace="x",
        name="web-1",
        service="web",
        addresses=(*map(ipaddress.ip_address, outside), *pictures.PODS[1].addresses),
        ports=(resources.EndpointPort(name="", protocol=net.Protocol.TCP, number=80),),
    )
    closed = dataclasses.replace(pictures.policy("deny"), directions=frozenset({net.Direction.EGRESS}))
    more = (served,) if outside else ()
    cluster = snapshot.build([*pictures.NODES, *pictures.PODS, pictures.SERVICE, closed, allowing, *more])
    view = random_cluster.views(cluster, endpoint.HoldMode.PERMISSIVE)[pictures.NODE]
    state = compiler.compile_node(cluster, dataclasses.replace(view, learns_names=True)).state
    assert state.names.contents
    isolated = {one.egress_set for one in state.endpoints.values() if one.namespace == "x"}
    assert [class_ for (egress_set, _), (class_, _) in state.classes.items() if egress_set in isolated] == found
