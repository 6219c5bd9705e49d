"""Numbers of the maps in words: whose endpoint, which facts, which policies, which rule.

The state gives the names; a number it does not know is shown bare, for that is what an entry that nobody compiled
looks like. Names and labels come from strangers: whoever prints these texts escapes them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from agent import desired as desired_
from agent.datapath import judge, plan, walk
from agent.model import identity, net, verdict

RESERVED = {identity.ANY: "any", identity.HOST: "host", identity.WORLD: "world", identity.UNMANAGED: "unmanaged"}
BY_FAMILY = frozenset(
    {plan.Table.EP_BY_IP, plan.Table.IPCACHE_HOST, plan.Table.IPCACHE_CIDR, plan.Table.HELD, plan.Table.FRONTEND}
)
_PROTOCOLS = {member.value: member.name for member in net.Protocol}


class Words:
    """Words for the numbers of one state."""

    def __init__(self, state: desired_.DesiredState) -> None:
        """Take names from `state`."""
        self._state = state

    def endpoint(self, number: int) -> str:
        """Return `endpoint N (NAMESPACE/POD)`."""
        known = self._state.endpoints.get(number)
        return f"endpoint {number} ({known.namespace}/{known.pod})" if known else f"endpoint {number} (unknown)"

    def identity(self, number: int) -> str:
        """Return `identity N`, or `names N` of a class of names, with what it stands for."""
        if number in RESERVED:
            return f"identity {number} ({RESERVED[identity.NumericIdentity(number)]})"
        if number >= identity.FIRST_NAME_CLASS:
            patterns = sorted(map(str, self._state.names.contents.get(number, ())))
            return f"names {number} ({', '.join(patterns) or 'unknown'})"
        known = self._state.identities.get(identity.NumericIdentity(number))
        return f"identity {number} ({facts(known.facts)})" if known else f"identity {number} (unknown)"

    def policy_set(self, number: int) -> str:
        """Return `set N` with the policies that isolate."""
        if number == desired_.NOT_ISOLATED:
            return "not isolated"
        known = self._state.sets.get(number)
        if known is None:
            return f"set {number} (unknown)"
        return f"set {number} ({', '.join(map(str, known.isolating)) or known.direction.name.lower()})"

    def rule(self, number: int) -> str:
        """Return the rule, in the words of policies."""
        known = self._state.rules.get(number)
        return str(known) if known else f"rule {number} (unknown)"

    def filter(self, number: int) -> str:
        """Return `filter N` with the patterns of the names that may be asked for."""
        known = self._state.filter_patterns.get(number)
        return f"filter {number} ({'unknown' if known is None else ', '.join(sorted(map(str, known))) or 'no name'})"

    def classes(self, numbers: Iterable[int]) -> str:
        """Return the classes of a name; "" where it has none."""
        return ", ".join(self.identity(number) for number in sorted(numbers))

    def asked(self, found: judge.Asked) -> str:
        """Return why a query is let through or not; of what is in audit, that it would not be (rules A51, E17)."""
        if found.asks == desired_.ASKS_ANYTHING:
            return "no filter of names holds there"
        by = f", by {self.rule(found.rule)}" if found.rule else ""
        where = f"{self.filter(found.asks)} of {self.policy_set(found.set)}{by}"
        if found.admission is judge.Admission.ADMITTED:
            return f"the name is in {where}"
        refused = f"the name is not in {where}"
        return f"in audit, would be refused: {refused}" if found.admission is judge.Admission.WOULD_REFUSE else refused

    def restricts(self, veth_ifindex: int) -> bool:
        """Tell whether the endpoint behind a veth has filters."""
        asking = plan.asking_sets(self._state)
        return any(
            item.veth_ifindex == veth_ifindex and {item.egress_set, item.egress_audit} & asking
            for item in self._state.endpoints.values()
        )

    def service(self, number: int) -> str:
        """Return `service N` with the Services that have this content."""
        known = self._state.services.get(number, ())
        return f"service {number} ({', '.join(map(str, known)) or 'unknown'})"

    @staticmethod
    def map(table: plan.Table, key: Any) -> str:
        """Return the pinned name of the map that has `key`."""
        if table not in BY_FAMILY:
            return table.value
        address = key.address if isinstance(key, desired_.Frontend) else key
        return f"{table.value}{address.version}"

    def key(self, table: plan.Table, key: Any) -> str:  # noqa: PLR0911 - one a table
        """Return a key of `table` in words."""
        match table:
            case plan.Table.POLICY:
                if key.direction is plan.Asking.ASK:
                    return f"{self.filter(key.set)}, {self.identity(key.identity)}"
                who = "any identity" if key.identity == identity.ANY else self.identity(key.identity)
                traffic = ports(key.protocol, key.port, key.port_bits)
                return f"set {key.set}, {key.direction.name.lower()}, {who}, {traffic}"
            case plan.Table.SERVICE_CLASS:
                return f"set {key[0]}, {self.service(key[1])}"
            case plan.Table.ENDPOINTS:
                return self.endpoint(key)
            case plan.Table.EP_BY_NETNS:
                return f"network namespace {key}"
            case plan.Table.EP_BY_IFINDEX:
                return f"interface {key}"
            case plan.Table.FRONTEND:
                return f"{key.address} {ports(key.protocol, key.port, walk.PORT_BITS)}"
            case _:
                return str(key)

    def value(self, table: plan.Table, value: Any) -> str:  # noqa: PLR0911 - one a table
        """Return what an entry of `table` says in one generation, in words."""
        match table:
            case plan.Table.POLICY:
                return self._row(value)
            case plan.Table.SERVICE_CLASS:
                allows = f" by {self.rule(value.rule)}" if value.rule else ""
                return f"{value.service_class.name.lower()} of its backends{allows}{self._asks(value.asks)}"
            case plan.Table.ENDPOINTS:
                return self._endpoint_slot(value)
            case plan.Table.EP_BY_NETNS | plan.Table.EP_BY_IFINDEX | plan.Table.EP_BY_IP:
                return self.endpoint(value)
            case plan.Table.IPCACHE_HOST | plan.Table.IPCACHE_CIDR:
                return self.identity(value)
            case plan.Table.FRONTEND:
                return self.service(value)
            case plan.Table.HELD:
                return "held"

    def entry(self, table: plan.Table, value: Any) -> str:
        """Return a whole value of `table` in words: two texts where its slots differ, for a change is under way."""
        if table in {plan.Table.POLICY, plan.Table.SERVICE_CLASS}:
            return self.value(table, value)
        pair = value.slots if table is plan.Table.ENDPOINTS else value
        said = [self.value(table, slot) if slot else "empty" for slot in pair]
        return said[0] if said[0] == said[1] else f"slot 0: {said[0]}; slot 1: {said[1]}"

    def judgement(self, judged: judge.Judgement) -> str:
        """Return why a flow passes or does not; of what is in audit, what it would deny (rule A51)."""
        if judged.verdict is verdict.Verdict.AUDIT:
            return f"in audit, would be denied: {self._reason(judged)}"
        return self._reason(judged)

    def _reason(self, judged: judge.Judgement) -> str:  # noqa: PLR0911 - one a reason
        match judged.reason:
            case verdict.Reason.RULE_ALLOWED if judged.rule:
                return f"by {self.rule(judged.rule)}"
            case verdict.Reason.RULE_ALLOWED:
                return "some backends are allowed; the packet layer judges the one that is chosen"
            case verdict.Reason.POLICY_DENY | verdict.Reason.SERVICE_DENIED if judged.rule:
                return f"by {self.rule(judged.rule)}"
            case verdict.Reason.POLICY_DENIED if judged.unread:
                return "it may be asked for some names alone, and nobody reads what this pod asks for"
            case verdict.Reason.POLICY_DENIED | verdict.Reason.SERVICE_DENIED:
                return f"{self.policy_set(judged.set)} isolates for {judged.direction.name.lower()}, and no rule allows"
            case verdict.Reason.NOT_ISOLATED:
                return "no policy isolates it"
            case verdict.Reason.ENDPOINT_HELD:
                return f"held for {judged.direction.name.lower()}: not programmed yet"
            case other:
                return other.name.lower()

    def _row(self, row: desired_.Row) -> str:
        if row.action is desired_.Action.ALLOW:
            return (f"allow by {self.rule(row.rule)}" if row.rule else "allow") + self._asks(row.asks)
        return f"deny by {self.rule(row.rule)}" if row.rule else "deny"

    def _asks(self, number: int) -> str:
        return f", DNS queries alone, as {self.filter(number)} says" if number else ""

    def _endpoint_slot(self, slot: plan.EndpointSlot) -> str:
        said = []
        for field in dataclasses.fields(slot):
            value, name = getattr(slot, field.name), field.name.replace("_", " ")
            if field.name.endswith("_set"):
                said.append(f"{name.removesuffix(' set')}: {self.policy_set(value)}")
            elif field.name.endswith("_audit") and value != desired_.NOT_ISOLATED:
                said.append(f"{name.removesuffix(' audit')} in audit {self.policy_set(value)}")
            elif value:
                said.append(name)
        return ", ".join(said)


def ports(protocol: int, port: int, port_bits: int) -> str:
    """Return `443/TCP`, `8080-8087/TCP`, `TCP` for all of its ports, or `any protocol`."""
    if protocol == desired_.ANY_PROTOCOL:
        return "any protocol"
    name = _PROTOCOLS.get(protocol, str(protocol))
    last = port | (1 << (walk.PORT_BITS - port_bits)) - 1
    if not port_bits or not last:
        return name
    return f"{port}/{name}" if port == last else f"{port}-{last}/{name}"


def facts(known: identity.Facts) -> str:
    """Return what an identity stands for: namespace and the labels that policies mention, or prefixes."""
    if known.node is not None:
        return known.node.value
    if known.namespace is None:
        return f"in {', '.join(map(str, known.blocks))}" if known.blocks else "world"
    labels = ", ".join(f"{key}={value}" for key, value in sorted(known.labels.items()))
    return f"namespace {known.namespace}{': ' if labels else ''}{labels}"
