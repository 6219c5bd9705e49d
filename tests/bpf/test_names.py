"""What a name allows where the rows deny: the kernel's decision, and the judge's word by word."""

from __future__ import annotations

import dataclasses
import ipaddress
import random
from collections.abc import Iterator, Mapping, Sequence

import pytest

from agent import desired
from agent.datapath import judge as judge_
from agent.datapath import lookups, memory, plan
from agent.model import identity, net
from agent.model import verdict as verdict_
from tests.bpf import conftest, judge
from tests.bpf import learned as learned_
from tests.support import random_state

pytestmark = pytest.mark.root

SEED, ROUNDS, QUESTIONS = 20261121, 60, 80
POD, NEIGHBOUR = 900, 901
COOKIE = POD - 899
"""As `random_state.endpoint` numbers them."""
SET, AUDIT_SET, INGRESS_SET = 601, 602, 701
CLASS, OTHER_CLASS = identity.FIRST_NAME_CLASS + 7, identity.FIRST_NAME_CLASS + 5
CLASSES = tuple(identity.FIRST_NAME_CLASS + number for number in (0, 1, 77, 0x7FFFFFFF))
RANKS = (0, 1, 2, 3, 9, desired.NO_RANK - 1, desired.NO_RANK)
STATIC, NAMED = 11, 22
"""Rules."""
TCP, UDP, SCTP, ICMP = 6, 17, 132, 1
PORT = 443
SERVERS = tuple(map(ipaddress.ip_address, ("192.0.2.1", "2001:db8::1")))
ALLOW, DENY = desired.Action.ALLOW, desired.Action.DENY
NONE = desired.NO_RANK
IDLE_S = 60


@pytest.fixture(scope="module")
def kernel(routed_rig: conftest.Rig) -> Iterator[judge.Judge]:
    with judge.opened(routed_rig.datapath.events_path.parent) as opened:
        yield opened


@pytest.fixture
def learned(rig: conftest.Rig) -> learned_.Learned:
    known = learned_.Learned(rig.datapath._maps.descriptor("fqdn_learned"))
    known.clear()
    return known


def _pod_of(server: net.Address) -> net.Address:
    return next(address for address in random_state.LOCAL if address.version == server.version)


def _rows(*rows: tuple[int, int, int, desired.Row]) -> Mapping[desired.RowKey, desired.Row]:
    """Take (identity or class, protocol, port, row); port 0: any."""
    return {desired.RowKey(who, protocol, port, 16 if port else 0): row for who, protocol, port, row in rows}


def _state(
    egress: Mapping[desired.RowKey, desired.Row] | None,
    *,
    audit: Mapping[desired.RowKey, desired.Row] | None = None,
    ingress: Mapping[desired.RowKey, desired.Row] | None = None,
) -> desired.DesiredState:
    """Have two pods with these rows; None: not isolated, or nothing in audit."""
    given = {SET: (net.Direction.EGRESS, egress), AUDIT_SET: (net.Direction.EGRESS, audit)}
    given[INGRESS_SET] = (net.Direction.INGRESS, ingress)
    sets = {
        number: desired.PolicySet(id=number, digest=b"", direction=direction, rows=rows, isolating=())
        for number, (direction, rows) in given.items()
        if rows is not None
    }
    pods = zip((POD, NEIGHBOUR), zip(random_state.LOCAL[:2], random_state.LOCAL[3:5], strict=True), strict=True)
    endpoints = {
        number: dataclasses.replace(
            random_state.endpoint(random.Random(0), number, addresses),
            egress_set=SET if egress is not None else 0,
            ingress_set=INGRESS_SET if ingress is not None else 0,
            egress_audit=AUDIT_SET if audit is not None else 0,
            ingress_audit=0,
            held=False,
        )
        for number, addresses in pods
    }
    return desired.DesiredState(endpoints=endpoints, sets=sets)


BY_NAME = _rows((CLASS, TCP, PORT, desired.Row(ALLOW, NAMED, 0)), (CLASS, UDP, PORT, desired.Row(ALLOW, NAMED, 0)))


def _asked(
    kernel: judge.Judge, server: net.Address, *, protocol: int = TCP, port: int = PORT, established: bool = False
) -> memory.Judgement:
    return kernel.judge(client=_pod_of(server), server=server, protocol=protocol, port=port, established=established)


