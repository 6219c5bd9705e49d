"""A permission that is taken back stops what is under way at the next packet, and one given again lets it go on.

Rule A39, as this project chooses: every original-direction packet is judged, replies as the connection they belong to.
Counted are packets, by the kernel's time of arrival at either end, after the agents say that the change is enforced.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from agent.lab import lab, resolve
from agent.model import net
from agent.rpc import client
from tests.support import traffic
from tests.system import campaign, conftest, engines
from tests.system.attacks import aim as aim_

pytestmark = pytest.mark.root

END = "tests.system.attacks.flows"
PORT = 7100
FLOWING_S = 0.25
STOPPED_S = 0.35
"""Long enough for TCP to have tried again, after 0.2 s, and short of its second try, 0.4 s later."""
RESUME_S = 6.0
"""TCP tries again after 0.2 s, 0.4 s, 0.8 s...: having been stopped for a second, it goes on within two."""
PATHS = ("near", "far", "service")
"""Same node, another node, another node by the address of a Service."""
FIGURES = pathlib.Path("build/figures")

SERVICE: resolve.Document = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "behind", "namespace": "x"},
    "spec": {"selector": {"role": "behind"}, "ports": [{"port": PORT}, {"port": PORT, "protocol": "UDP", "name": "u"}]},
}
SERVICE["spec"]["ports"][0]["name"] = "t"
BEFORE_IT = "UDP sendto(), bound port"
ABOUT_IT = "ICMP error, about no connection"
"""About a datagram from the victim to the sender: here there was one, the answer."""
CAST = [
    campaign.pod("caller", "node-1", "caller"),
    campaign.pod("near", "node-1", "near"),
    campaign.pod("far", "node-2", "far"),
    campaign.pod("behind", "node-2", "behind"),
    SERVICE,
]


def policy(direction: str, *, allowed: bool) -> resolve.Document:
    """Return a policy that isolates everybody but the caller for ingress, or the caller for egress."""
    word, role = ("from", {"operator": "NotIn"}) if direction == "Ingress" else ("to", {"operator": "In"})
    rule = {
        word: [{"podSelector": {}}],
        "ports": [{"port": PORT}, {"port": PORT, "endPort": PORT + 1, "protocol": "UDP"}],
    }
    expression = {"key": "role", "values": ["caller"], **role}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "permission", "namespace": "x"},
        "spec": {
            "podSelector": {"matchExpressions": [expression]},
            "policyTypes": [direction],
            direction.lower(): [rule] if allowed else [],
        },
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The running lab and the two ends of every flow."""

    engine: engines.Engine
    lab: lab.Lab
    caller: traffic.PodProcess
    servers: dict[str, traffic.PodProcess]
    figures: list[str] = dataclasses.field(default_factory=list)

    def address(self, path: str, family: net.Family) -> str:
        """Return what the caller connects to."""
        if path != "service":
            return self._of(self.lab.plan.addresses(f"x/{path}"), family)
        service = next(iter(self.lab.plan.snapshot.services.values()))
        return self._of(service.cluster_addresses, family)

    @staticmethod
    def _of(addresses: tuple[net.Address, ...], family: net.Family) -> str:
        return next(str(address) for address in addresses if net.family_of(address) is family)

    def note(self, setting: str, nanoseconds: int) -> None:
        """Keep a figure: how long before the agents' report the last packet arrived."""
        self.figures.append(f"{setting}: last packet {nanoseconds / 1e6:.1f} ms before the agents report the change")

    def enforced_ns(self) -> int:
        """Return when the last agent says it came to enforce the present manifests, nanoseconds since 1970."""
        told = []
        for node in self.lab.plan.nodes:
            with client.AgentClient(self.lab.paths.agent_socket(node)) as agent:
                told.append(agent.status().enforced_unix_ns)
        return max(told)


@pytest.fixture(scope="module", params=engines.by_combination(engines.FEWER))
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    combination: engines.Combination = request.param
    name = conftest.lab_name("revoke")
    with combination.engine.lab(name, combination.topology, families=list(net.Family)) as running:
        running.down()
        running.up(CAST)
        conftest.check_engine(running, combination.engine)
        with (
            traffic.PodProcess(running, "x/caller", END) as caller,
            traffic.PodProcess(running, "x/near", END) as near,
            traffic.PodProcess(running, "x/far", END) as far,
            traffic.PodProcess(running, "x/behind", END) as behind,
        ):
            servers = {"near": near, "far": far, "service": behind}
            for path, server in servers.items():
                party = "x/behind" if path == "service" else f"x/{path}"
                server.ask(do="serve", addresses=[str(a) for a in running.plan.addresses(party)], port=PORT)
            told = Stage(engine=combination.engine, lab=running, caller=caller, servers=servers)
            yield told
    FIGURES.mkdir(parents=True, exist_ok=True)
    (FIGURES / f"revocation-{combination.name}.txt").write_text("\n".join([*told.figures, ""]))


