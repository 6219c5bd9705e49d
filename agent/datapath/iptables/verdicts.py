"""Logged packets as events, the same that the BPF programs write.

The problem: the kernel logs a packet and a note; people want endpoint, rule and identities. The rule: the note carries
the generation, `moments` remembers the state of each, and `findings` works the rest out once a flow: nothing of it
depends on the client's port, so a flood of connections costs one look into a dictionary each. What is of a generation
nobody remembers is told with the names of the nearest one, as AUDIT where that would deny it (rule A51), and without
policy or rule.

Times are those of the reading, CLOCK_MONOTONIC: the kernel's own time stamp is on the wall clock, and seldom there.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from agent import desired as desired_
from agent.datapath import judge, lookups
from agent.datapath.iptables import findings
from agent.datapath.iptables import logged as logged_
from agent.datapath.iptables import moments as moments_
from agent.datapath.iptables import packet as packet_
from agent.datapath.iptables import prefix as prefix_
from agent.model import net, verdict

REMEMBERED = 16384
"""Flows, and addresses, that are remembered at most; then all are forgotten."""
UNKNOWN_GENERATION = 0
_ETHERTYPES = {logged_.NFPROTO_IPV4: packet_.ETHERTYPE_IPV4, logged_.NFPROTO_IPV6: packet_.ETHERTYPE_IPV6}

Moments = moments_.Moments


class Event(NamedTuple):
    """One verdict; satisfies the observer's RawEvent. Enums are their numbers, ports in host byte order."""

    time_ns: int
    source_port: int
    repeats: int
    """Events of this kind that were kept back since the last one."""
    destination_port: int
    source: net.Address
    destination: net.Address
    protocol: int
    source_identity: int
    destination_identity: int
    generation: int
    layer: int
    pid: int
    """0: the packet layer knows no processes; so with `command`."""
    command: str
    endpoint: int
    policy_set: int
    rule: int
    direction: int
    verdict: int
    reason: int

    @property
    def came_from(self) -> tuple[net.Address, int]:
        """The client's address and port."""
        return self.source, self.source_port

    @property
    def towards(self) -> tuple[int, int, bytes, bytes]:
        """Who asks for what: endpoint, protocol, and the server's address and port as on the wire (IPv4 mapped)."""
        return self.endpoint, self.protocol, net.mapped(self.destination), self.destination_port.to_bytes(2, "big")


Template: TypeAlias = tuple[object, ...]
"""An event from `destination_port` on."""


class Attribution:
    """Makes events of logged packets; for one thread."""

    def __init__(self, moments: Moments) -> None:
        """Look generations up in `moments`."""
        self._moments = moments
        self._known = moments.known
        self._prefixes: dict[bytes, prefix_.Prefix | None] = {}
        self._flows: dict[tuple[object, ...], tuple[bool, Sequence[Template]]] = {}
        self._addresses: dict[bytes, net.Address] = {}
        self.disagreed = 0
        """Packets whose verdict the state of their generation does not explain."""

    def events(self, logged: logged_.Logged, time_ns: int) -> list[Event]:
        """Return what is to be told of a packet: nothing, one verdict, or one for each side."""
        if self._known is not self._moments.known or max(len(self._flows), len(self._addresses)) >= REMEMBERED:
            self._forget()
        told = self._prefix(logged.prefix)
        if told is None:
            return []
        packet = packet_.parse(_ETHERTYPES.get(logged.family, logged.ethertype), logged.payload)
        if told.note is prefix_.Note.REPLY_DENIED:
            packet = turned(packet)
        version, source, destination, protocol, client_port, server_port, malformed, cut, _ = packet
        key = (
            logged.prefix, logged.family, logged.hook, logged.in_ifindex,
            version, source, destination, protocol, server_port, malformed, cut,
        )  # fmt: skip
        if told.note is prefix_.Note.UNJUDGED:
            agreed, templates = self._templates(told, logged, packet)
        elif (remembered := self._flows.get(key)) is not None:
            agreed, templates = remembered
        else:
            agreed, templates = self._flows[key] = self._templates(told, logged, packet)
        self.disagreed += not agreed
        return [Event._make((time_ns, client_port, 0, *template)) for template in templates]

    def _forget(self) -> None:
        self._known = self._moments.known
        self._prefixes.clear()
        self._flows.clear()
        self._addresses.clear()

    def _prefix(self, text: bytes) -> prefix_.Prefix | None:
        try:
            return self._prefixes[text]
        except KeyError:
            told = prefix_.parse(text.decode("ascii", errors="replace"))
            if told is not None:  # others' texts are not ours to remember
                self._prefixes[text] = told
            return told

    def _templates(
        self, told: prefix_.Prefix, logged: logged_.Logged, packet: packet_.Packet
    ) -> tuple[bool, Sequence[Template]]:
        """Find, and write down all of the events but time and client port."""
        generation = told.generation
        if logged.family == logged_.NFPROTO_NETDEV and self._known.latest is not None:
            generation = self._known.latest  # the check at the veths is of the wiring, and written when that changes
        own = self._known.at(generation)
        exact = own is not None and not packet.cut
        state = own or self._known.near(generation) or lookups.InState(desired_.DesiredState())
        sight = self._sight(told.note, logged, packet)
        found = findings.find(told.note, sight, state)
        judgements = found.judgements
        if not exact:
            judgements = tuple(findings.unexplained(one, cut=packet.cut) for one in judgements)
        flow = sight.flow
        shared = (
            packet.destination_port,
            flow.client,
            flow.server,
            flow.protocol,
            state.identity_of(flow.client) if exact else 0,
            state.identity_of(flow.server) if exact else 0,
            self._known.number(generation) if own is not None else UNKNOWN_GENERATION,
            verdict.Layer.PACKET.value,
            0,
            "",
        )
        return found.agreed or not exact, [(*shared, *_told(one)) for one in judgements]

    def _sight(self, note: prefix_.Note, logged: logged_.Logged, packet: packet_.Packet) -> findings.Sight:
        unsure = note is prefix_.Note.UNJUDGED and not packet_.opens(packet, logged.payload)
        return findings.Sight(
            flow=self._flow(packet),
            hook=judge.Hook.LOCAL_IN if logged.hook == logged_.LOCAL_IN else judge.Hook.FORWARD,
            in_ifindex=logged.in_ifindex,
            at_veth=logged.family == logged_.NFPROTO_NETDEV,
            reply=self._flow(turned(packet)) if unsure else None,
            is_icmp=packet_.is_icmp(packet),
        )

    def _flow(self, packet: packet_.Packet) -> judge.Flow:
        return judge.Flow(
            client=self._address(packet.source),
            server=self._address(packet.destination),
            protocol=packet.protocol,
            port=packet.destination_port,
            malformed=packet.malformed,
        )

    def _address(self, packed: bytes) -> net.Address:
        found = self._addresses.get(packed)
        if found is None:
            found = self._addresses[packed] = ipaddress.ip_address(packed)
        return found


def turned(packet: packet_.Packet) -> packet_.Packet:
    """Return the packet of the other direction: what is judged is the connection."""
    version, source, destination, protocol, source_port, destination_port, *_ = packet
    return packet_.Packet(
        version, destination, source, protocol, destination_port, source_port,
        packet.malformed, packet.cut, packet.transport,
    )  # fmt: skip


def _told(judgement: judge.Judgement) -> Template:
    return (
        judgement.endpoint,
        judgement.set,
        judgement.rule,
        judgement.direction.value,
        judgement.verdict.value,
        judgement.reason.value,
    )
