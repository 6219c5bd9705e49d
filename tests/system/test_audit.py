"""What is in audit passes and is told, on open connections too it is enforced the moment audit ends (rules A51, A39).

Through real agents: `agentctl audit` in all but its words, every engine, both families, TCP and UDP, the same node,
another one, and the address of a Service.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from agent.lab import lab, resolve
from agent.model import audit, net, verdict
from agent.rpc import client
from tests.support import traffic
from tests.system import conftest, engines, test_revocation

pytestmark = pytest.mark.root

PORT = 7100
TARGETS = (audit.Target("x"), audit.Target("x", "permission"))
DIRECTIONS = ("Ingress", "Egress")


def wall(direction: str) -> resolve.Document:
    """Return a policy that allows nothing of what the caller does."""
    return test_revocation.policy(direction, allowed=False)


@pytest.fixture(scope="module", params=engines.by_combination(engines.FEWER))
def stage(request: pytest.FixtureRequest) -> Iterator[test_revocation.Stage]:
    combination: engines.Combination = request.param
    cast, end = test_revocation.CAST, test_revocation.END
    with combination.engine.lab(conftest.lab_name("audit"), combination.topology, families=list(net.Family)) as running:
        running.down()
        running.up(cast)
        conftest.check_engine(running, combination.engine)
        with (
            traffic.PodProcess(running, "x/caller", end) as caller,
            traffic.PodProcess(running, "x/near", end) as near,
            traffic.PodProcess(running, "x/far", end) as far,
            traffic.PodProcess(running, "x/behind", end) as behind,
        ):
            servers = {"near": near, "far": far, "service": behind}
            for path, server in servers.items():
                party = "x/behind" if path == "service" else f"x/{path}"
                server.ask(do="serve", addresses=[str(a) for a in running.plan.addresses(party)], port=PORT)
            yield test_revocation.Stage(engine=combination.engine, lab=running, caller=caller, servers=servers)


def _set(running: lab.Lab, target: audit.Target, *, enable: bool) -> None:
    for node in running.plan.nodes:
        with client.AgentClient(running.paths.agent_socket(node)) as agent:
            change = agent.set_audit(target, enable=enable)
            assert (change.in_force, bool(change.held_by), change.trouble) == (True, enable, "")


def _told(
    running: lab.Lab, node: str, since_ns: int, wanted: verdict.Filter = verdict.EVERY_VERDICT
) -> set[tuple[net.Direction, str, verdict.Layer, int]]:
    """Return what is told as AUDIT: direction, the policies that isolate, layer and protocol."""
    with client.AgentClient(running.paths.agent_socket(node)) as agent:
        items = list(agent.watch_verdicts(follow=False, wanted=wanted))
    stored = [item for item in items if isinstance(item, verdict.VerdictEvent)]
    return {
        (event.direction, ", ".join(map(str, event.isolating)), event.layer, event.protocol)
        for event in stored
        if event.time_ns >= since_ns and event.verdict is verdict.Verdict.AUDIT and event.destination.port == PORT
    }


def _expected(direction: str, protocol: int) -> tuple[net.Direction, str, verdict.Layer, int]:
    return net.Direction[direction.upper()], "NetworkPolicy x/permission", verdict.Layer.PACKET, protocol


@pytest.mark.parametrize(("path", "direction"), list(itertools.product(test_revocation.PATHS, DIRECTIONS)))
def test_what_is_in_audit_flows_and_is_told_until_audit_ends_which_stops_it_at_the_next_packet(
    stage: test_revocation.Stage, path: str, direction: str
) -> None:
    family = net.Family.IPV6 if path == "far" else net.Family.IPV4
    target = TARGETS[direction == "Ingress"]
    caller = stage.caller
    ends = [caller, stage.servers[path]]
    _set(stage.lab, target, enable=True)
    stage.lab.apply([*test_revocation.CAST, wall(direction)])
    since_ns = time.time_ns()
    try:
        ports = caller.ask(do="call", address=stage.address(path, family), port=PORT)["port"]
        assert test_revocation._flowing(ends, test_revocation.FLOWING_S * 8), "audit stops what it is to let pass"
        node = "node-1" if direction == "Egress" or path == "near" else "node-2"
        wanted = {_expected(direction, protocol) for protocol in (6, 17)}
        told: set[tuple[net.Direction, str, verdict.Layer, int]] = set()
        deadline = time.monotonic() + 3
        while not told >= wanted and time.monotonic() < deadline:
            time.sleep(0.05)
            told = _told(stage.lab, node, since_ns)
        assert {one for one in told if one[2] is verdict.Layer.PACKET} == wanted
        raw = _told(stage.lab, node, since_ns, verdict.Filter(raw=True))
        at_sockets = {one for one in raw if one[2] is verdict.Layer.SOCKET}
        assert bool(at_sockets) is (stage.engine.sockets and direction == "Egress")
        assert {one[:2] for one in at_sockets} <= {one[:2] for one in wanted}

        _set(stage.lab, target, enable=False)
        enforced = stage.enforced_ns()
        time.sleep(test_revocation.STOPPED_S)
        late = [end.ask(do="arrivals", since=enforced, ports=ports, port=PORT) for end in ends]
        assert [one["count"] for one in late] == [{"tcp": 0, "udp": 0}] * 2, "packets arrived after audit had ended"

        _set(stage.lab, target, enable=True)
        assert test_revocation._flowing(ends, test_revocation.RESUME_S), "back in audit it does not go on"
        stream = caller.ask(do="progress")["tcp"]
        assert (stream["connections"], stream["gaps"], stream["errors"]) == (1, 0, [])
    finally:
        for end in ends:
            end.ask(do="hang up")
        _set(stage.lab, target, enable=False)
        stage.lab.apply(test_revocation.CAST)


def test_what_was_counted_is_listed_with_the_policy(stage: test_revocation.Stage) -> None:
    target = TARGETS[1]
    _set(stage.lab, target, enable=True)
    stage.lab.apply([*test_revocation.CAST, wall("Egress")])
    ends = [stage.caller, stage.servers["near"]]
    try:
        stage.caller.ask(do="call", address=stage.address("near", net.Family.IPV4), port=PORT)
        assert test_revocation._flowing(ends, test_revocation.FLOWING_S * 8)
        with client.AgentClient(stage.lab.paths.agent_socket("node-1")) as agent:
            deadline, counted = time.monotonic() + 3, 0
            while counted < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
                ((entry,), _) = agent.audit()
                counted = entry.would_deny
            assert (entry.namespace, entry.policy, entry.means, entry.policies) == ("x", "permission", "command", 1)
            assert counted >= 2, "a TCP and a UDP flow"
            assert (agent.status().audited_endpoints, agent.status().audited) == (1, (f"{target} by command",))
    finally:
        for end in ends:
            end.ask(do="hang up")
        _set(stage.lab, target, enable=False)
        stage.lab.apply(test_revocation.CAST)
