"""Runs every attack against every victim, in both families, under each policy and under none, and counts arrivals.

The control is a lab without agents: it shows that the attack works, and that the sniffer sees it, and serves every
engine. The same cast then plays in a lab with agents, once under a policy of the victim (ingress) and once under one
of the attacker (egress).
Arrival is a frame in the victim's network namespace that carries the attempt's mark or ports.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import itertools
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from agent.lab import lab, plan
from agent.model import net
from tests.support import traffic
from tests.system import engines
from tests.system.attacks import aim as aim_

SENDER = "tests.system.attacks.sender"
RECEIVER = "tests.system.attacks.receiver"
PORT = 7000
SETTLE_S = 0.4
"""After the last attempt, until what is under way has arrived: veths deliver within the send call, TCP within a RTT."""
ATTACKER = "x/attacker"
FRIENDS: Mapping[str, str] = {"x/near": "x/ally", "x/far": "x/friend"}
"""Each victim's admitted pod, on its own node."""
LENT = ("tcp", "udp", "sendto")
OWN_TRAFFIC = ("TCP connect()", "UDP sendto()", "fragments, in order", "raw IP, ICMP echo")
"""What the admitted pod does to show that not everything is denied."""
NODE_SETTINGS = (
    "net.ipv4.icmp_ratemask=0",
    "net.ipv6.icmp.ratelimit=0",
    "net.ipv4.conf.all.accept_local=1",
)
"""So that in the control run no limit of the kernel's hides an attack."""


UNROUTED = ("203.0.113.0/24", "2001:db8:dead::/64")
"""Where the node itself says that there is no way."""


class Phase(enum.Enum):
    """Which policy is in force; the value heads a column."""

    CONTROL = "control"
    INGRESS = "ingress"
    EGRESS = "egress"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One attempt and what came of it."""

    attack: str
    phase: Phase
    victim: str
    family: int
    outcome: str
    """What the sender saw: `sent`, an errno or `time-out`."""
    frames: int
    reads: int
    """What the victim's applications read."""


