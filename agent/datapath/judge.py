"""How a flow is judged: values in, verdict out, as `bpf/include/decide.h` does it.

The problem: whoever tells people what the kernel did, or checks that it did right, has to come to the kernel's own
decision. The rule: the steps of decide.h in its order, over look-ups of one generation. It judges connections in
their original direction (rule A38); the source check, neighbour discovery and traffic of the pod's own node, which
pass or fall by position, are not for it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence
from typing import NamedTuple

from agent import desired as desired_
from agent.datapath import lookups, plan
from agent.model import identity, net
from agent.model import verdict as verdict_

FORWARDED = verdict_.Verdict.FORWARDED
DROPPED = verdict_.Verdict.DROPPED
AUDIT = verdict_.Verdict.AUDIT


_DEFAULT = desired_.Row(desired_.Action.DENY, 0)


class Hook(enum.Enum):
    """Where in the node's network namespace a packet is judged."""

    FORWARD = "forward"
    """Between two addresses that are not the node's: both directions."""
    LOCAL_IN = "local_in"
    """From a pod to its own node: egress only (rules A18, A37)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What was decided: the first denial, else the first would-be denial, else the last direction judged."""

    verdict: verdict_.Verdict
    reason: verdict_.Reason
    direction: net.Direction
    endpoint: int = 0
    """Whose side decided; 0: no endpoint's."""
    rule: int = 0
    """The rule that decided; 0: none."""
    set: int = desired_.NOT_ISOLATED
    """The policy set that decided, of a would-be denial the audit set; 0: not isolated."""
    unread: bool = dataclasses.field(default=False, compare=False)
    """It is denied because a row allows DNS queries for some names alone, and nobody reads what this endpoint asks for.
    No event of the kernel's says so."""

    @property
    def allowed(self) -> bool:
        """Whether the flow passes; what would be denied does (rule A51)."""
        return self.verdict is not DROPPED


class Admission(enum.Enum):
    """What becomes of a DNS query that policy has let through so far."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    WOULD_REFUSE = "would refuse"
    """It passes, and is told (rule A51)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a filter says of a query."""

    admission: Admission
    asks: int = desired_.ASKS_ANYTHING
    """The filter that decided; 0: there is none."""
    rule: int = 0
    """The first of the rules that allow what the filter restricts; 0: they differ by backend."""
    set: int = desired_.NOT_ISOLATED


class Flow(NamedTuple):
    """A connection in its original direction. A tuple, for there are many."""

    client: net.Address
    server: net.Address
    protocol: int
    """IANA number."""
    port: int
    """The server's; 0 where there is none."""
    malformed: bool = False
    """The headers could not be followed: `protocol` is not to be trusted."""


class _Policy(NamedTuple):
    """What one side is judged by."""

    set: int
    asks: bool
    """What a filter of it restricts is read at the endpoint's veth, and restricted there; else it is denied."""