def _grew(before: dict[str, Any], after: dict[str, Any]) -> bool:
    return all(after[protocol]["bytes"] > before[protocol]["bytes"] for protocol in before)


def _flowing(ends: list[traffic.PodProcess], patience_s: float) -> bool:
    """Tell whether every protocol brings something to both ends within the time."""
    before = [end.ask(do="progress") for end in ends]
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        time.sleep(0.05)
        if all(_grew(one, end.ask(do="progress")) for one, end in zip(before, ends, strict=True)):
            return True
    return False


def _name(one: object) -> str:
    return one.name if isinstance(one, net.Family) else str(one)


@pytest.mark.parametrize("direction", ["Ingress", "Egress"])
@pytest.mark.parametrize(("path", "family"), list(itertools.product(PATHS, net.Family)), ids=_name)
def test_a_revoked_permission_stops_live_flows_at_the_next_packet(
    stage: Stage, path: str, family: net.Family, direction: str
) -> None:
    stage.lab.apply([*CAST, policy(direction, allowed=True)])
    caller, server = stage.caller, stage.servers[path]
    ends = [caller, server]
    try:
        ports = caller.ask(do="call", address=stage.address(path, family), port=PORT)["port"]
        assert _flowing(ends, FLOWING_S * 8), "nothing flows while it is allowed"
        seen = [end.ask(do="arrivals", since=0, ports=ports, port=PORT)["count"] for end in ends]
        assert all(count["tcp"] and count["udp"] for count in seen), "the packet sockets see nothing"

        stage.lab.apply([*CAST, policy(direction, allowed=False)])
        enforced = stage.enforced_ns()
        time.sleep(STOPPED_S)
        late = [end.ask(do="arrivals", since=enforced, ports=ports, port=PORT) for end in ends]
        stage.note(f"{path}, {family.name}, {direction.lower()}", enforced - max(one["last"] for one in late))
        assert [one["count"] for one in late] == [{"tcp": 0, "udp": 0}] * 2, "packets arrived after the change"

        stage.lab.apply([*CAST, policy(direction, allowed=True)])
        assert _flowing(ends, RESUME_S), "a permission given again does not let the flows go on"
        for end in ends:
            stream = end.ask(do="progress")["tcp"]
            assert (stream["connections"], stream["gaps"], stream["errors"]) == (1, 0, [])
    finally:
        for end in ends:
            end.ask(do="hang up")


@pytest.mark.parametrize("path", ["near", "far"])
@pytest.mark.parametrize("family", list(net.Family), ids=_name)
def test_after_a_revocation_icmp_errors_about_the_old_flow_are_judged_as_it_is_where_the_engine_can(
    stage: Stage, path: str, family: net.Family
) -> None:
    """Conntrack still knows the flow and calls them RELATED."""
    stage.lab.apply([*CAST, policy("Ingress", allowed=True)])
    victim = f"x/{path}"
    with (
        traffic.PodProcess(stage.lab, "x/caller", campaign.SENDER) as sender,
        traffic.PodProcess(stage.lab, victim, campaign.RECEIVER) as receiver,
    ):
        address = stage.address(path, family)
        receiver.ask(do="listen", addresses=[address], port=PORT + 1)
        own = Stage._of(stage.lab.plan.addresses("x/caller"), family)
        ends = {"source": own, "victim": address, "friend": own, "node": own}
        ports = {"port": PORT + 1, "friend_port": PORT + 1, "source_port": 33033}
        sender.ask(do="resolve", addresses=[address])
        arrived = []
        for allowed, attack in ((True, BEFORE_IT), (True, ABOUT_IT), (False, ABOUT_IT)):
            stage.lab.apply([*CAST, policy("Ingress", allowed=allowed)])
            aim = aim_.decode({**ends, **ports, "mark": aim_.new_mark()})
            assert sender.ask(do="attack", name=attack, aim=aim.encode())["outcome"] == "sent"
            time.sleep(0.1)
            arrived += receiver.ask(do="count", wanted=[[aim.payload.hex()]])["frames"]
    assert arrived == [1, 1, 0 if stage.engine.judges_errors else 1]