def pod(name: str, node: str, role: str) -> dict[str, Any]:
    """Return a manifest."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "x", "labels": {"role": role}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "example/none"}]},
    }


CAST = (
    pod("attacker", "node-1", "attacker"),
    pod("near", "node-1", "victim"),
    pod("ally", "node-1", "friend"),
    pod("far", "node-2", "victim"),
    pod("friend", "node-2", "friend"),
)


def policy(phase: Phase) -> dict[str, Any]:
    """Return the policy of a phase: the victims admit friends only, or the attacker may talk to friends only."""
    peer = [{"podSelector": {"matchLabels": {"role": "friend"}}}]
    if phase is Phase.INGRESS:
        name, role, rule = "victims", "victim", {"policyTypes": ["Ingress"], "ingress": [{"from": peer}]}
    else:
        name, role, rule = "attackers", "attacker", {"policyTypes": ["Egress"], "egress": [{"to": peer}]}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"podSelector": {"matchLabels": {"role": role}}, **rule},
    }


class Field:
    """The cast in a running lab."""

    def __init__(self, running: lab.Lab) -> None:
        """Start nothing yet."""
        self._lab = running
        self._stack = contextlib.ExitStack()
        self._ports = itertools.count(20000)
        self._attacks: list[dict[str, Any]] = []
        self._senders: dict[str, traffic.PodProcess] = {}
        self._receivers: dict[str, traffic.PodProcess] = {}
        self._names: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Start the processes, find the neighbours and open the sockets that shall be older than the policy."""
        with contextlib.ExitStack() as stack:
            for party in (ATTACKER, *FRIENDS.values()):
                self._senders[party] = stack.enter_context(traffic.PodProcess(self._lab, party, SENDER))
            for party in (*FRIENDS, *FRIENDS.values()):
                self._receivers[party] = stack.enter_context(traffic.PodProcess(self._lab, party, RECEIVER))
            self._stack = stack.pop_all()
        try:
            self._prepare()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes."""
        self._stack.close()

    def _prepare(self) -> None:
        for node in self._lab.plan.nodes:
            routes = [["ip", "route", "replace", "unreachable", unrouted] for unrouted in UNROUTED]
            for command in (["sysctl", "-qw", *NODE_SETTINGS], *routes):
                subprocess.run(self._lab.exec_command(f"node/{node}", command), check=True)
        for party, receiver in self._receivers.items():
            receiver.ask(do="listen", addresses=[str(a) for a in self._lab.plan.addresses(party)], port=PORT)
        self._attacks = self._senders[ATTACKER].ask(do="attacks")["attacks"]
        for victim, family in itertools.product(FRIENDS, net.Family):
            aim = self.aim(ATTACKER, victim, family)
            far_away = {4: "203.0.113.77", 6: "2001:db8:dead::77"}[family.value]
            everybody = [aim.victim, aim.friend, aim.node, far_away]
            self._senders[ATTACKER].ask(do="resolve", addresses=everybody)
            self._senders[FRIENDS[victim]].ask(do="resolve", addresses=[aim.victim])
            self._names = tuple(self._senders[ATTACKER].ask(do="prepare", aim=aim.encode())["names"])

    def address(self, party: str, family: net.Family) -> str:
        """Return a party's address of one family."""
        return next(str(a) for a in self._lab.plan.addresses(party) if net.family_of(a) is family)

    def aim(self, source: str, victim: str, family: net.Family) -> aim_.Aim:
        """Return a fresh attempt."""
        return aim_.Aim(
            source=self.address(source, family),
            victim=self.address(victim, family),
            friend=self.address(FRIENDS[victim], family),
            node=self.address("node/node-1", family),
            port=PORT,
            friend_port=PORT,
            source_port=next(self._ports),
            mark=aim_.new_mark(),
        )

    def _neighbours(self, victim: str) -> bool:
        """Tell whether the attacker and the victim hang on one bridge."""
        return self._lab.topology is plan.Topology.BRIDGE and self._lab.plan.pods[victim].node == "node-1"

    def shoot(self, phase: Phase) -> Iterator[Shot]:
        """Run every attack against both victims in both families; what a busy machine lost is sent again."""
        for victim, family in itertools.product(FRIENDS, net.Family):
            shots = {shot.attack: shot for shot in self._salvo(phase, victim, family)}
            for _ in range(REPEATS):
                if all(shot.frames for shot in shots.values() if _must_arrive(shot)):
                    break
                for shot in self._salvo(phase, victim, family):
                    # one arrival counts, wanted or not
                    shots[shot.attack] = shots[shot.attack] if shots[shot.attack].frames else shot
            yield from shots.values()

    def _salvo(self, phase: Phase, victim: str, family: net.Family) -> Iterator[Shot]:
        receiver = self._receivers[victim]
        receiver.ask(do="forget")
        flow = {"from": [self.address(victim, family), PORT], "to": [self.address(FRIENDS[victim], family), PORT]}
        receiver.ask(do="talk", **flow)
        shots = [*self._alone(victim, family), *self._together(victim, family)]
        time.sleep(SETTLE_S)
        counted = receiver.ask(do="count", wanted=[[trace.hex() for trace in traces] for *_, traces in shots])
        for (name, outcome, _), frames, reads in zip(shots, counted["frames"], counted["reads"], strict=True):
            yield Shot(
                attack=name,
                phase=phase,
                victim=victim,
                family=family.value,
                outcome=outcome,
                frames=frames,
                reads=reads,
            )

    def _alone(self, victim: str, family: net.Family) -> Iterator[tuple[str, str, Sequence[bytes]]]:
        attacker = self._senders[ATTACKER]
        for name in self._names:
            aim = self.aim(ATTACKER, victim, family)
            yield name, attacker.ask(do="use", name=name, aim=aim.encode())["outcome"], aim.traces
        for attack in self._attacks:
            if family.value in attack["families"] and attack["neighbours"] in (None, self._neighbours(victim)):
                aim = self.aim(ATTACKER, victim, family)
                outcome = attacker.ask(do="attack", name=attack["name"], aim=aim.encode())["outcome"]
                yield attack["name"], outcome, aim.traces
        friend = self._senders[FRIENDS[victim]]
        for name in OWN_TRAFFIC:
            aim = self.aim(FRIENDS[victim], victim, family)
            yield f"{ADMITTED}{name}", friend.ask(do="attack", name=name, aim=aim.encode())["outcome"], aim.traces

    def _together(self, victim: str, family: net.Family) -> Iterator[tuple[str, str, Sequence[bytes]]]:
        """Run what needs the friend's help, willing or not."""
        attacker, friend = self._senders[ATTACKER], self._senders[FRIENDS[victim]]
        for kind in LENT:
            aim = self.aim(ATTACKER, victim, family)
            path = f"{self._lab.paths.path}/s/{aim.mark}"
            friend.tell(do="borrow", path=path, aim=aim.encode())
            attacker.ask(do="lend", path=path, aim=aim.encode(), kind=kind)
            yield f"own socket used by the admitted pod's process, {kind}", friend.answer()["outcome"], aim.traces
        if victim != "x/near":
            return  # a fragment waits on the node it entered: only there can it meet the other half
        for order in ("first", "last"):
            aim = self.aim(ATTACKER, victim, family)
            mine: dict[str, Any] = {"do": "half", "aim": aim.encode(), "source": aim.friend, "first": False}
            sides = [(attacker, mine), (friend, mine | {"first": True})]
            outcomes = [side.ask(**order_)["outcome"] for side, order_ in (sides if order == "first" else sides[::-1])]
            yield f"fragment put into the admitted pod's datagram, {order}", "/".join(outcomes), [aim.payload]


