"""What is no pod: machines with names, ranges that policies name, and the rest of the world.

What policies allow to a block is read from their rules that allow, as a block has no policies of its own and those only
ever add (rule A15); what others deny before them is not looked at. An address that was seen belongs to the machine that
has it, else to the narrowest range that names it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from agent import snapshot as snapshot_
from agent.graph import model
from agent.model import net, resources, verdict
from agent.policy import matching

OUTSIDE = ""
WORLD = model.Key(OUTSIDE, "world", model.Kind.WORLD.value)
EXCEPTS_SHOWN = 2
WORLDLY = frozenset({resources.Entity.ALL, resources.Entity.WORLD})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A rule that lets pods talk to a block, or be talked to from it."""

    block: model.Key
    direction: net.Direction
    pods: tuple[resources.Pod, ...]
    port: int | None
    protocol: int | None
    rule: verdict.RuleRef
    note: str = ""
    """What the port cannot say: a range of ports."""


def ranges(snapshot: snapshot_.Snapshot) -> Mapping[model.Key, resources.IPBlock]:
    """Return the blocks that policies name; one that holds everything is the world."""
    found = {_key(peer): peer for peer in _peers(snapshot) if isinstance(peer, resources.IPBlock)}
    return dict(sorted(found.items()))


def owner(address: net.Address, blocks: Mapping[model.Key, resources.IPBlock]) -> model.Key:
    """Return the narrowest range that has an address, or the world."""
    having = [
        (block.cidr.prefixlen, key)
        for key, block in blocks.items()
        if address.version == block.cidr.version and address in block.cidr and not _excepted(address, block)
    ]
    return max(having)[1] if having else WORLD


def openings(
    snapshot: snapshot_.Snapshot, decides: Callable[[resources.ObjectRef, resources.Pod], bool]
) -> Iterator[Opening]:
    """Yield every rule that speaks of addresses outside, by policy and port, for the pods its policy `decides` for."""
    for policy in snapshot.policies.values():
        subjects = tuple(
            pod
            for pod in snapshot.pods.values()
            if pod.has_identity and matching.selects(snapshot, policy, pod) and decides(policy.ref, pod)
        )
        if not subjects:
            continue
        for direction in net.Direction:
            for index, rule in enumerate(policy.counting(direction)):
                if rule.action is not resources.RuleAction.ALLOW:
                    continue
                ref = verdict.RuleRef(policy.ref, direction, index)
                for key in _keys(rule):
                    for pods, number, protocol, note in _ports(rule, subjects, direction):
                        yield Opening(
                            block=key,
                            direction=direction,
                            pods=pods,
                            port=number,
                            protocol=protocol,
                            rule=ref,
                            note=note,
                        )


def _keys(rule: resources.PolicyRule) -> list[model.Key]:
    if rule.peers is None:
        return [WORLD]
    world = any(isinstance(peer, resources.EntityPeer) and peer.entity in WORLDLY for peer in rule.peers)
    blocks = (_key(peer) for peer in rule.peers if isinstance(peer, resources.IPBlock))
    return list(dict.fromkeys((*([WORLD] if world else []), *blocks)))


def _key(block: resources.IPBlock) -> model.Key:
    if block.cidr.prefixlen == 0 and not block.excepts:
        return WORLD
    name = "world" if block.cidr.prefixlen == 0 else str(block.cidr)
    if block.excepts:
        more = f" +{len(block.excepts) - EXCEPTS_SHOWN}" if len(block.excepts) > EXCEPTS_SHOWN else ""
        name += f" but {', '.join(map(str, block.excepts[:EXCEPTS_SHOWN]))}{more}"
    return model.Key(OUTSIDE, name, model.Kind.RANGE.value)


def _ports(
    rule: resources.PolicyRule, subjects: Sequence[resources.Pod], direction: net.Direction
) -> Iterator[tuple[tuple[resources.Pod, ...], int | None, int | None, str]]:
    """Yield the pods a port is open for, the port (None: every one), its protocol, and a note."""
    if rule.ports is None:
        yield tuple(subjects), None, None, ""
        return
    for match in rule.ports:
        protocol = match.protocol.value
        if match.port is None:
            yield tuple(subjects), None, protocol, ""
        elif isinstance(match.port, net.PortRange):
            first, last = match.port.first, match.port.last
            yield (
                tuple(subjects),
                first if first == last else None,
                protocol,
                "" if first == last else f"{first}-{last}",
            )
        elif direction is net.Direction.INGRESS:
            for number in sorted({port.number for pod in subjects for port in _named(pod, match)}):
                pods = tuple(pod for pod in subjects if any(port.number == number for port in _named(pod, match)))
                yield pods, number, protocol, ""


def _named(pod: resources.Pod, match: resources.PortMatch) -> list[resources.ContainerPort]:
    return [port for port in pod.ports if port.name == match.port and port.protocol is match.protocol]


def _excepted(address: net.Address, block: resources.IPBlock) -> bool:
    return any(address in hole for hole in block.excepts)


def _peers(snapshot: snapshot_.Snapshot) -> Iterator[resources.Peer]:
    for policy in snapshot.policies.values():
        for rule in (*policy.ingress, *policy.egress):
            yield from rule.peers or ()
