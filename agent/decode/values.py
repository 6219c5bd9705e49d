"""Readers of the small values many kinds share: addresses, prefixes, protocols, ports, labels.

Tolerant where old API objects are sloppy (rule A10: host bits, leading zeros), strict elsewhere. What
Python's parsers accept beyond the API (integers, netmasks, IPv6 zones, other scripts' digits) is refused
first: an address that two parsers read differently is a way around a policy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

from agent import errors
from agent.decode import fields
from agent.model import fqdn, labels, net

PORT_NAME_MAX = 15
_PREFIX = re.compile(r"([0-9A-Fa-f:.]+)/([0-9]{1,3})")
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")
_PORT_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_PROTOCOLS = {"TCP": net.Protocol.TCP, "UDP": net.Protocol.UDP, "SCTP": net.Protocol.SCTP}
_MAPPED_BITS = 96


def address(field: fields.Field) -> net.Address:
    """Read an IP address; IPv4-mapped IPv6 becomes IPv4 (rule A24)."""
    text = field.text()
    if "/" not in text and "%" not in text:
        try:
            return net.normalize(ipaddress.ip_address(_without_leading_zeros(text)))
        except ValueError:
            pass
    raise field.malformed("an IP address")


def network(field: fields.Field) -> net.Network:
    """Read a prefix; host bits are masked, leading zeros ignored, IPv4-mapped IPv6 made IPv4 (rules A10, A24)."""
    match = _PREFIX.fullmatch(field.text())
    if match is not None:
        try:
            parsed = ipaddress.ip_network((_without_leading_zeros(match[1]), int(match[2])), strict=False)
        except ValueError:
            pass
        else:
            return _unmapped(parsed)
    raise field.malformed("a prefix such as 10.0.0.0/8 or 2001:db8::/32")


def _without_leading_zeros(text: str) -> str:
    """Read 010.001.0.1 as ten, one, zero, one: decimal, as the API server read it when it was stored."""
    return _LEADING_ZEROS.sub("", text) if ":" not in text else text


def _unmapped(network_: net.Network) -> net.Network:
    """Return the IPv4 prefix that an IPv4-mapped IPv6 one stands for, any other unchanged."""
    if isinstance(network_, ipaddress.IPv6Network) and network_.prefixlen >= _MAPPED_BITS:
        mapped = network_.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((int(mapped), network_.prefixlen - _MAPPED_BITS))
    return network_


def protocol(field: fields.Field) -> net.Protocol:
    """Read TCP, UDP or SCTP; TCP when not given (rule A8)."""
    if not field.given:
        return net.Protocol.TCP
    found = _PROTOCOLS.get(field.value) if isinstance(field.value, str) else None
    if found is None:
        raise field.malformed("TCP, UDP or SCTP")
    return found


def name(field: fields.Field, parse: Callable[[str], fqdn.NamePattern]) -> fqdn.NamePattern:
    """Read a domain name, or a pattern of some, by its dialect's parser."""
    text = field.text()
    try:
        return parse(text)
    except errors.InvalidInput as error:
        raise field.malformed(f"a name here: {error.remedy}") from error


def port_number(field: fields.Field) -> int:
    """Read a port number, 1 to 65535 (rule A8)."""
    return field.integer(1, net.PORT_MAX)


def port_name(field: fields.Field) -> str:
    """Read the name of a container port: at most 15 of a-z, 0-9 and single dashes, one letter (rule A8)."""
    value = field.value
    if (
        not isinstance(value, str)
        or len(value) > PORT_NAME_MAX
        or _PORT_NAME.fullmatch(value) is None
        or not any("a" <= character <= "z" for character in value)
    ):
        raise field.malformed(
            f"a port: write a number without quotes, or a name of at most {PORT_NAME_MAX} of a-z, 0-9, -"
        )
    return value


def port(field: fields.Field) -> int | str:
    """Read a port number or a port name."""
    return port_name(field) if isinstance(field.value, str) else port_number(field)


def label_pairs(field: fields.Field) -> dict[str, str]:
    """Read a mapping of labels; the API reads a null value as "", anything but text is malformed."""
    pairs: dict[str, str] = {}
    for key, at in field.pairs():
        pairs[key] = label_value(at) if at.given else ""
    return pairs


def requirement(field: fields.Field) -> labels.Requirement:
    """Read one item of matchExpressions (rule A11)."""
    field.only("key", "operator", "values")
    key = field.member("key").text()
    at = field.member("operator")
    found = {operator.value: operator for operator in labels.Operator}.get(at.text())
    if found is None:
        raise at.malformed("In, NotIn, Exists or DoesNotExist")
    values_at = field.member("values")
    values = frozenset(label_value(item) for item in values_at.items())
    wants_values = found in (labels.Operator.IN, labels.Operator.NOT_IN)
    if wants_values and not values:
        raise fields.Malformed(values_at.path, f"{found.value} needs at least one value")
    if values and not wants_values:
        raise fields.Malformed(values_at.path, f"{found.value} takes no values")
    return labels.Requirement(key=key, operator=found, values=values)


def label_value(field: fields.Field) -> str:
    """Read a label value, which may be empty but must be text."""
    if not isinstance(field.value, str):
        raise field.malformed("text (put label values in quotes)")
    return field.value


def selector(field: fields.Field) -> labels.LabelSelector:
    """Read a label selector; missing, null and empty select everything (rule A1, A11)."""
    field.only("matchLabels", "matchExpressions")
    pairs = label_pairs(field.member("matchLabels"))
    expressions = [requirement(item) for item in field.member("matchExpressions").items()]
    return labels.LabelSelector((*(equals(key, value) for key, value in sorted(pairs.items())), *expressions))


def equals(key: str, value: str) -> labels.Requirement:
    """Build what one pair of matchLabels asks for; "" needs the key present and empty (rule A11)."""
    return labels.Requirement(key=key, operator=labels.Operator.IN, values=frozenset({value}))