ADMITTED = "(admitted pod) "
REPEATS = 2


def _must_arrive(shot: Shot) -> bool:
    return shot.phase is Phase.CONTROL or shot.attack.startswith(ADMITTED)


def control(topology: plan.Topology, name: str) -> list[Shot]:
    """Run everything where nothing is enforced."""
    with lab.Lab(name=name, topology=topology, families=list(net.Family), agents=False) as running:
        running.down()
        running.up(CAST)
        with Field(running) as field:
            return list(field.shoot(Phase.CONTROL))


def run(combination: engines.Combination, name: str) -> list[Shot]:
    """Run everything under each policy."""
    with combination.engine.lab(name, combination.topology, families=list(net.Family)) as running:
        running.down()
        running.up(CAST)
        shots: list[Shot] = []
        with Field(running) as field:
            for phase in (Phase.INGRESS, Phase.EGRESS):
                running.apply([*CAST, policy(phase)])
                shots += field.shoot(phase)
        return shots


def table(shots: Iterable[Shot]) -> list[str]:
    """Return a row an attack: in how many of its settings it arrived, by phase, and what the sender saw."""
    rows: dict[str, list[Shot]] = {}
    for shot in shots:
        rows.setdefault(shot.attack, []).append(shot)
    head = f"{'attack':58}  {'control':>8}  {'ingress':>8}  {'egress':>8}  sender under ingress; egress"
    lines = [head, "-" * len(head)]
    for attack, mine in rows.items():
        cells, seen = [], []
        for phase in Phase:
            these = [shot for shot in mine if shot.phase is phase]
            cells.append(f"{sum(shot.frames > 0 for shot in these)}/{len(these)}")
            seen.append(",".join(sorted({shot.outcome for shot in these})))
        lines.append(f"{attack:58}  {cells[0]:>8}  {cells[1]:>8}  {cells[2]:>8}  {seen[1]}; {seen[2]}")
    return lines
