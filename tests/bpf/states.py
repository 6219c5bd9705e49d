"""Desired states for the test node, small enough to read in the test that uses them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from agent import desired
from agent.model import endpoint, identity, net
from tests.bpf import node as node_

EGRESS_SET, INGRESS_SET = 5001, 5002
RULE = 7001
TCP, UDP = net.Protocol.TCP.value, net.Protocol.UDP.value
ALLOW, DENY = desired.Action.ALLOW, desired.Action.DENY

Rows = Mapping[tuple[int, int, int, int], desired.Action]
"""(identity, protocol, port, port bits) -> action."""


def identity_of(index: int) -> identity.NumericIdentity:
    """Return the identity of pod number `index`."""
    return identity.NumericIdentity(identity.FIRST_ALLOCATED + index)


def endpoint_of(index: int) -> int:
    """Return the endpoint number of pod number `index`."""
    return 1000 + index


def pods(
    node: node_.Node,
    *,
    egress: Rows | None = None,
    ingress: Rows | None = None,
    held: frozenset[int] = frozenset(),
    ingress_ifindex: int | None = None,
) -> desired.DesiredState:
    """Isolate pod 0 for egress and pod 1 for ingress, each by the rows given; None: not isolated."""
    sets = {}
    if egress is not None:
        sets[EGRESS_SET] = policy_set(EGRESS_SET, net.Direction.EGRESS, egress)
    if ingress is not None:
        sets[INGRESS_SET] = policy_set(INGRESS_SET, net.Direction.INGRESS, ingress)
    endpoints = {
        endpoint_of(index): desired.Endpoint(
            id=endpoint_of(index),
            namespace="x",
            pod=pod.name,
            uid=f"uid-{index}",
            labels={},
            netns_cookie=pod.cookie,
            veth_ifindex=pod.ifindex,
            ingress_ifindex=ingress_ifindex or pod.ifindex,
            addresses=node_.addresses(pod),
            egress_set=EGRESS_SET if index == 0 and egress is not None else desired.NOT_ISOLATED,
            ingress_set=INGRESS_SET if index == 1 and ingress is not None else desired.NOT_ISOLATED,
            held=index in held,
        )
        for index, pod in enumerate(node.pods)
    }
    hosts = {address: identity_of(index) for index, pod in enumerate(node.pods) for address in node_.addresses(pod)}
    return desired.DesiredState(endpoints=endpoints, sets=sets, hosts=hosts)


def policy_set(number: int, direction: net.Direction, rows: Rows) -> desired.PolicySet:
    """Make a set of rows that all carry RULE."""
    return desired.PolicySet(
        id=number,
        digest=number.to_bytes(4, "big"),
        direction=direction,
        rows={desired.RowKey(*key): desired.Row(action=action, rule=RULE) for key, action in rows.items()},
        isolating=(),
    )


def silent(state: desired.DesiredState) -> desired.DesiredState:
    """Return the same in deny mode `drop`."""
    return dataclasses.replace(state, deny_mode=endpoint.DenyMode.DROP)


def sandboxes(node: node_.Node, *, ingress_ifindex: int | None = None) -> tuple[endpoint.Sandbox, ...]:
    """Return the pods as the node shows them."""
    return tuple(
        endpoint.Sandbox(
            namespace="x",
            pod=pod.name,
            uid=f"uid-{index}",
            netns_cookie=pod.cookie,
            veth_ifindex=pod.ifindex,
            ingress_ifindex=ingress_ifindex or pod.ifindex,
            addresses=node_.addresses(pod),
        )
        for index, pod in enumerate(node.pods)
    )