@pytest.mark.parametrize("server", SERVERS)
def test_what_no_row_allows_a_name_does_by_its_own_rule_at_both_layers(
    rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned, server: net.Address
) -> None:
    rig.datapath.apply(_state(BY_NAME))
    denied = _asked(kernel, server)
    assert (denied.verdict, denied.reason, denied.rule) == (judge_.DROPPED, verdict_.Reason.POLICY_DENIED, 0)
    learned.put(POD, server, {CLASS: learned_.VALID_S})
    for judged in (_asked(kernel, server), kernel.judge_connect(COOKIE, server, TCP, PORT)):
        assert judged is not None
        assert (judged.verdict, judged.reason) == (judge_.FORWARDED, verdict_.Reason.RULE_ALLOWED)
        assert (judged.endpoint, judged.rule, judged.set) == (POD, NAMED, SET)


def test_a_name_opens_its_own_rules_ports_to_the_pod_that_asked_and_to_nobody_else(
    rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned
) -> None:
    """F8, F9."""
    rig.datapath.apply(_state({**BY_NAME, **_rows((OTHER_CLASS, TCP, 5432, desired.Row(ALLOW, NAMED, 1)))}))
    server = SERVERS[0]
    learned.put(POD, server, {CLASS: learned_.VALID_S})
    assert _asked(kernel, server).allowed
    assert not _asked(kernel, server, port=5432).allowed
    assert not _asked(kernel, server, protocol=SCTP).allowed
    assert not kernel.judge(client=random_state.LOCAL[1], server=server, protocol=TCP, port=PORT).allowed
    neighbour = kernel.judge_connect(COOKIE + 1, server, TCP, PORT)
    assert neighbour is not None
    assert not neighbour.allowed


def test_a_set_without_names_looks_for_none(rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned) -> None:
    """The row is there, as at the beginning of a change, but no endpoint's set is known to have names."""
    rig.datapath.apply(_state({}))
    key, row = next(iter(BY_NAME.items()))
    following = plan.plan(rig.datapath.tables(), _state({key: row}))
    assert following.steps[0].name == "rows"
    rig.datapath._make(following.steps[0])
    learned.put(POD, SERVERS[0], {CLASS: learned_.VALID_S})
    assert not _asked(kernel, SERVERS[0]).allowed
    rig.datapath._realized = None
    rig.datapath.apply(_state({key: row}))
    assert _asked(kernel, SERVERS[0]).allowed


@pytest.mark.parametrize(
    ("denying", "named", "wins"),
    [
        (None, (0, NONE), True),
        (None, (NONE, 5), True),
        (None, (NONE, NONE), False),
        ((5, NONE), (4, NONE), True),
        ((5, NONE), (5, NONE), False),
        ((5, NONE), (6, NONE), False),
        ((5, NONE), (NONE, 4), True),
        ((5, NONE), (NONE, 6), False),
        ((9, 3), (2, NONE), True),
        ((9, 3), (4, NONE), False),
        ((9, 3), (4, 8), True),
        ((9, 3), (4, 10), False),
        ((NONE, 3), (4, NONE), False),
        ((NONE, NONE), (NONE - 1, NONE), True),
    ],
)
def test_the_rule_that_is_asked_first_decides_and_a_pass_only_leaves_the_admin_tier(
    rig: conftest.Rig,
    kernel: judge.Judge,
    learned: learned_.Learned,
    denying: tuple[int, int] | None,
    named: tuple[int, int],
    *,
    wins: bool,
) -> None:
    """Rules D1, D2: ranks of the identity's row (rank, passed) against those of the class's."""
    rows = _rows((CLASS, TCP, PORT, desired.Row(ALLOW, NAMED, *named)))
    if denying is not None:
        rows = {**rows, **_rows((identity.WORLD, 0, 0, desired.Row(DENY, STATIC, *denying)))}
    rig.datapath.apply(_state(rows))
    learned.put(POD, SERVERS[0], {CLASS: learned_.VALID_S})
    judged = _asked(kernel, SERVERS[0])
    assert judged.allowed is wins
    assert judged.rule == (NAMED if wins else STATIC if denying else 0)


def test_what_has_expired_allows_nothing_new(rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned) -> None:
    """F16: at both layers, and with other classes that count still."""
    rig.datapath.apply(_state(BY_NAME))
    for server in SERVERS:
        learned.put(POD, server, {CLASS: learned_.EXPIRED_S, OTHER_CLASS: learned_.VALID_S})
        for protocol in (TCP, UDP):
            assert not _asked(kernel, server, protocol=protocol).allowed
            connected = kernel.judge_connect(COOKIE, server, protocol, PORT)
            assert connected is not None
            assert not connected.allowed
        assert learned.used_ns(POD, server) == 0


