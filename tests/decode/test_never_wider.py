"""Malformed input: nothing raises, and a broken NetworkPolicy never allows more than the sound one (rule A50)."""

from __future__ import annotations

import copy
import ipaddress
import itertools
import random
from collections.abc import Iterator
from typing import Any

from agent import decode, snapshot
from agent.decode import fields
from agent.model import net, resources
from tests.decode import samples

MUTATIONS = 5_000
SCALARS = (
    None,
    True,
    0,
    -1,
    10**5000,
    80.5,
    float("nan"),
    "",
    "x",
    "\x00\x1b[2J",
    "10.0.0.0/8",
    "\ud800",
    b"x",
    object(),
)
SAMPLE_LABELS = tuple(
    {key: value for key, value in pairs if value is not None}
    for pairs in itertools.product(
        (("app", "web"), ("app", "x"), ("app", None)),
        (("tier", "back"), ("tier", None)),
        (("team", "a"), ("team", None)),
    )
)
SAMPLE_ADDRESSES = tuple(map(ipaddress.ip_address, ("10.0.0.1", "10.1.0.1", "192.0.2.1", "2001:db8::1", "::1")))
SAMPLE_PORTS: tuple[int | str, ...] = (1, 53, 60, 80, 443, "web", "x")


def _places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Iterate over the path of every value in a document."""
    yield path
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*path, index))


def _replaced(document: Any, path: tuple[object, ...], value: object) -> Any:
    """Return a copy of a document with one value replaced."""
    changed = copy.deepcopy(document)
    if not path:
        return value
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return changed


def _mutated(document: Any, random_: random.Random) -> Any:
    """Return a copy with one random value replaced, dropped, wrapped, or moved to another place."""
    places = list(_places(document))
    path = random_.choice(places)
    other: Any = document
    for step in random_.choice(places):
        other = other[step]
    value = random_.choice([*SCALARS, {}, [], {1: 2}, [None], fields.Repeated(3), other, [other], {"items": other}])
    changed = _replaced(document, path, value)
    if random_.random() < 0.3 and isinstance(changed, dict):
        changed[random_.choice(["extra", 7, "spec", "kind", None])] = random_.choice(SCALARS)
    return changed


def test_no_mutation_of_a_valid_document_raises() -> None:
    random_ = random.Random(20_261_121)
    documents = samples.all_kinds()
    found: list[decode.Decoded] = []
    for number in range(MUTATIONS):
        document = _mutated(documents[number % len(documents)], random_)
        if random_.random() < 0.3:
            document = _mutated(document, random_) if isinstance(document, dict) else document
        found.extend(decode.decode_all(document))
    built = snapshot.build(
        (one.resource for one in found if one.resource is not None),
        (problem for one in found for problem in one.problems),
    )
    assert built.problems
    assert built.policies


def _allowed(policy: resources.NetworkPolicy, direction: net.Direction) -> set[tuple[object, ...]]:
    """Return which of the samples the rules of a direction allow, judged from rules A17, A20 to A24 alone."""
    found: set[tuple[object, ...]] = set()
    for rule in policy.rules(direction):
        peers: set[object] = set(range(len(SAMPLE_LABELS))) | set(SAMPLE_ADDRESSES)
        if rule.peers is not None:
            peers = {peer for one in rule.peers for peer in _selected(one)}
        ports: set[object] = {(protocol, port) for protocol in net.Protocol for port in SAMPLE_PORTS}
        if rule.ports is not None:
            ports = {port for one in rule.ports for port in _matched(one)}
        found.update(itertools.product(peers, ports))
    return found


def _selected(peer: resources.Peer) -> Iterator[object]:
    """Iterate over the sample peers that a peer selects; namespaces carry the same labels as pods."""
    if isinstance(peer, resources.IPBlock):
        yield from (
            address
            for address in SAMPLE_ADDRESSES
            if address in peer.cidr and not any(address in except_ for except_ in peer.excepts)
        )
    else:
        assert isinstance(peer, resources.PodPeer)
        for index, sample in enumerate(SAMPLE_LABELS):
            selectors = (peer.pods, peer.namespaces)
            if all(selector is None or selector.selects(sample) for selector in selectors):
                yield index


def _matched(match: resources.PortMatch) -> Iterator[object]:
    """Iterate over the sample ports that an entry matches."""
    for port in SAMPLE_PORTS:
        if (
            match.port is None
            or match.port == port
            or (isinstance(match.port, net.PortRange) and isinstance(port, int) and port in match.port)
        ):
            yield match.protocol, port


def _assert_no_wider(changed: Any, sound: resources.NetworkPolicy) -> None:
    """Check that a broken policy isolates at least what the sound one does and allows no more."""
    decoded = decode.decode(changed)
    broken = decoded.resource
    assert isinstance(broken, resources.NetworkPolicy), changed
    assert decoded.problems, changed
    assert broken.directions >= sound.directions, changed
    for direction in net.Direction:
        broken_allows, sound_allows = _allowed(broken, direction), _allowed(sound, direction)
        for sample in SAMPLE_LABELS:
            assert _selects(broken, direction, sample) or not _selects(sound, direction, sample), changed
            # Allows are a union: one for a pod that was not meant could lift another policy's isolation.
            allows = sound_allows if _selects(sound, direction, sample) else set()
            assert not _selects(broken, direction, sample) or broken_allows <= allows, changed


def _selects(policy: resources.NetworkPolicy, direction: net.Direction, sample: dict[str, str]) -> bool:
    """Tell whether a policy isolates a pod in a direction (rule A14)."""
    return direction in policy.directions and policy.subject.selects(sample)


def _bases() -> Iterator[dict[str, Any]]:
    """Iterate over sound policies: with policyTypes, without, and with one direction only."""
    yield samples.full_policy()
    for types in (None, ["Ingress"], ["Egress"]):
        document = samples.full_policy()
        document["spec"]["policyTypes"] = types
        yield document
    yield samples.policy(podSelector={"matchLabels": {"app": "web"}}, ingress=[{"ports": [{"port": 80}]}])


def _sound(document: dict[str, Any]) -> resources.NetworkPolicy:
    decoded = decode.decode(document)
    assert isinstance(decoded.resource, resources.NetworkPolicy)
    assert decoded.problems == ()
    return decoded.resource


def test_a_value_of_the_wrong_type_anywhere_in_a_policy_never_widens_it_a50() -> None:
    for document in _bases():
        sound = _sound(document)
        for path in _places(document["spec"], ("spec",)):
            for wrong in (3.5, fields.Repeated(4), [3.5], {"unknown": 1}, object()):
                _assert_no_wider(_replaced(document, path, wrong), sound)


def test_an_unknown_field_anywhere_in_a_policy_never_widens_it_a50() -> None:
    for document in _bases():
        sound = _sound(document)
        for path in _places(document, ()):
            value: Any = document
            for step in path:
                value = value[step]
            if isinstance(value, dict) and "metadata" not in path:
                _assert_no_wider(_replaced(document, path, {**value, "unknown": 7}), sound)


def test_two_broken_places_never_widen_a_policy_a50() -> None:
    random_ = random.Random(4)
    document = samples.full_policy()
    sound = _sound(document)
    places = list(_places(document["spec"], ("spec",)))
    for _ in range(1_000):
        first, second = random_.sample(places, 2)
        changed = _replaced(document, first, 3.5)
        if first[: len(second)] != second and second[: len(first)] != first:
            changed = _replaced(changed, second, {"unknown": 1})
        _assert_no_wider(changed, sound)
