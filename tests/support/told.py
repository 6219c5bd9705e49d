"""Pods that were told addresses by DNS, and a policy by name: for tests of what is said of them."""

from __future__ import annotations

import ipaddress

from agent import reconciler
from agent.fqdn import patterns
from agent.model import fqdn, net, resources
from agent.rpc import names, naming
from tests.support import served

SECOND = 1_000_000_000
NOW = 1_000 * SECOND
NAME, STARRED, INFIX = "api.example.com", "*.example.com", "a*b.example.net"
FIRST, SECOND_ADDRESS, UNMEANT = (ipaddress.ip_address(f"203.0.113.{number}") for number in (71, 72, 73))
BY_NAME = resources.NetworkPolicy(
    kind="CiliumNetworkPolicy",
    namespace="x",
    name="by-name",
    subject=served.SELECT_A,
    directions=frozenset({net.Direction.EGRESS}),
    egress=(
        resources.PolicyRule(
            peers=(resources.NamesPeer(patterns=tuple(map(patterns.parse_cilium_pattern, (STARRED, INFIX)))),),
            ports=(resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(443, 443)),),
        ),
    ),
)


def enforcement(*more: resources.Resource) -> reconciler.Enforcement:
    """Return the cluster of `served`, in which x/a may reach STARRED and INFIX on 443."""
    return served.enforcement(BY_NAME, *more)


def told(now: reconciler.Enforcement, pod: str = "x/a") -> names.Told:
    """Return that a pod was told three addresses: one that counts and is used, one that has expired, one unmeant."""
    endpoint = naming.endpoint(now, pod).id
    (number,) = now.state.names.of(NAME)
    return names.Told(
        remembered=(
            _remembered(endpoint, NAME, FIRST, NOW + 60 * SECOND),
            _remembered(endpoint, "www.example.com", FIRST, NOW + 30 * SECOND),
            _remembered(endpoint, NAME, SECOND_ADDRESS, NOW - 5 * SECOND),
            _remembered(endpoint, "elsewhere.example.org", UNMEANT, NOW + 60 * SECOND),
        ),
        known=fqdn.Known(
            addresses={
                (endpoint, FIRST): (fqdn.Learned(number, NOW + 60 * SECOND),),
                (endpoint, SECOND_ADDRESS): (fqdn.Learned(number, NOW - 5 * SECOND),),
            },
            used=frozenset({(endpoint, FIRST)}),
        ),
        now_ns=NOW,
        learns=True,
    )


def asked(now: reconciler.Enforcement) -> names.Names:
    """Return that as the agent is asked for it."""
    known = told(now)
    return names.Names(remembered=lambda: known.remembered, known=lambda: known.known, boot_ns=lambda: NOW)


def _remembered(endpoint: int, name: str, address: net.Address, expires_ns: int) -> fqdn.Remembered:
    return fqdn.Remembered(
        endpoint=endpoint, name=name, address=address, answered_ns=expires_ns - 60 * SECOND, expires_ns=expires_ns
    )