class Judge:
    """Judges by the look-ups of one generation."""

    def __init__(self, found_in: lookups.Lookups) -> None:
        """Judge by `found_in`."""
        self._find = found_in

    def packet(self, flow: Flow, hook: Hook) -> Judgement:
        """Judge as the packet layer does."""
        egress = self.end(flow, net.Direction.EGRESS)
        if hook is Hook.LOCAL_IN or not egress.allowed:
            return egress
        return first(egress, self.end(flow, net.Direction.INGRESS))

    def ends(self, flow: Flow, hook: Hook) -> tuple[Judgement, ...]:
        """Judge every side that has a say at a hook, egress first."""
        egress = self.end(flow, net.Direction.EGRESS)
        return (egress,) if hook is Hook.LOCAL_IN else (egress, self.end(flow, net.Direction.INGRESS))

    def end(self, flow: Flow, direction: net.Direction) -> Judgement:
        """Judge one direction: for the client EGRESS, for the server INGRESS (decide_end, decide_side)."""
        subject = flow.client if direction is net.Direction.EGRESS else flow.server
        number = self._find.endpoint_of_address(subject)
        enforced = self._find.endpoint(number)
        if enforced is None:
            if self._find.is_held(subject):
                return _judged(DROPPED, verdict_.Reason.ENDPOINT_HELD, direction)
            return _judged(FORWARDED, verdict_.Reason.NOT_ISOLATED, direction)
        if enforced.held:
            return _judged(DROPPED, verdict_.Reason.ENDPOINT_HELD, direction, number)
        if direction is net.Direction.INGRESS:
            policy, audit = _Policy(enforced.ingress_set, False), _Policy(enforced.ingress_audit, False)  # noqa: FBT003 - a field
        else:
            policy, audit = _egress(enforced)
        judged = self._by_set(flow, direction, number, policy)
        if audit.set == desired_.NOT_ISOLATED or judged.verdict is not FORWARDED:
            return judged
        return _audited(judged, self._by_set(flow, direction, number, audit))

    def query(self, flow: Flow, names: Sequence[int], *, interface: int = 0) -> Asked:
        """Judge a query for a name of the classes `names`, sent to `flow` as it was dialled, as nw_dns_query does.

        `interface` is the host side of the veth that it comes by; 0: whose it is the client's address says. It speaks
        of filters alone: what policy denies it lets pass, for others drop that (rule E17), and so does what a filter
        restricts where nobody reads queries.
        """
        find = self._find
        number = find.endpoint_of_interface(interface) if interface else find.endpoint_of_address(flow.client)
        enforced = find.endpoint(number)
        if enforced is None or enforced.held:
            return Asked(admission=Admission.ADMITTED)
        if flow.protocol != net.Protocol.UDP.value:
            names = ()  # what is no datagram is no query that could be read
        policy, audit = _egress(enforced)
        asked = self._asked(flow, names, policy)
        if asked.admission is not Admission.ADMITTED:
            return asked
        tried = self._asked(flow, names, audit)
        if tried.admission is Admission.ADMITTED:
            return asked
        return dataclasses.replace(tried, admission=Admission.WOULD_REFUSE)

    def _asked(self, flow: Flow, names: Sequence[int], policy: _Policy) -> Asked:
        policy_set = policy.set
        if policy_set == desired_.NOT_ISOLATED or not policy.asks:
            return Asked(admission=Admission.ADMITTED, set=policy_set)
        service = self._find.service_at(desired_.Frontend(flow.server, flow.port, flow.protocol))
        found: plan.ClassValue | desired_.Row | None
        if service:
            found = self._find.service_class(policy_set, service)
        else:
            found = self._row(flow, net.Direction.EGRESS, policy_set)
            found = found if found.action is desired_.Action.ALLOW else None
        asks = desired_.ASKS_ANYTHING if found is None else found.asks
        if found is None or asks == desired_.ASKS_ANYTHING:
            return Asked(admission=Admission.ADMITTED, set=policy_set)
        admitted = any(self._find.admits(asks, name_class) for name_class in names)
        admission = Admission.ADMITTED if admitted else Admission.REFUSED
        return Asked(admission=admission, asks=asks, rule=found.rule, set=policy_set)

    def connect(self, cookie: int, address: net.Address, protocol: int, port: int) -> Judgement:
        """Judge what a process in network namespace `cookie` asks for as the socket layer does."""
        egress = net.Direction.EGRESS
        number = self._find.endpoint_of_netns(cookie)
        enforced = self._find.endpoint(number)
        own = number != 0 and self._find.endpoint_of_address(address) == number
        if enforced is None or own or address.is_loopback:
            return _judged(FORWARDED, verdict_.Reason.NOT_ISOLATED, egress, number if enforced is not None else 0)
        if enforced.held:
            return _judged(DROPPED, verdict_.Reason.ENDPOINT_HELD, egress, number)
        dialled = desired_.Frontend(address=address, port=port, protocol=protocol)
        policy, audit = _egress(enforced)
        judged = self._dialled(dialled, number, policy)
        if judged is None or judged.verdict is not FORWARDED or audit.set == desired_.NOT_ISOLATED:
            return judged or _judged(FORWARDED, verdict_.Reason.RULE_ALLOWED, egress, number, policy_set=policy.set)
        return _audited(judged, self._dialled(dialled, number, audit))

    def _dialled(self, dialled: desired_.Frontend, number: int, policy: _Policy) -> Judgement | None:
        """Judge an address as it was dialled; None: the backends differ, and the packet layer judges the chosen one."""
        if policy.set == desired_.NOT_ISOLATED:
            return _judged(FORWARDED, verdict_.Reason.NOT_ISOLATED, net.Direction.EGRESS, number)
        service = self._find.service_at(dialled)
        if service:
            return self._by_service(number, policy, service)
        flow = Flow(client=dialled.address, server=dialled.address, protocol=dialled.protocol, port=dialled.port)
        return self._by_rows(flow, net.Direction.EGRESS, number, policy)

    def _by_set(self, flow: Flow, direction: net.Direction, number: int, policy: _Policy) -> Judgement:
        if policy.set == desired_.NOT_ISOLATED:
            return _judged(FORWARDED, verdict_.Reason.NOT_ISOLATED, direction, number)
        if flow.malformed:
            return _judged(DROPPED, verdict_.Reason.MALFORMED, direction, number, policy_set=policy.set)
        return self._by_rows(flow, direction, number, policy)

    def _by_rows(self, flow: Flow, direction: net.Direction, number: int, policy: _Policy) -> Judgement:
        """Find the longest match among the rows of the peer's identity, else of ANY, else deny; a name may allow."""
        row = self._row(flow, direction, policy.set)
        unread = row.action is desired_.Action.ALLOW and row.asks != desired_.ASKS_ANYTHING and not policy.asks
        allowing: desired_.Row | None = row
        if unread or row.action is not desired_.Action.ALLOW:
            allowing = self._by_name(flow, direction, number, policy.set, row)
        if allowing is not None:
            return _judged(FORWARDED, verdict_.Reason.RULE_ALLOWED, direction, number, allowing.rule, policy.set)
        rule = 0 if unread else row.rule
        reason = verdict_.Reason.POLICY_DENY if rule else verdict_.Reason.POLICY_DENIED
        denied = _judged(DROPPED, reason, direction, number, rule, policy.set)
        return dataclasses.replace(denied, unread=True) if unread else denied

    def _row(self, flow: Flow, direction: net.Direction, policy_set: int) -> desired_.Row:
        """Find the row that decides without names."""
        peer = flow.server if direction is net.Direction.EGRESS else flow.client
        row = self._find.row(policy_set, self._find.identity_of(peer), direction, flow.protocol, flow.port)
        if row is None:
            row = self._find.row(policy_set, identity.ANY, direction, flow.protocol, flow.port)
        return row or _DEFAULT

    def _by_name(
        self, flow: Flow, direction: net.Direction, number: int, policy_set: int, denying: desired_.Row
    ) -> desired_.Row | None:
        """Find an Allow by the peer's name that is asked before what denies; in the Admin tier, before what passes."""
        if direction is not net.Direction.EGRESS:
            return None
        for class_ in self._find.learned(number, flow.server):
            row = self._find.row(policy_set, class_, direction, flow.protocol, flow.port)
            if row is not None and (row.rank < min(denying.rank, denying.passed) or row.passed < denying.rank):
                return row
        return None

    def _by_service(self, number: int, policy: _Policy, service: int) -> Judgement | None:
        egress, policy_set = net.Direction.EGRESS, policy.set
        found = self._find.service_class(policy_set, service)
        if found is None or (found.asks != desired_.ASKS_ANYTHING and not policy.asks):
            return None
        match found.service_class:
            case desired_.ServiceClass.ALL:
                return _judged(FORWARDED, verdict_.Reason.RULE_ALLOWED, egress, number, found.rule, policy_set)
            case desired_.ServiceClass.NONE:
                return _judged(DROPPED, verdict_.Reason.SERVICE_DENIED, egress, number, found.rule, policy_set)
            case desired_.ServiceClass.MIXED:
                return None


