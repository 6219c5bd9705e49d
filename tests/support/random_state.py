"""Random desired states: no cluster behind them, so that they hold what no compiler writes yet.

Rows that deny, port prefixes, rows of WORLD and of ANY, prefixes inside prefixes with and without /0, held ranges with
and without endpoints in them.
"""

from __future__ import annotations

import ipaddress
import random

from agent import desired
from agent.model import identity, net

PROTOCOLS = (6, 17, 132, 1, 58, 47)
PORTS = (0, 1, 52, 53, 54, 80, 443, 8080, 32768, 65535)
SETS = (601, 602, 603)
LOCAL = tuple(map(ipaddress.ip_address, ("10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::2", "fd00::3", "fd00::4")))
REMOTE = tuple(
    map(
        ipaddress.ip_address,
        (
            *("10.0.0.77", "10.1.0.2", "192.0.2.1", "192.0.2.2", "192.0.2.129", "192.0.2.255", "192.0.3.1", "8.8.8.8"),
            *("fd00::99", "fd01::1", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "2001:db9::1", "8000::1"),
        ),
    )
)
PREFIXES = tuple(
    map(
        ipaddress.ip_network,
        (
            *("0.0.0.0/0", "0.0.0.0/1", "192.0.0.0/16", "192.0.2.0/24", "192.0.2.0/25", "192.0.2.128/25"),
            *("192.0.2.0/30", "192.0.2.1/32", "10.0.0.0/8", "10.0.0.0/30", "10.0.0.2/32"),
            *("::/0", "::/1", "2001:db8::/32", "2001:db8::/64", "2001:db8::1/128", "fd00::/8", "fd00::2/127"),
        ),
    )
)
HELD = tuple(map(ipaddress.ip_network, ("10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "fd00::/64", "::/0")))
IDENTITIES = (identity.ANY, identity.WORLD, *map(identity.NumericIdentity, range(256, 264)))


def state(dice: random.Random) -> desired.DesiredState:
    """Draw a state with up to three pods of two addresses each."""
    pods = list(zip(LOCAL[:3], LOCAL[3:], strict=True))[: dice.randint(1, 3)]
    busy = dice.random() < 0.3
    sets = [
        policy_set(dice, number + offset, direction, rows=dice.randint(20, 90) if busy else dice.randint(0, 12))
        for number in SETS
        for offset, direction in ((0, net.Direction.EGRESS), (100, net.Direction.INGRESS))
    ]
    return desired.DesiredState(
        endpoints={index: endpoint(dice, index, pair) for index, pair in enumerate(pods, start=900)},
        sets={each.id: each for each in sets},
        hosts={address: dice.choice(IDENTITIES[1:]) for address in (*LOCAL, *REMOTE) if dice.random() < 0.4},
        cidrs={network: dice.choice(IDENTITIES[1:]) for network in PREFIXES if dice.random() < 0.4},
        held_ranges=frozenset(network for network in HELD if dice.random() < 0.12),
    )


def policy_set(dice: random.Random, number: int, direction: net.Direction, *, rows: int) -> desired.PolicySet:
    """Draw the rows of a set, `rows` at most."""
    found = {}
    any_protocol = 0.25 if rows < 20 else dice.choice((0.0, 0.02))
    allows = dice.choice((0.5, 0.9, 1.0))
    peers = dice.choice((IDENTITIES, IDENTITIES[1:], IDENTITIES[2:], IDENTITIES[2:]))
    for _ in range(rows):
        protocol = 0 if dice.random() < any_protocol else dice.choice(PROTOCOLS[:3] if rows > 15 else PROTOCOLS[:4])
        bits = dice.choice((0, 1, 13, 16) if rows < 20 else (15, 16, 16)) if protocol in {6, 17, 132} else 0
        port = (dice.choice(PORTS) if rows < 20 else dice.randint(75, 90)) >> (16 - bits) << (16 - bits)
        action = desired.Action.ALLOW if dice.random() < allows else desired.Action.DENY
        key = desired.RowKey(dice.choice(peers), protocol, port, bits)
        found[key] = desired.Row(action=action, rule=dice.randint(0, 3))
    return desired.PolicySet(id=number, digest=number.to_bytes(4, "big"), direction=direction, rows=found, isolating=())


def endpoint(dice: random.Random, index: int, addresses: tuple[net.Address, ...]) -> desired.Endpoint:
    """Draw an endpoint that may be isolated, held, or neither."""
    return desired.Endpoint(
        id=index,
        namespace="x",
        pod=f"p{index}",
        uid=f"u{index}",
        labels={},
        netns_cookie=index - 899,
        veth_ifindex=index,
        ingress_ifindex=index,
        addresses=addresses,
        egress_set=dice.choice((0, *SETS)),
        ingress_set=dice.choice((0, *(number + 100 for number in SETS))),
        held=dice.random() < 0.1,
        egress_audit=dice.choice((0, 0, *SETS)),
        ingress_audit=dice.choice((0, 0, *(number + 100 for number in SETS))),
    )


def port(dice: random.Random, protocol: int) -> int:
    """Draw the server's port of a flow; 0 where the protocol has none."""
    if protocol not in {6, 17, 132}:
        return 0
    return dice.choice(PORTS) if dice.random() < 0.5 else dice.randint(74, 91)


def flow(dice: random.Random, of: desired.DesiredState) -> tuple[net.Address, net.Address, int, int]:
    """Draw client, server, protocol and the server's port, mostly where some row of an endpoint's set speaks."""
    everybody = LOCAL + REMOTE
    subject, peer = dice.choice(everybody), dice.choice(everybody)
    protocol = dice.choice(PROTOCOLS)
    number = port(dice, protocol)
    turned = dice.random() < 0.5
    if dice.random() < 0.8:
        item = dice.choice(list(of.endpoints.values()))
        subject = dice.choice(item.addresses)
        chosen = item.ingress_set if turned else item.egress_set
        rows = of.sets[chosen].rows if chosen else {}
        if rows:
            key = dice.choice(list(rows))
            known = [address for address, identity_ in of.hosts.items() if identity_ == key.identity]
            peer = dice.choice(known or list(everybody))
            protocol = key.protocol or protocol
            last = key.port + (1 << (16 - key.port_bits)) - 1
            number = dice.choice((key.port, last, max(0, key.port - 1), min(last + 1, net.PORT_MAX)))
    if peer.version != subject.version:
        peer = dice.choice([address for address in everybody if address.version == subject.version])
    number = number if protocol in {6, 17, 132} else 0
    return (peer, subject, protocol, number) if turned else (subject, peer, protocol, number)
