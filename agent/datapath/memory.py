"""A datapath made of dictionaries: the reference for what the maps mean.

It keeps `base.Datapath`, makes a plan's steps one by one as the kernel datapath does, and judges flows
from the tables alone, exactly as `bpf/include/types.h` says the programs do. So a test can stop after any
step, and a compiler can be compared with the evaluator without a kernel. It must not look at the
DesiredState when judging: what is not in the tables does not exist.

It judges connections in their original direction (rule A38); the source check, neighbour discovery and
traffic of the pod's own node, which pass or fall by position, are not for it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence

from agent import desired as desired_
from agent.datapath import base, plan, slots
from agent.model import endpoint, identity, net
from agent.model import verdict as verdict_

_PROTOCOL_BITS = range(16, -1, -1)


class Hook(enum.Enum):
    """Where in the node's network namespace a packet is judged."""

    FORWARD = "forward"
    """Between two addresses that are not the node's: both directions."""
    LOCAL_IN = "local_in"
    """From a pod to its own node: egress only (rules A18, A37)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was decided: the first denial, else the last direction judged."""

    verdict: verdict_.Verdict
    reason: verdict_.Reason
    direction: net.Direction
    rule: int = 0
    """The rule that decided; 0: none."""
    set: int = desired_.NOT_ISOLATED
    """The policy set that decided; 0: not isolated."""

    @property
    def allowed(self) -> bool:
        """Whether the flow passes."""
        return self.verdict is verdict_.Verdict.FORWARDED


