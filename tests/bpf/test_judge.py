"""The decision headers in the kernel give the answers of the memory datapath, word by word."""

from __future__ import annotations

import ipaddress
import itertools
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator

import pytest

from agent import desired
from agent.datapath import memory, plan
from agent.datapath.bpf import fqdn_layout
from agent.model import endpoint, identity, net
from agent.model import verdict as verdict_
from agent.policy import compiler
from tests.bpf import conftest, judge, states
from tests.bpf import learned as learned_
from tests.support import random_cluster, random_dialects, random_state

pytestmark = pytest.mark.root

SEED = 20261121
ROUNDS = 40
QUESTIONS = 60
CLUSTERS = 200
FLOWS = 30
CHANGES = 40
DIALECTS = range(100, 160)
PROTOCOLS = (6, 17, 132, 1, 47)
REMOTE = tuple(
    map(
        ipaddress.ip_address,
        ("10.0.0.77", "10.1.0.2", "192.0.2.1", "192.0.2.129", "8.8.8.8", "fd00::99", "2001:db8::1"),
    )
)
PREFIXES = tuple(
    map(ipaddress.ip_network, ("0.0.0.0/0", "192.0.2.0/24", "192.0.2.128/25", "192.0.2.1/32", "::/0", "2001:db8::/32"))
)
HELD = tuple(map(ipaddress.ip_network, ("10.0.0.0/24", "fd00::/64")))
SETS, LOCAL, PORTS = random_state.SETS, random_state.LOCAL, random_state.PORTS


@pytest.fixture(scope="module")
def kernel(routed_rig: conftest.Rig) -> Iterator[judge.Judge]:
    with judge.opened(routed_rig.datapath.events_path.parent) as opened:
        yield opened


def test_random_states_are_judged_alike_by_kernel_and_memory(rig: conftest.Rig, kernel: judge.Judge) -> None:
    dice = random.Random(SEED)
    reference = memory.MemoryDatapath(rig.datapath.tables())
    seen: set[verdict_.Reason | verdict_.Verdict] = set()
    for _ in range(ROUNDS):
        state = _random_state(dice)
        rig.datapath.apply(state)
        reference.apply(state)
        assert rig.datapath.tables() == reference.tables
        for _ in range(QUESTIONS):
            seen.update(_compare_packet(dice, kernel, reference))
            _compare_connect(dice, kernel, reference)
    assert seen >= {verdict_.Reason(number) for number in range(1, 6)} | {verdict_.Verdict.AUDIT}


def test_random_clusters_are_judged_alike_by_kernel_and_memory(rig: conftest.Rig, kernel: judge.Judge) -> None:
    """The memory datapath is compared with the evaluator elsewhere; so the kernel agrees with the rules."""
    reference = memory.MemoryDatapath(rig.datapath.tables())
    for seed in range(CLUSTERS):
        cluster = random_cluster.cluster(seed, hold_mode=endpoint.HoldMode.AUTO)
        view = cluster.views["node-0"]
        state = compiler.compile_node(cluster.snapshot, view).state
        rig.datapath.apply(state)
        reference.apply(state)
        for attempt in random_cluster.attempts(cluster, FLOWS):
            flow = (attempt.protocol.value, attempt.port)
            for hook in memory.Hook:
                assert _judged(kernel, attempt, hook) == _judged(reference, attempt, hook), (seed, attempt)
            for sandbox in view.sandboxes:
                _same_connect(kernel, reference, sandbox.netns_cookie, attempt.server, flow)
        if seed % 20 == 0:
            assert rig.datapath.tables() == reference.tables


def test_random_clusters_of_every_dialect_and_what_their_pods_have_resolved_are_judged_alike(
    rig: conftest.Rig, kernel: judge.Judge
) -> None:
    """Rules D1 to D15, E2 to E15: the memory datapath is compared with the evaluator, and the kernel with it."""
    learned = learned_.Learned(rig.datapath._maps.descriptor("fqdn_learned"))
    named = 0
    for seed in DIALECTS:
        cluster, answers = random_dialects.cluster(seed)
        view = cluster.views["node-0"]
        state = compiler.compile_node(cluster.snapshot, view).state
        rig.datapath.apply(state)
        reference, unaware = _applied(state), _applied(state)
        learned.clear()
        _tell(state, answers, learned, reference)
        for attempt in (*random_cluster.attempts(cluster, FLOWS), *random_dialects.attempts(cluster, answers)):
            for hook in memory.Hook:
                expected, got, by_rows = (_judged(each, attempt, hook) for each in (reference, kernel, unaware))
                assert got == expected, (seed, attempt, hook)
                named += expected != by_rows
            for sandbox in view.sandboxes:
                flow = (attempt.protocol.value, attempt.port)
                _same_connect(kernel, reference, sandbox.netns_cookie, attempt.server, flow)
    assert named > len(DIALECTS) / 2


def _judged(
    judging: judge.Judge | memory.MemoryDatapath,
    attempt: random_cluster.Attempt,
    hook: memory.Hook = memory.Hook.FORWARD,
) -> memory.Judgement:
    return judging.judge(
        client=attempt.client, server=attempt.server, protocol=attempt.protocol.value, port=attempt.port, hook=hook
    )


def _tell(
    state: desired.DesiredState,
    answers: Iterable[random_dialects.Answer],
    learned: learned_.Learned,
    reference: memory.MemoryDatapath,
) -> None:
    """Have pods of the node know what DNS has told them; an address has room for so many classes in the kernel."""
    pods = {(item.namespace, item.pod): item for item in state.endpoints.values()}
    known: defaultdict[tuple[int, net.Address], set[int]] = defaultdict(set)
    for answer in answers:
        asking, found = pods.get(answer.pod), state.names.of(answer.name)
        if asking is None or len(known[asking.id, answer.address] | {*found}) > fqdn_layout.CLASSES:
            continue
        known[asking.id, answer.address].update(found)
        reference.learn(asking.netns_cookie, answer.name, [answer.address])
    for (number, address), numbers in known.items():
        learned.put(number, address, dict.fromkeys(numbers, learned_.VALID_S))


