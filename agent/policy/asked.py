"""Flows that somebody asks about by name: who is meant, and what stands behind a Service that is dialled.

Ends are `NAMESPACE/POD`, `host/NAME`, `node/NAME`, an address, or, where one dials, `service/NAMESPACE/NAME`. What is
judged is what a Service's address is translated to (rule A42), so a Service is asked about once an endpoint. What does
not exist is an InvalidInput that lists what does; nothing is guessed. Pure.
"""

from __future__ import annotations

import contextlib
import dataclasses
import ipaddress
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from agent import errors, snapshot
from agent.fqdn import patterns
from agent.model import net, resources
from agent.policy import dialled, evaluator, reachability

End: TypeAlias = reachability.End | resources.Node

SERVICE = "service/"
WITHOUT_PORTS = frozenset({net.Protocol.ICMP, net.Protocol.ICMPV6})
NAMES_LISTED = 20
"""So many existing names are enough in an error's text."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A flow, and what was dialled where that is not its destination."""

    flow: evaluator.Flow
    dialled: tuple[net.Address, int] | None = None
    """Address and port of a Service."""
    service: resources.ObjectRef | None = None


def port(text: str) -> reachability.Port:
    """Read `443/TCP`, `443` (TCP), or `ICMP`, which has no ports. Raises InvalidInput."""
    number, slash, name = text.partition("/")
    remedy = "write a number from 1 to 65535 and TCP, UDP or SCTP, as in 443/TCP; or ICMP"
    for protocol in WITHOUT_PORTS:
        if text.upper() == protocol.name:
            return 0, protocol
    try:
        protocol = net.Protocol[name.upper() if slash else "TCP"]
    except KeyError:
        raise errors.InvalidInput(field="--port", value=text, remedy=remedy) from None
    valid = number.isascii() and number.isdigit() and len(number) <= len(str(net.PORT_MAX))
    if not valid or not 1 <= int(number) <= net.PORT_MAX or protocol in WITHOUT_PORTS:
        raise errors.InvalidInput(field="--port", value=text, remedy=remedy)
    return int(number), protocol


def name(text: str, port_: reachability.Port) -> str:
    """Read the name that a DNS query through `port_` asks for. Raises InvalidInput."""
    found = patterns.canonical(text)
    if not found:
        remedy = "write a host name as it is in DNS: letters, digits, - and _, labels as xn--..."
        raise errors.InvalidInput(field="--asks", value=text, remedy=remedy)
    if port_[1] is not net.Protocol.UDP:
        remedy = "write --port 53/UDP: what is asked in another way is never put to a filter of names"
        raise errors.InvalidInput(field="--asks", value=f"{text} by {shown(port_)}", remedy=remedy)
    return found


def shown(port: reachability.Port) -> str:
    """Write a port as `port` reads it."""
    return f"{port[0]}/{port[1].name}" if port[0] else port[1].name


def flows(placed: snapshot.Snapshot, source: str, destination: str, port: reachability.Port) -> Iterator[Asked]:
    """Yield the flows between two ends: one a family, or one an endpoint where a Service is dialled.

    Raises InvalidInput where somebody does not exist, or the two have no family in common.
    """
    opener = _end(placed, "--from", source)
    found = False
    for address, service in _services(placed, destination, port):
        for target, number in service.endpoints:
            for flow in reachability.flows(opener, _at(target), (number, port[1])):
                found = True
                flow_ = _named(placed, flow, opener, _at(target), via_service=True)
                yield Asked(flow=flow_, dialled=(address, port[0]), service=service.service)
    if not found and not _is_service(placed, destination, port):
        receiver = _end(placed, "--to", destination)
        for flow in reachability.flows(opener, receiver, port):
            found = True
            yield Asked(flow=_named(placed, flow, opener, receiver, via_service=False))
    if not found:
        raise errors.InvalidInput(field="--to", value=destination, remedy=f"name an end of the same family as {source}")