def test_a_connection_that_both_sides_know_does_not_expire(
    rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned
) -> None:
    """F17: as long as the class is allowed; datagrams are no connection, whatever conntrack calls them."""
    rig.datapath.apply(_state(BY_NAME))
    server = SERVERS[0]
    learned.put(POD, server, {CLASS: learned_.EXPIRED_S})
    assert _asked(kernel, server, established=True).rule == NAMED
    assert not _asked(kernel, server, protocol=UDP, established=True).allowed
    assert not _asked(kernel, server, port=PORT + 1, established=True).allowed
    rig.datapath.apply(_state(_rows((OTHER_CLASS, TCP, PORT, desired.Row(ALLOW, NAMED, 0)))))
    assert not _asked(kernel, server, established=True).allowed, "F27: the rule is gone"


def test_datagrams_go_on_while_there_is_less_than_a_minute_between_them(
    rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned
) -> None:
    """F18: at both layers; that datagrams go on opens nothing to connections."""
    rig.datapath.apply(_state(BY_NAME))
    server = SERVERS[0]
    learned.put(POD, server, {CLASS: learned_.VALID_S})
    assert _asked(kernel, server, protocol=UDP).allowed
    assert learned.datagrams_until_s(POD, server)[0] - learned_.clock_ns() / learned_.SECOND_NS >= IDLE_S
    learned.put(POD, server, {CLASS: learned_.EXPIRED_S}, datagrams_until_s=2)
    assert _asked(kernel, server, protocol=UDP).allowed
    sent = kernel.judge_connect(COOKIE, server, UDP, PORT)
    assert sent is not None
    assert sent.allowed
    left_s = learned.datagrams_until_s(POD, server)[0] - learned_.clock_ns() / learned_.SECOND_NS
    assert IDLE_S <= left_s <= IDLE_S + 1, "each datagram prolongs it"
    assert not _asked(kernel, server).allowed
    learned.put(POD, server, {CLASS: learned_.EXPIRED_S}, datagrams_until_s=-1)
    assert not _asked(kernel, server, protocol=UDP).allowed


def test_datagrams_of_one_name_keep_no_other_open(
    rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned
) -> None:
    """F8."""
    other = _rows((OTHER_CLASS, UDP, 53, desired.Row(ALLOW, NAMED + 1, 1)))
    rig.datapath.apply(_state({**BY_NAME, **other}))
    learned.put(POD, SERVERS[0], {CLASS: learned_.VALID_S, OTHER_CLASS: learned_.EXPIRED_S})
    assert _asked(kernel, SERVERS[0], protocol=UDP).allowed
    assert not _asked(kernel, SERVERS[0], protocol=UDP, port=53).allowed
    assert learned.datagrams_until_s(POD, SERVERS[0])[1] == 0


def test_a_connection_keeps_no_address_open_for_datagrams(
    rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned
) -> None:
    rig.datapath.apply(_state(BY_NAME))
    learned.put(POD, SERVERS[0], {CLASS: learned_.EXPIRED_S})
    assert _asked(kernel, SERVERS[0], established=True).allowed
    assert 0 <= learned_.clock_ns() - learned.used_ns(POD, SERVERS[0]) < learned_.SECOND_NS
    assert learned.datagrams_until_s(POD, SERVERS[0])[0] == 0
    assert not _asked(kernel, SERVERS[0], protocol=UDP).allowed


def test_use_is_noted_once_a_second_at_most(rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned) -> None:
    rig.datapath.apply(_state(BY_NAME))
    learned.put(POD, SERVERS[0], {CLASS: learned_.VALID_S})
    noted = set()
    for _ in range(50):
        assert _asked(kernel, SERVERS[0]).allowed
        noted.add(learned.used_ns(POD, SERVERS[0]))
    assert len(noted) <= 2


def test_of_several_names_the_lowest_class_is_told_of_in_whatever_order_they_came(
    rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned
) -> None:
    more = _rows((OTHER_CLASS, TCP, PORT, desired.Row(ALLOW, NAMED + 1, 8)))
    rig.datapath.apply(_state({**BY_NAME, **more}))
    for order in ((CLASS, OTHER_CLASS), (OTHER_CLASS, CLASS)):
        learned.put(POD, SERVERS[0], dict.fromkeys(order, learned_.VALID_S))
        assert _asked(kernel, SERVERS[0]).rule == NAMED + 1
    learned.put(POD, SERVERS[0], {OTHER_CLASS: learned_.EXPIRED_S, CLASS: learned_.VALID_S})
    assert _asked(kernel, SERVERS[0]).rule == NAMED