def test_a_change_half_made_is_judged_by_the_old_state_and_from_the_flip_on_by_the_new(
    rig: conftest.Rig, kernel: judge.Judge
) -> None:
    seen: set[tuple[str, bool]] = set()
    for seed in range(CHANGES):
        cluster, following = (
            random_cluster.cluster(number, hold_mode=endpoint.HoldMode.AUTO) for number in (seed, seed + 1)
        )
        old, new = (compiler.compile_node(each.snapshot, each.views["node-0"]).state for each in (cluster, following))
        flows = [*random_cluster.attempts(cluster, FLOWS), *random_cluster.attempts(following, FLOWS)]
        rig.datapath.apply(old)
        before, after = (_judgements(_applied(state), flows) for state in (old, new))
        for step in plan.plan(rig.datapath.tables(), new).steps:
            rig.datapath._make(step)
            turned = step.name in {"flip", "mend"}
            assert _judgements(kernel, flows) == (after if turned else before), (seed, step.name)
            seen.add((step.name, before != after))
        rig.datapath._realized = None
    assert seen >= {("rows", True), ("stage", True), ("flip", True), ("mend", True)}


def _applied(state: desired.DesiredState) -> memory.MemoryDatapath:
    reference = memory.MemoryDatapath()
    reference.apply(state)
    return reference


def _judgements(
    judging: judge.Judge | memory.MemoryDatapath, flows: list[random_cluster.Attempt]
) -> list[memory.Judgement]:
    return [_judged(judging, flow) for flow in flows]


def _compare_packet(
    dice: random.Random, kernel: judge.Judge, reference: memory.MemoryDatapath
) -> tuple[verdict_.Reason, verdict_.Verdict]:
    client = dice.choice(LOCAL + REMOTE)
    server = dice.choice([address for address in LOCAL + REMOTE if address.version == client.version])
    protocol, hook = dice.choice(PROTOCOLS), dice.choice(list(memory.Hook))
    port = dice.choice(PORTS) if protocol in {6, 17, 132} else 0
    expected = reference.judge(client=client, server=server, protocol=protocol, port=port, hook=hook)
    got = kernel.judge(client=client, server=server, protocol=protocol, port=port, hook=hook)
    assert got == expected, (client, server, protocol, port, hook)
    return got.reason, got.verdict


def _compare_connect(dice: random.Random, kernel: judge.Judge, reference: memory.MemoryDatapath) -> None:
    cookie, address = dice.choice((1, 2, 3, 99)), dice.choice(LOCAL + REMOTE)
    protocol, port = dice.choice((6, 17)), dice.choice(PORTS)
    _same_connect(kernel, reference, cookie, address, (protocol, port))


def _same_connect(
    kernel: judge.Judge,
    reference: memory.MemoryDatapath,
    cookie: int,
    address: net.Address,
    flow: tuple[int, int],
) -> None:
    """Compare; `flow` is protocol and port. Where the kernel is silent the call passes."""
    expected = reference.judge_connect(cookie, address, *flow)
    got = kernel.judge_connect(cookie, address, *flow)
    if got is None:
        assert expected.allowed, (cookie, address, flow)
    else:
        assert got == expected, (cookie, address, flow)


def _random_state(dice: random.Random) -> desired.DesiredState:
    identities = [identity.ANY, identity.WORLD, *map(identity.NumericIdentity, range(256, 262))]
    pods = list(itertools.islice(zip(LOCAL[:3], LOCAL[3:], strict=True), dice.randint(1, 3)))
    sets = {
        number + offset: states_set(dice, number + offset, direction, identities)
        for number in SETS
        for offset, direction in ((0, net.Direction.EGRESS), (100, net.Direction.INGRESS))
    }
    services = {desired.Frontend(dice.choice(REMOTE[:5]), dice.choice(PORTS[1:]), 6): 33 + n for n in range(2)}
    return desired.DesiredState(
        endpoints={index: random_state.endpoint(dice, index, pair) for index, pair in enumerate(pods, start=900)},
        sets=sets,
        hosts={address: dice.choice(identities[2:]) for address in (*LOCAL, REMOTE[1]) if dice.random() < 0.8},
        cidrs={network: dice.choice(identities[2:]) for network in PREFIXES if dice.random() < 0.6},
        held_ranges=frozenset(network for network in HELD if dice.random() < 0.3),
        frontends=services,
        classes={
            (number, service): (dice.choice(list(desired.ServiceClass)), 0)
            for number in SETS
            for service in services.values()
            if dice.random() < 0.6
        },
    )


def states_set(
    dice: random.Random, number: int, direction: net.Direction, identities: list[identity.NumericIdentity]
) -> desired.PolicySet:
    """Make a set of up to twelve random rows."""
    rows = {}
    for _ in range(dice.randint(0, 12)):
        protocol = dice.choice((0, 6, 6, 17, 132))
        bits = dice.choice((0, 1, 13, 16)) if protocol else 0
        port = dice.choice(PORTS) >> (16 - bits) << (16 - bits)
        row = desired.Row(action=dice.choice(list(desired.Action)), rule=dice.randint(0, 3))
        rows[dice.choice(identities), protocol, port, bits] = row
    made = states.policy_set(number, direction, {})
    return desired.PolicySet(
        id=number,
        digest=made.digest,
        direction=direction,
        rows={desired.RowKey(*key): row for key, row in rows.items()},
        isolating=(),
    )