def first(egress: Judgement, ingress: Judgement) -> Judgement:
    """Choose of two sides the one to tell of, where one is told: egress has been asked first."""
    if not egress.allowed or (egress.verdict is AUDIT and ingress.allowed):
        return egress
    if ingress.verdict is FORWARDED and ingress.set == desired_.NOT_ISOLATED and egress.set != desired_.NOT_ISOLATED:
        return egress
    return ingress


def _egress(subject: lookups.Subject) -> tuple[_Policy, _Policy]:
    """Return what is enforced for egress, and what is in audit."""
    return (
        _Policy(subject.egress_set, subject.egress_asks),
        _Policy(subject.egress_audit, subject.egress_audit_asks),
    )


def _audited(judged: Judgement, audit: Judgement | None) -> Judgement:
    """Put what is allowed to what the audit set says of it; None: nothing, for now."""
    if audit is None or audit.verdict is not DROPPED:
        return judged
    return dataclasses.replace(audit, verdict=AUDIT)


def _judged(  # noqa: PLR0917 - a Judgement's own fields in its own order
    verdict: verdict_.Verdict,
    reason: verdict_.Reason,
    direction: net.Direction,
    endpoint: int = 0,
    rule: int = 0,
    policy_set: int = desired_.NOT_ISOLATED,
) -> Judgement:
    return Judgement(
        verdict=verdict,
        reason=reason,
        direction=direction,
        endpoint=endpoint,
        rule=rule,
        set=policy_set,
    )