class MemoryDatapath(base.Datapath):
    """Enforces nothing, remembers everything."""

    def __init__(self, tables: plan.Tables | None = None) -> None:
        """Start from `tables`, as an agent that adopts pinned maps does, or from empty ones."""
        self.tables = tables or plan.Tables()
        self._reader = _Reader(self.tables)

    def open(self) -> base.EngineReport:
        """Report the engine; there is nothing to probe."""
        return base.EngineReport(mode="memory")

    def apply(self, desired: desired_.DesiredState) -> base.Applied:
        """Plan from the present tables and make every step; raises MapFull before the first."""
        way = plan.plan(self.tables, desired)
        for step in way.steps:
            self.make(step)
        flipped = len(self.tables.endpoints) if way.flipped else 0
        return base.Applied(generation=way.generation, written=way.written, flipped=flipped, seconds=0.0)

    def settle(self) -> None:
        """Do nothing: no program reads these tables while they are written."""

    def attach_links(self, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        """Do nothing: there are no links, and the source check is not for this datapath."""

    def make(self, step: plan.Step) -> None:
        """Make one step of a plan; stopping after it is what a crash there leaves."""
        self.tables = plan.after(self.tables, step)

    def close(self) -> None:
        """Do nothing: there is no descriptor to let go of, and the tables stay."""

    def uninstall(self) -> None:
        """Forget everything."""
        self.tables = plan.Tables()

    def judge(
        self, *, client: net.Address, server: net.Address, protocol: int, port: int, hook: Hook = Hook.FORWARD
    ) -> Judgement:
        """Judge a connection as the packet layer does; `protocol` is the IANA number, `port` the server's."""
        return self._reading().packet(client, server, protocol, port, hook)

    def judge_connect(self, cookie: int, address: net.Address, protocol: int, port: int) -> Judgement:
        """Judge connect() or sendmsg() of a process in network namespace `cookie` as the socket layer does."""
        return self._reading().connect(cookie, net.normalize(address), protocol, port)

    def _reading(self) -> _Reader:
        """Return the look-ups for the present tables; indexing prefixes is dear, so it is done once a change."""
        if self._reader.tables is not self.tables:
            self._reader = _Reader(self.tables)
        return self._reader


class _Reader:
    """The programs' look-ups; reads the generation once."""

    def __init__(self, tables: plan.Tables) -> None:
        self.tables = tables
        self._slot = tables.generation & 1
        self._cidrs = slots.Covering(tables.ipcache_cidr)
        self._held = slots.Covering(tables.held)

    def packet(self, client: net.Address, server: net.Address, protocol: int, port: int, hook: Hook) -> Judgement:
        egress = self._side(client, net.Direction.EGRESS, server, protocol, port)
        if hook is Hook.LOCAL_IN or not egress.allowed:
            return egress
        ingress = self._side(server, net.Direction.INGRESS, client, protocol, port)
        if ingress.allowed and ingress.set == desired_.NOT_ISOLATED and egress.set != desired_.NOT_ISOLATED:
            return egress
        return ingress

    def connect(self, cookie: int, address: net.Address, protocol: int, port: int) -> Judgement:
        number = self._live(self.tables.ep_by_netns.get(cookie))
        enforced = self._endpoint(number)
        own = number != 0 and self._live(self.tables.ep_by_ip.get(address)) == number
        if enforced is None or own or address.is_loopback:
            return _allowed(verdict_.Reason.NOT_ISOLATED, net.Direction.EGRESS)
        if enforced.held:
            return _denied(verdict_.Reason.ENDPOINT_HELD, net.Direction.EGRESS)
        if enforced.egress_set == desired_.NOT_ISOLATED:
            return _allowed(verdict_.Reason.NOT_ISOLATED, net.Direction.EGRESS)
        frontend = desired_.Frontend(address=address, port=port, protocol=protocol)
        service = self._live(self.tables.frontend.get(frontend))
        if service:
            return self._service(enforced.egress_set, service)
        return self._row(enforced.egress_set, self._identity(address), net.Direction.EGRESS, protocol, port)

    def _side(
        self, subject: net.Address, direction: net.Direction, peer: net.Address, protocol: int, port: int
    ) -> Judgement:
        """Judge one direction for the end at `subject`."""
        enforced = self._endpoint(self._live(self.tables.ep_by_ip.get(subject)))
        if enforced is None:
            if self._live(self._held.of_address(subject)):
                return _denied(verdict_.Reason.ENDPOINT_HELD, direction)
            return _allowed(verdict_.Reason.NOT_ISOLATED, direction)
        if enforced.held:
            return _denied(verdict_.Reason.ENDPOINT_HELD, direction)
        number = enforced.ingress_set if direction is net.Direction.INGRESS else enforced.egress_set
        if number == desired_.NOT_ISOLATED:
            return _allowed(verdict_.Reason.NOT_ISOLATED, direction)
        return self._row(number, self._identity(peer), direction, protocol, port)

    def _row(self, number: int, peer: int, direction: net.Direction, protocol: int, port: int) -> Judgement:
        """Find the longest match among the rows of `peer`, else of ANY, else deny."""
        for who in (peer, identity.ANY):
            row = self._longest(number, who, direction, protocol, port)
            if row is not None and row.action is desired_.Action.ALLOW:
                return _allowed(verdict_.Reason.RULE_ALLOWED, direction, row.rule, number)
            if row is not None:
                reason = verdict_.Reason.POLICY_DENY if row.rule else verdict_.Reason.POLICY_DENIED
                return _denied(reason, direction, row.rule, number)
        return _denied(verdict_.Reason.POLICY_DENIED, direction, 0, number)

    def _longest(
        self, number: int, who: int, direction: net.Direction, protocol: int, port: int
    ) -> desired_.Row | None:
        rows = self.tables.policy
        for bits in _PROTOCOL_BITS:
            upper = port >> (16 - bits) << (16 - bits)
            row = rows.get(plan.PolicyKey(number, who, direction, protocol, upper, bits))
            if row is not None:
                return row
        return rows.get(plan.PolicyKey(number, who, direction, desired_.ANY_PROTOCOL, 0, 0))

    def _service(self, number: int, service: int) -> Judgement:
        found = self.tables.service_class.get((number, service))
        if found is None:  # mixed: the packet layer judges the backend that is chosen
            return _allowed(verdict_.Reason.RULE_ALLOWED, net.Direction.EGRESS, 0, number)
        match found.service_class:
            case desired_.ServiceClass.ALL:
                return _allowed(verdict_.Reason.RULE_ALLOWED, net.Direction.EGRESS, found.rule, number)
            case desired_.ServiceClass.NONE:
                return _denied(verdict_.Reason.SERVICE_DENIED, net.Direction.EGRESS, found.rule, number)

    def _identity(self, address: net.Address) -> int:
        host = self._live(self.tables.ipcache_host.get(address))
        return host or self._live(self._cidrs.of_address(address)) or identity.WORLD

    def _endpoint(self, number: int) -> plan.EndpointSlot | None:
        value = self.tables.endpoints.get(number)
        return value.slots[self._slot] if value else None

    def _live(self, pair: plan.Slots | None) -> int:
        return pair[self._slot] if pair else 0


def _allowed(
    reason: verdict_.Reason, direction: net.Direction, rule: int = 0, number: int = desired_.NOT_ISOLATED
) -> Judgement:
    return Judgement(verdict=verdict_.Verdict.FORWARDED, reason=reason, direction=direction, rule=rule, set=number)


def _denied(
    reason: verdict_.Reason, direction: net.Direction, rule: int = 0, number: int = desired_.NOT_ISOLATED
) -> Judgement:
    return Judgement(verdict=verdict_.Verdict.DROPPED, reason=reason, direction=direction, rule=rule, set=number)
