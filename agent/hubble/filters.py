"""Hubble's flow filters as functions from a record to yes or no; no I/O.

Inside one filter every field that is given has to admit the record, each by one of its values; a record is wanted if
some filter of the allow list admits it (or there is none) and none of the deny list does. A field that this agent does
not know is refused by its number, and so is one it could not answer for: ignoring it would show more than was asked
for. Of regular expressions only those are answered that are held against DNS queries.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from google.protobuf import message as message_
from google.protobuf import unknown_fields

from agent import errors
from agent.api.flow import flow_pb2 as pb
from agent.hubble import expressions, globs, records, selectors
from agent.model import net, resources, verdict

Predicate: TypeAlias = Callable[[records.Record], bool]
End: TypeAlias = Callable[[records.Record], verdict.FlowEnd]

FILTERS_MOST = 64
"""In one list."""
VALUES_MOST = 1024
"""In one filter, all fields together."""
EXPRESSIONS_MOST = 64
"""Regular expressions of one request."""
NAMES_REMEMBERED = 1024
"""The last names that were asked for, and whether they match."""
DEFAULT_NAMESPACE = "default"
"""Of a pod or Service that is named without one."""
UNANSWERED = {
    9: "http_status_code",
    21: "http_method",
    22: "http_path",
    23: "tcp_flags",
    26: "source_workload",
    27: "destination_workload",
    28: "trace_id",
    31: "http_url",
    32: "http_header",
    34: "source_ip_xlated",
    35: "interface",
    36: "node_labels",
    39: "ip_trace_id",
    40: "encrypted",
    999: "experimental (CEL)",
}
"""Fields whose meaning is known, and which no verdict of this agent has an answer to."""
PROTOCOLS = {
    "icmp": {net.Protocol.ICMP.value, net.Protocol.ICMPV6.value},
    "icmpv4": {net.Protocol.ICMP.value},
    "icmpv6": {net.Protocol.ICMPV6.value},
    "tcp": {net.Protocol.TCP.value},
    "udp": {net.Protocol.UDP.value, net.Protocol.UDPLITE.value},
    "sctp": {net.Protocol.SCTP.value},
}


def wanted(allow: Sequence[pb.FlowFilter], deny: Sequence[pb.FlowFilter]) -> Predicate:
    """Return what admits a record that `allow` admits and `deny` does not; raises InvalidInput."""
    for name, filters in (("whitelist", allow), ("blacklist", deny)):
        if len(filters) > FILTERS_MOST:
            raise errors.InvalidInput(field=name, value=len(filters), remedy=f"give at most {FILTERS_MOST} filters")
    if (several := sum(len(one.dns_query) for one in (*allow, *deny))) > EXPRESSIONS_MOST:
        remedy = f"give at most {EXPRESSIONS_MOST} regular expressions"
        raise errors.InvalidInput(field="dns_query", value=several, remedy=remedy)
    allowed, denied = tuple(map(predicate, allow)), tuple(map(predicate, deny))
    if not allowed and not denied:
        return lambda _record: True
    return lambda record: (
        (not allowed or any(one(record) for one in allowed)) and not any(one(record) for one in denied)
    )


def predicate(wanted: pb.FlowFilter) -> Predicate:
    """Return what one filter admits; an empty one admits every record. Raises InvalidInput."""
    refuse_unknown(wanted)
    given = wanted.ListFields()
    if (values := sum(len(several) for _, several in given)) > VALUES_MOST:
        raise errors.InvalidInput(field="filter", value=values, remedy=f"give at most {VALUES_MOST} values")
    parts = tuple(_part(field.name, several) for field, several in given)
    if len(parts) == 1:
        return parts[0]
    return lambda record: all(part(record) for part in parts)


def refuse_unknown(message: message_.Message) -> None:
    """Raise InvalidInput where `message`, or a message in it, has a field that is not in its .proto file."""
    unknown = unknown_fields.UnknownFieldSet(message)
    for number in (unknown[place].field_number for place in range(len(unknown))):
        name = UNANSWERED.get(number, "unknown") if isinstance(message, pb.FlowFilter) else "unknown"
        place = f"{message.DESCRIPTOR.full_name} field {number}"
        raise errors.InvalidInput(field=place, value=name, remedy="this agent cannot answer it; leave it out")
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        for one in value if descriptor.is_repeated else (value,):
            refuse_unknown(one)


def _source(record: records.Record) -> verdict.FlowEnd:
    return record.event.source


def _destination(record: records.Record) -> verdict.FlowEnd:
    return record.event.destination


def _part(name: str, values: Sequence[object]) -> Predicate:
    """Return what one field admits."""
    if name in RECORD_FIELDS:
        return RECORD_FIELDS[name](name, values)
    side, _, what = name.partition("_")
    return END_FIELDS[what](name, values, _source if side == "source" else _destination)


def _among(value: Callable[[records.Record], object]) -> Callable[[str, Iterable[object]], Predicate]:
    """Return how a field is read whose values are compared as they are."""

    def read(_field: str, values: Iterable[object]) -> Predicate:
        admitted = frozenset(values)
        return lambda record: value(record) in admitted

    return read


def _queries(field: str, values: Iterable[object]) -> Predicate:
    """Find queries in which any of these regular expressions has a match (RE2)."""
    read: list[Callable[[str], bool]] = []
    for value in map(str, values):
        try:
            read.append(expressions.compiled(value))
        except expressions.ExpressionError as error:
            shown = value[: expressions.LENGTH_MOST]
            raise errors.InvalidInput(field=field, value=shown, remedy=f"{error}; write RE2's syntax") from error

    @functools.lru_cache(NAMES_REMEMBERED)
    def matches(name: str) -> bool:
        return any(found(name) for found in read)

    return lambda record: record.event.query is not None and matches(record.event.query.name)


def _event_types(_field: str, values: Sequence[object]) -> Predicate:
    types = {one.type for one in values if isinstance(one, pb.EventTypeFilter) and not one.match_sub_type}
    pairs = {(one.type, one.sub_type) for one in values if isinstance(one, pb.EventTypeFilter) and one.match_sub_type}
    return lambda record: record.event_type in types or (record.event_type, record.event_sub_type) in pairs


def _protocols(field: str, values: Iterable[object]) -> Predicate:
    numbers: set[int] = set()
    for value in values:
        name = str(value).lower()
        if name not in PROTOCOLS:
            raise errors.InvalidInput(field=field, value=value, remedy=f"write one of {', '.join(PROTOCOLS)}")
        numbers |= PROTOCOLS[name]
    return lambda record: record.event.protocol in numbers


def _nodes(_field: str, values: Iterable[object]) -> Predicate:
    patterns = [(cluster, node or "*") for cluster, _, node in (_clustered(str(value)) for value in values)]
    return lambda record: any(
        globs.matches(cluster, records.CLUSTER) and globs.matches(node, record.event.node) for cluster, node in patterns
    )


def _clustered(text: str) -> tuple[str, str, str]:
    return text.partition("/") if "/" in text else ("*", "/", text)


def _addresses(field: str, values: Iterable[object], end: End) -> Predicate:
    hosts: set[net.Address] = set()
    networks: list[net.Network] = []
    for value in values:
        try:
            network = ipaddress.ip_network(str(value), strict=False)
        except ValueError as error:
            raise errors.InvalidInput(field=field, value=value, remedy="write an address or a prefix") from error
        if network.prefixlen == network.max_prefixlen:
            hosts.add(net.normalize(network.network_address))
        else:
            networks.append(network)
    return lambda record: end(record).address in hosts or any(end(record).address in one for one in networks)


def _pods(field: str, values: Iterable[object], end: End) -> Predicate:
    return _named(field, values, lambda record: (end(record).namespace, end(record).pod) if end(record).pod else None)


def _services(field: str, values: Iterable[object], end: End) -> Predicate:
    def of(record: records.Record) -> tuple[str, str] | None:
        asked = records.dialled(record.event) if end is _destination else end(record)
        found: resources.ObjectRef | None = records.service(asked)
        return (found.namespace, found.name) if found is not None else None

    return _named(field, values, of)


def _named(field: str, values: Iterable[object], of: Callable[[records.Record], tuple[str, str] | None]) -> Predicate:
    """Compare NAMESPACE/PREFIX; either may be empty, and then admits any."""
    patterns: list[tuple[str, str]] = []
    for value in map(str, values):
        if not value:
            raise errors.InvalidInput(field=field, value=value, remedy="write NAMESPACE/PREFIX, NAMESPACE/ or /PREFIX")
        namespace, slash, prefix = value.partition("/")
        patterns.append((namespace, prefix) if slash else (DEFAULT_NAMESPACE, value))

    def admits(record: records.Record) -> bool:
        found = of(record)
        if found is None:
            return False
        namespace, name = found
        return any((not one or one == namespace) and name.startswith(prefix) for one, prefix in patterns)

    return admits


def _selectors(field: str, values: Iterable[object], end: End) -> Predicate:
    parsed = [selectors.parse(str(value), field=field) for value in values]

    def admits(record: records.Record) -> bool:
        visible = records.selectable(end(record), record.event.node)
        return any(selector.selects(visible) for selector in parsed)

    return admits


def _ports(field: str, values: Iterable[object], end: End) -> Predicate:
    numbers: set[int] = set()
    for value in map(str, values):
        if not (value.isascii() and value.isdigit() and len(value) <= len(str(net.PORT_MAX))):
            raise errors.InvalidInput(field=field, value=value, remedy=f"write a port number, 0 to {net.PORT_MAX}")
        numbers.add(int(value))
    return lambda record: record.event.protocol in WITH_PORTS and end(record).port in numbers


def _identities(_field: str, values: Iterable[object], end: End) -> Predicate:
    numbers = frozenset(values)
    return lambda record: end(record).identity in numbers


def _fqdns(_field: str, values: Iterable[object], end: End) -> Predicate:
    patterns = [str(value).lower().strip().removesuffix(".") for value in values]
    return lambda record: any(
        globs.matches(pattern, name.lower()) for name in records.names(end(record)) for pattern in patterns
    )


def _clusters(_field: str, values: Iterable[object], end: End) -> Predicate:
    patterns = [str(value) for value in values]

    def admits(record: records.Record) -> bool:
        cluster = records.cluster(end(record))
        return bool(cluster) and any(globs.matches(pattern, cluster) for pattern in patterns)

    return admits


WITH_PORTS = frozenset(
    {net.Protocol.TCP.value, net.Protocol.UDP.value, net.Protocol.UDPLITE.value, net.Protocol.SCTP.value}
)
RECORD_FIELDS: dict[str, Callable[[str, Sequence[object]], Predicate]] = {
    "verdict": _among(lambda record: record.event.verdict.value),
    "drop_reason_desc": _among(lambda record: record.drop_reason),
    "traffic_direction": _among(lambda record: record.event.direction.value),
    "ip_version": _among(lambda record: record.ip_version),
    "reply": _among(lambda _record: False),
    "uuid": _among(lambda record: record.uuid),
    "event_type": _event_types,
    "protocol": _protocols,
    "dns_query": _queries,
    "node_name": _nodes,
}
END_FIELDS: dict[str, Callable[[str, Sequence[object], End], Predicate]] = {
    "ip": _addresses,
    "pod": _pods,
    "fqdn": _fqdns,
    "label": _selectors,
    "port": _ports,
    "service": _services,
    "identity": _identities,
    "cluster_name": _clusters,
}
