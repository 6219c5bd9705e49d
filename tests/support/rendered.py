"""A datapath of rendered rules that no kernel runs: what iptables would do with a flow, by an interpreter of rules.

A connection is judged as its packets are, the first one and an answer: they must agree, or a connection could begin and
not go on.
"""

from __future__ import annotations

import dataclasses

from agent import desired as desired_
from agent.datapath import judge as judge_
from agent.datapath import lookups
from agent.datapath.iptables import findings, interpreter, render, ruleset
from agent.model import net

OUTSIDE = "eth0"
TABLES = (ruleset.Table.FILTER, ruleset.Table.SECURITY)


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What the rules of a node do with a connection."""

    allowed: bool


class RenderedDatapath:
    """The rules of one node, both families."""

    def __init__(self) -> None:
        """Start without any."""
        self._generation = 0
        self._cache = render.Cache()
        self._models: dict[net.Family, interpreter.Model] = {}
        self._interfaces: dict[net.Address, str] = {}
        self._state = lookups.InState(desired_.DesiredState())

    def apply(self, desired: desired_.DesiredState) -> None:
        """Render a state; what the last one left to the next must not show."""
        self._generation += 1
        self._state = lookups.InState(desired)
        names = {one.ingress_ifindex: f"veth{one.ingress_ifindex}" for one in desired.endpoints.values()}
        self._interfaces = {
            address: names[one.ingress_ifindex] for one in desired.endpoints.values() for address in one.addresses
        }
        self._models = {
            family: interpreter.Model(render.render(desired, family, names, self._generation, self._cache))
            for family in net.Family
        }

    def judge(
        self, *, client: net.Address, server: net.Address, protocol: int, port: int, hook: judge_.Hook
    ) -> Decision:
        """Decide about a connection from its first packet; AssertionError if the answer fares differently."""
        first = self._first(client, server, protocol, port)
        answer = dataclasses.replace(
            first,
            state="ESTABLISHED",
            source=server,
            destination=client,
            source_port=port,
            destination_port=first.source_port,
            interface=self._interfaces.get(server, OUTSIDE),
            reply=True,
        )
        packets = [first] if hook is judge_.Hook.LOCAL_IN else [first, answer]
        builtin = "INPUT" if hook is judge_.Hook.LOCAL_IN else "FORWARD"
        passed = [self._passes(builtin, packet) for packet in packets]
        assert len(set(passed)) == 1, f"{client} to {server} port {port}: {passed} at {builtin}"
        return Decision(passed[0])

    def judge_ends(
        self, *, client: net.Address, server: net.Address, protocol: int, port: int, hook: judge_.Hook
    ) -> tuple[judge_.Judgement, ...]:
        """Return what is told of a connection: what the log of its first packet is taken to mean."""
        first = self._first(client, server, protocol, port)
        builtin = "INPUT" if hook is judge_.Hook.LOCAL_IN else "FORWARD"
        outcome = self._models[net.family_of(client)].hook(builtin, first, *TABLES)
        flow = judge_.Flow(client=client, server=server, protocol=protocol, port=port)
        sight = findings.Sight(flow=flow, hook=hook, in_ifindex=0, at_veth=False)
        return tuple(one for note in outcome.notes for one in findings.find(note, sight, self._state).judgements)

    def _first(self, client: net.Address, server: net.Address, protocol: int, port: int) -> interpreter.Packet:
        return interpreter.Packet(
            source=client,
            destination=server,
            protocol=protocol,
            source_port=40000,
            destination_port=port,
            interface=self._interfaces.get(client, OUTSIDE),
            original_source=client,
            reply_source=server,
        )

    def _passes(self, builtin: str, packet: interpreter.Packet) -> bool:
        model = self._models[net.family_of(packet.source)]
        genuine = model.hook("PREROUTING", packet, ruleset.Table.RAW)
        return genuine.passed and model.hook(builtin, packet, *TABLES).passed
