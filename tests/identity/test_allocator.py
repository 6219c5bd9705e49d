"""Identity numbers are digests of facts: the same on every node and along every path."""

from __future__ import annotations

import dataclasses
import ipaddress

from agent.identity import allocator
from agent.model import identity, labels, net, resources

FACTS = identity.Facts(
    namespace="x",
    labels=labels.Labels({"app": "a"}),
    namespace_labels=labels.Labels({"team": "t"}),
    ports=(resources.ContainerPort(80, net.Protocol.TCP, "web"),),
    blocks=(ipaddress.ip_network("10.0.0.0/8"),),
)


def test_equal_facts_have_one_number_beside_whatever_else() -> None:
    (alone,) = allocator.allocate([FACTS])
    other = identity.Facts(namespace="y")
    assert allocator.allocate([other, dataclasses.replace(FACTS)])[1] == alone


def test_each_fact_counts() -> None:
    variants = [
        FACTS,
        dataclasses.replace(FACTS, namespace="y"),
        dataclasses.replace(FACTS, namespace=None),
        dataclasses.replace(FACTS, labels=labels.Labels({"app": "b"})),
        dataclasses.replace(FACTS, labels=labels.NO_LABELS, namespace_labels=FACTS.labels),
        dataclasses.replace(FACTS, ports=(resources.ContainerPort(80, net.Protocol.UDP, "web"),)),
        dataclasses.replace(FACTS, blocks=(ipaddress.ip_network("10.0.0.0/9"),)),
        dataclasses.replace(FACTS, blocks=(ipaddress.ip_network("::a00:0/8", strict=False),)),
    ]
    assert len(set(allocator.allocate(variants))) == len(variants)


def test_numbers_that_are_reserved_or_classes_of_names_are_never_given() -> None:
    many = [identity.Facts(namespace=str(number)) for number in range(2000)]
    found = allocator.allocate(many)
    assert min(found) >= identity.FIRST_ALLOCATED
    assert max(found) < identity.FIRST_NAME_CLASS


def test_hostile_names_cannot_imitate_other_facts() -> None:
    one = identity.Facts(namespace="x', (('app', 'a'),), (), [], [])", labels=labels.NO_LABELS)
    two = identity.Facts(namespace="x", labels=labels.Labels({"app": "a"}))
    assert allocator.canonical(one) != allocator.canonical(two)
    assert allocator.canonical(identity.Facts(namespace="\ud800\n"))