def alternatives(one: Asked, every: Iterable[Asked]) -> list[evaluator.Flow]:
    """Return the flows of `every` that what is dialled in `one` may become: a Service's address leads to any."""
    return [other.flow for other in every if other.dialled == one.dialled] if one.dialled else [one.flow]


def _named(
    placed: snapshot.Snapshot, flow: evaluator.Flow, opener: End, receiver: End, *, via_service: bool
) -> evaluator.Flow:
    return dataclasses.replace(
        flow,
        source=_known(placed, opener, flow.source_address),
        destination=_known(placed, receiver, flow.destination_address),
        via_service=via_service,
    )


def _services(
    placed: snapshot.Snapshot, text: str, port: reachability.Port
) -> Iterator[tuple[net.Address, dialled.Dialled]]:
    """Yield each address that is dialled and the Service behind it. Raises InvalidInput where nobody would answer."""
    for address in _dialled(placed, text):
        found = dialled.behind(placed, address, port[0], port[1])
        if found is None:
            if text.startswith(SERVICE):
                remedy = f"it does not listen on {shown(port)} but on {_listed(_ports(placed, text))}"
                raise errors.InvalidInput(field="--to", value=text, remedy=remedy)
            continue
        if not found.endpoints:
            remedy = f"{found.service} has no endpoint there: whatever policy says, the connection is refused"
            raise errors.InvalidInput(field="--to", value=f"{text} port {shown(port)}", remedy=remedy)
        yield address, found


def _ports(placed: snapshot.Snapshot, text: str) -> list[str]:
    namespace, _, name = text.removeprefix(SERVICE).partition("/")
    return [shown((one.port, one.protocol)) for one in placed.services[namespace, name].ports]


def _is_service(placed: snapshot.Snapshot, text: str, port: reachability.Port) -> bool:
    return any(True for _ in _services(placed, text, port))


def _dialled(placed: snapshot.Snapshot, text: str) -> tuple[net.Address, ...]:
    """Return the addresses that `text` means where it may be a Service's."""
    if not text.startswith(SERVICE):
        with contextlib.suppress(ValueError):
            return (net.normalize(ipaddress.ip_address(text)),)
        return ()
    namespace, _, name = text.removeprefix(SERVICE).partition("/")
    service = placed.services.get((namespace, name))
    if service is None:
        known = [f"{SERVICE}{there}/{each}" for there, each in sorted(placed.services)]
        raise errors.InvalidInput(field="--to", value=text, remedy=f"name one of these: {_listed(known)}")
    if not service.cluster_addresses:
        raise errors.InvalidInput(field="--to", value=text, remedy="it has no cluster address: name one of its pods")
    return tuple(service.cluster_addresses)


def _at(address: net.Address) -> resources.Host:
    """Return a machine without a name: a bare address, until `_known` says whose it is."""
    return resources.Host(name="", addresses=(address,))


def _end(placed: snapshot.Snapshot, option: str, text: str) -> End:
    """Return who is meant; raises InvalidInput where nobody is."""
    with contextlib.suppress(ValueError):
        return _at(net.normalize(ipaddress.ip_address(text)))
    kind, _, name = text.partition("/")
    if kind == "node" and name in placed.nodes:
        return placed.nodes[name]
    ends = reachability.ends(placed)
    if text not in ends:
        remedy = f"name an address, host/NAME, node/NAME or one of these pods: {_listed(list(ends))}"
        raise errors.InvalidInput(field=option, value=text, remedy=remedy)
    return ends[text]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_LISTED} more" if len(names) > NAMES_LISTED else ""
    return ", ".join(names[:NAMES_LISTED]) + more


def _known(placed: snapshot.Snapshot, end: End, address: net.Address) -> evaluator.Party:
    """Return the end itself, or whoever has the address that was given instead of a name."""
    return end if end.name else evaluator.party_at(placed, address)
