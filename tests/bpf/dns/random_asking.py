"""Random maps around filters of names, a generation's content beside another's, and the queries to put to them.

Not what a compiler writes: rows that deny with a filter, rows of other protocols with one, filters nobody refers to,
names of two generations. The programs have to take whatever they find as `judge` does.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import random
from collections.abc import Sequence

from agent import desired
from agent.datapath import judge, plan
from agent.datapath.bpf import fqdn_layout, fqdn_plan, rows
from agent.fqdn import classes, dfa, patterns
from agent.model import net
from tests.bpf.dns import filtering, rig, wire
from tests.support import random_dialects

SETS = (901, 902, 903)
FILTERS = (desired.ASKS_ANYTHING, 0x0F000001, 0x0F000002, desired.ASKS_NOTHING)
WHO = (0, 2, 300, 301)
"""Any identity, the world, and two of the cluster."""
SERVERS = tuple(map(ipaddress.ip_address, ("10.1.0.1", "10.1.0.2", "10.2.0.9", "fd00:1::1", "fd00:1::2", "fd00:2::9")))
COVERING = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "10.2.0.0/16", "fd00::/16", "fd00:2::/32")))
PORTS = (wire.PORT, 54, 5353)
PROTOCOLS = (net.Protocol.UDP.value, net.Protocol.TCP.value)
SERVICES = (0, 0, 41, 42)
NAMES = (*random_dialects.NAMES, "other.org", "a.b.c.example", "example", "bad name.example", "B.EXAMPLE")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """What the maps hold."""

    tables: plan.Tables
    names: tuple[classes.Classes, classes.Classes]
    """By slot."""

    def classes_of(self, name: str) -> tuple[int, ...]:
        """Return the classes that a name has in the generation that counts."""
        return self.names[self.tables.generation & 1].of(name)


def draw(dice: random.Random) -> Drawn:
    """Draw everything."""
    names = (_names(dice), _names(dice))
    known = sorted({number for each in names for number in each.contents})
    policy = {_key(dice): _row(dice) for _ in range(24)}
    for number in FILTERS[1:3]:
        for class_ in dice.sample(known, dice.randint(0, min(3, len(known)))):
            policy[plan.filter_key(number, class_)] = desired.Row(desired.Action.ALLOW, 0)
    dialled = {desired.Frontend(dice.choice(SERVERS), dice.choice(PORTS), dice.choice(PROTOCOLS)) for _ in range(4)}
    tables = plan.Tables(
        policy=policy,
        service_class={(dice.choice(SETS), dice.choice(SERVICES[2:])): _class(dice) for _ in range(4)},
        endpoints={rig.ENDPOINT: plan.EndpointValue(slots=(_slot(dice), _slot(dice)), ingress_ifindex=0)},
        ep_by_ifindex={rig.TEST_IFINDEX: (_whose(dice), _whose(dice))},
        ipcache_host={server: _pair(dice, (0, *WHO[1:])) for server in SERVERS if dice.random() < 0.7},
        ipcache_cidr={network: _pair(dice, WHO[1:]) for network in COVERING if dice.random() < 0.7},
        frontend={frontend: _pair(dice, SERVICES) for frontend in dialled},
        generation=dice.randint(0, 5),
    )
    return Drawn(tables=tables, names=names)


def flow(dice: random.Random) -> judge.Flow:
    """Draw who is asked, and how."""
    server = dice.choice(SERVERS)
    client = rig.POD4 if server.version == net.Family.IPV4.value else rig.POD6
    protocol = PROTOCOLS[dice.random() < 0.15]
    return judge.Flow(client, server, protocol, dice.choice(PORTS))


def frame(asked: judge.Flow, name: str) -> bytes:
    """Return the frame of a query by datagram, or by a segment of its own."""
    message = wire.query(name)
    if asked.protocol == net.Protocol.UDP.value:
        return filtering.frame(message, asked.server, port=asked.port)
    return wire.segment(asked.client, asked.server, (rig.CLIENT_PORT, asked.port), wire.prefixed(message))


def write(learner: rig.Learner, drawn: Drawn) -> None:
    """Have the maps hold this and nothing else."""
    filtering.clear(learner)
    learner.fqdn.store_filters(used=True)
    for table in plan.Table:
        if content := drawn.tables.content(table):
            learner.node.upsert(table, content)
    learner.node.store_generation(drawn.tables.generation)
    names = learner.fqdn.descriptor("fqdn_names")
    rows.delete_batch(names, [key for key, _ in rows.dump(names)])
    merged = fqdn_plan.staged(fqdn_plan.at_rest(drawn.names[0].rows), drawn.names[1].rows, idle=1)
    learner.fqdn.write_names(
        {fqdn_layout.encode_key(key): fqdn_layout.encode_pair(pair) for key, pair in merged.items()}
    )
    begun = fqdn_plan.NO_AUTOMATON
    for slot, each in enumerate(drawn.names):
        start = fqdn_plan.start_of(each.automaton, live=begun)
        states = fqdn_plan.shifted(each.automaton, start) if start else ()
        written = [fqdn_layout.DfaState(following=state.next, class_=state.accept) for state in states]
        if written:
            learner.fqdn.write_states(start - dfa.START, written)
        learner.fqdn.store_automaton(slot, start)
        begun = start


def _names(dice: random.Random) -> classes.Classes:
    texts = dice.sample(random_dialects.CILIUM, dice.randint(0, 4))
    return classes.build([patterns.parse_cilium_pattern(text)] for text in texts)


def _key(dice: random.Random) -> plan.PolicyKey:
    protocol = dice.choice((0, *PROTOCOLS, PROTOCOLS[0]))
    bits = dice.choice((0, 12, 16, 16)) if protocol else 0
    port = dice.choice(PORTS) >> 16 - bits << 16 - bits
    return plan.PolicyKey(dice.choice(SETS), dice.choice(WHO), net.Direction.EGRESS, protocol, port, bits)


def _row(dice: random.Random) -> desired.Row:
    action = desired.Action.DENY if dice.random() < 0.2 else desired.Action.ALLOW
    return desired.Row(action, dice.choice((0, 71, 72)), asks=dice.choice(FILTERS))


def _class(dice: random.Random) -> plan.ClassValue:
    return plan.ClassValue(dice.choice(list(desired.ServiceClass)), dice.choice((0, 73)), dice.choice(FILTERS))


def _slot(dice: random.Random) -> plan.EndpointSlot | None:
    if dice.random() < 0.05:
        return None
    return plan.EndpointSlot(
        ingress_set=0,
        egress_set=dice.choice((0, *SETS)),
        held=dice.random() < 0.05,
        egress_audit=dice.choice((0, *SETS)),
        egress_asks=dice.random() < 0.8,
        egress_audit_asks=dice.random() < 0.8,
    )


def _whose(dice: random.Random) -> int:
    return rig.ENDPOINT if dice.random() < 0.95 else 0


def _pair(dice: random.Random, values: Sequence[int]) -> plan.Slots:
    return dice.choice(values), dice.choice(values)
