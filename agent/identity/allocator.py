"""Numbers for facts: a digest, never a counter.

A counter would make the number depend on who came first, so two nodes, or one node before and after a
restart, would disagree, and every row would be rewritten. A digest needs no memory. Numbers below
`identity.FIRST_ALLOCATED` are reserved, those from `identity.FIRST_NAME_CLASS` on are classes of names.
"""

from __future__ import annotations

from collections.abc import Iterable

from agent.model import identity, net, numbers


def allocate(facts: Iterable[identity.Facts]) -> list[identity.NumericIdentity]:
    """Return the number of each of `facts`; equal facts have one number, different facts never share one."""
    contents = [canonical(each) for each in facts]
    assigned = numbers.assign(contents, first=identity.FIRST_ALLOCATED, last=identity.FIRST_NAME_CLASS - 1)
    return [identity.NumericIdentity(assigned[content]) for content in contents]


def canonical(facts: identity.Facts) -> bytes:
    """Write `facts` as bytes that no other facts have: repr quotes what could run together."""
    return repr(
        (
            facts.namespace,
            tuple(facts.labels.items()),
            tuple(facts.namespace_labels.items()),
            [(port.name, port.protocol.value, port.number) for port in facts.ports],
            [network_key(block) for block in facts.blocks],
            *((facts.node.value,) if facts.node is not None else ()),
        )
    ).encode()


def network_key(network: net.Network) -> tuple[int, int, int]:
    """Return what networks are sorted by: family, address, length."""
    return network.version, int(network.network_address), network.prefixlen