def test_what_a_name_allows_in_the_audit_set_too_is_no_would_be_denial(
    rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned
) -> None:
    """Rule A51."""
    rig.datapath.apply(_state(None, audit=BY_NAME))
    for told in (_asked(kernel, SERVERS[0]), kernel.judge_connect(COOKIE, SERVERS[0], TCP, PORT)):
        assert told is not None
        assert (told.verdict, told.reason) == (judge_.AUDIT, verdict_.Reason.POLICY_DENIED)
    learned.put(POD, SERVERS[0], {CLASS: learned_.VALID_S})
    judged = _asked(kernel, SERVERS[0])
    assert (judged.verdict, judged.reason) == (judge_.FORWARDED, verdict_.Reason.NOT_ISOLATED)
    assert kernel.judge_connect(COOKIE, SERVERS[0], TCP, PORT) is None
    rig.datapath.apply(_state(BY_NAME, audit={}))
    judged = _asked(kernel, SERVERS[0])
    assert (judged.verdict, judged.set, judged.rule) == (judge_.AUDIT, AUDIT_SET, 0)


def test_nobody_gets_in_by_a_name(rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned) -> None:
    """Rows of classes in a set of ingress mean nothing."""
    key, row = next(iter(BY_NAME.items()))
    rig.datapath.apply(_state(None, ingress={key: row}))
    learned.put(POD, SERVERS[0], {CLASS: learned_.VALID_S})
    pod = _pod_of(SERVERS[0])
    judged = kernel.judge(client=SERVERS[0], server=pod, protocol=TCP, port=PORT)
    assert (judged.verdict, judged.direction) == (judge_.DROPPED, net.Direction.INGRESS)


def test_random_states_with_names_are_judged_alike_by_kernel_and_judge(
    rig: conftest.Rig, kernel: judge.Judge, learned: learned_.Learned
) -> None:
    dice = random.Random(SEED)
    reference = memory.MemoryDatapath(rig.datapath.tables())
    by_name = 0
    for _ in range(ROUNDS):
        state = _with_names(dice, random_state.state(dice))
        rig.datapath.apply(state)
        reference.apply(state)
        tables = rig.datapath.tables()
        assert tables == reference.tables
        learned.clear()
        known = _learn(dice, learned, state)
        judging = judge_.Judge(lookups.InTables(tables, known))
        without = judge_.Judge(lookups.InTables(tables))
        for _ in range(QUESTIONS):
            flow, hook = judge_.Flow(*random_state.flow(dice, state)), dice.choice(list(judge_.Hook))
            expected = judging.packet(flow, hook)
            got = kernel.judge(
                client=flow.client, server=flow.server, protocol=flow.protocol, port=flow.port, hook=hook
            )
            assert got == expected, (flow, hook)
            by_name += expected != without.packet(flow, hook)
            cookie = dice.choice((1, 2, 3))
            said = judging.connect(cookie, flow.server, flow.protocol, flow.port)
            dialled = kernel.judge_connect(cookie, flow.server, flow.protocol, flow.port)
            assert (dialled == said) if dialled is not None else said.allowed, (cookie, flow)
    assert by_name > ROUNDS


def _with_names(dice: random.Random, state: desired.DesiredState) -> desired.DesiredState:
    """Give the rules of every other egress set places in an order, and the set rows of classes."""
    sets = dict(state.sets)
    for number, policy_set in state.sets.items():
        if policy_set.direction is not net.Direction.EGRESS or dice.random() < 0.3:
            continue
        rows = {
            key: dataclasses.replace(row, rank=dice.choice(RANKS), passed=dice.choice(RANKS))
            if row.action is DENY
            else row
            for key, row in policy_set.rows.items()
        }
        drawn = random_state.policy_set(dice, number, policy_set.direction, rows=12)
        for key, row in drawn.rows.items():
            ranks = (dice.choice(RANKS), dice.choice(RANKS)) if row.action is ALLOW else (NONE, NONE)
            rows[dataclasses.replace(key, identity=dice.choice(CLASSES))] = desired.Row(row.action, row.rule, *ranks)
        sets[number] = dataclasses.replace(policy_set, rows=rows)
    return dataclasses.replace(state, sets=sets)


def _learn(
    dice: random.Random, learned: learned_.Learned, state: desired.DesiredState
) -> Mapping[tuple[int, net.Address], Sequence[int]]:
    """Have endpoints know most addresses for some classes; return those that count."""
    known = {}
    for number in state.endpoints:
        for address in (*random_state.LOCAL, *random_state.REMOTE):
            if dice.random() < 0.2:
                continue
            found = dice.sample(CLASSES, dice.randint(1, len(CLASSES)))
            times = {class_: dice.choice((learned_.VALID_S, learned_.VALID_S, learned_.EXPIRED_S)) for class_ in found}
            learned.put(number, address, times)
            known[number, address] = sorted(class_ for class_, left_s in times.items() if left_s > 0)
    return known
