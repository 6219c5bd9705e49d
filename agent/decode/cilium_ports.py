"""toPorts of CiliumNetworkPolicy rules, and what else of a rule asks for more than ports (rules E13, E17, E18)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from agent.decode import cilium_peers, fields, values
from agent.fqdn import patterns
from agent.model import fqdn, net, resources

PORTS_MAX = 40
_TRANSPORTS = {"TCP": net.Protocol.TCP, "UDP": net.Protocol.UDP, "SCTP": net.Protocol.SCTP}
_ANY = "ANY"
_BEYOND = ("serverNames", "listener", "terminatingTLS", "originatingTLS")
_NOTHING = "this entry matches nothing"
_EVERYTHING = "this rule denies every port"
_WATCH = "write matchPattern '*', for any"
UNFILTERED_INGRESS = f"names that may be asked for are filtered where pods ask, in egress; {_WATCH}"
UNFILTERED_NAMES = f"names that may be asked for are not filtered towards toFQDNs; {_WATCH}"


def authentication(field: fields.Field) -> None:
    """Refuse mutual authentication: without it the rule would allow strangers (rule E18). Raises Malformed."""
    if field.given and field.member("mode").value != "disabled":
        raise fields.Malformed(field.path, "asks for authentication, which is not supported")


def allowed(
    field: fields.Field, report: fields.Report, *, unfiltered: str = ""
) -> tuple[resources.PortMatch, ...] | None:
    """Read toPorts of a rule that allows: not given, any (rule E4); an entry that asks for more matches nothing.

    `unfiltered` says why names that may be asked for cannot be restricted there; empty: they can.
    """
    items = field.items()
    if not items:
        return None
    found: list[resources.PortMatch] = []
    for item in items:
        try:
            _check(item)
            asks = _asks(item, report, unfiltered)
            entries = _entries(item)
        except fields.Malformed as malformed:
            report.give_up(malformed, _NOTHING)
            continue
        matches: list[resources.PortMatch] = []
        for entry in entries:
            try:
                matches += _port(entry)
            except fields.Malformed as malformed:
                report.give_up(malformed, "this port matches nothing")
        found += matches if asks is None else _datagrams(matches, asks, _dns(item).path, report)
    return tuple(dict.fromkeys(found))


def denied(rule: fields.Field, report: fields.Report) -> tuple[resources.PortMatch, ...] | None:
    """Read toPorts of a rule that denies: what asks for more than ports denies the ports, what is unclear all."""
    found: list[resources.PortMatch] = []
    try:
        items = rule.member("toPorts").items()
        for item in items:
            try:
                _check(item)
                _asks(item, fields.Report(report.ref), "restricts what a rule that denies has no use for")
            except fields.Malformed as malformed:
                report.give_up(malformed, "the whole port is denied")
            for entry in _entries(item):
                found += _port(entry)
    except fields.Malformed as malformed:
        report.give_up(malformed, _EVERYTHING)
        return None
    return tuple(dict.fromkeys(found)) if items else None


def _check(item: fields.Field) -> None:
    """Refuse what only a proxy could honour (rule E17)."""
    item.only("ports", "rules", *_BEYOND)
    for name in _BEYOND:
        if item.member(name).given:
            raise fields.Malformed(item.member(name).path, "is not supported")
    rules = item.member("rules")
    for name, at in rules.pairs():
        if name != "dns" and at.given:
            raise fields.Malformed(rules.member(name).path, "is not supported: it needs a proxy")


def _dns(item: fields.Field) -> fields.Field:
    return item.member("rules").member("dns")


def _asks(item: fields.Field, report: fields.Report, unfiltered: str) -> tuple[fqdn.NamePattern, ...] | None:
    """Read which names may be asked for, by any of a list; None: every one, so that DNS is merely watched (E17).

    Raises Malformed where there is none, or where `unfiltered` says why they cannot be restricted.
    """
    dns = _dns(item)
    if not dns.given:
        return None
    found: list[fqdn.NamePattern] = []
    for each in dns.items():
        try:
            found.append(cilium_peers.name(each))
        except fields.Malformed as malformed:
            report.give_up(malformed, "it stands for no name")
    if any(pattern.text == patterns.STAR for pattern in found):
        return None
    if not found:
        raise fields.Malformed(dns.path, f"has no name that may be asked for; {_WATCH}")
    if unfiltered:
        raise fields.Malformed(dns.path, unfiltered)
    return tuple(dict.fromkeys(found))


def _datagrams(
    matches: Collection[resources.PortMatch], asks: tuple[fqdn.NamePattern, ...], path: str, report: fields.Report
) -> list[resources.PortMatch]:
    """Return what is left where names are restricted: a stream can be cut so that nobody sees what it asks for."""
    kept = [dataclasses.replace(match, asks=asks) for match in matches if match.protocol is net.Protocol.UDP]
    left = {match.protocol for match in matches} - {net.Protocol.UDP}
    if left:
        which = net.Protocol.TCP if net.Protocol.TCP in left else net.Protocol.SCTP
        report.add(path, f"queries by {which.name} are not filtered and are denied; write protocol UDP")
    return kept


def _entries(item: fields.Field) -> tuple[fields.Field, ...]:
    at = item.member("ports")
    entries = at.items()
    if not 0 < len(entries) <= PORTS_MAX:
        raise fields.Malformed(at.path, f"lists {len(entries)} ports; write 1 to {PORTS_MAX}")
    return entries


def _port(field: fields.Field) -> list[resources.PortMatch]:
    """Read one port, for each protocol it means: a number, a range, a name, or "0" for every one (rule E13)."""
    field.only("port", "endPort", "protocol")
    protocols = _protocols(field.member("protocol"))
    at, last = field.member("port"), field.member("endPort")
    text = at.text()
    end = last.integer(0, net.PORT_MAX) if last.given else 0
    port: net.PortRange | str | None
    if text.isascii() and text.isdigit():
        first = int(text) if len(text) <= len(str(net.PORT_MAX)) else net.PORT_MAX + 1
        if first > net.PORT_MAX or (end and (not first or end < first)):
            raise (last if end else at).malformed(f"a port: 0, for all, or 1 to {net.PORT_MAX}; endPort is no less")
        port = net.PortRange(first, end or first) if first else None
    else:
        port = values.port_name(fields.Field(text.lower(), at.path))
    return [resources.PortMatch(protocol=protocol, port=port) for protocol in protocols]


def _protocols(field: fields.Field) -> tuple[net.Protocol, ...]:
    """Read TCP, UDP, SCTP or ANY, which are all three and the default (rule E13); ICMP is none of them."""
    text = field.text().upper() if field.given else _ANY
    if text == _ANY:
        return tuple(_TRANSPORTS.values())
    if text not in _TRANSPORTS:
        raise field.malformed("TCP, UDP, SCTP or ANY")
    return (_TRANSPORTS[text],)
