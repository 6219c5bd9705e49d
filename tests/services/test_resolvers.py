"""Whose DNS answers are believed (requirements F11, F29)."""

from __future__ import annotations

import dataclasses
import ipaddress

from agent import snapshot
from agent.model import labels, net, resources
from agent.services import resolvers

ADDRESS = ipaddress.ip_address("10.96.0.10"), ipaddress.ip_address("fd00:96::a")
BACKEND = ipaddress.ip_address("10.244.0.7")
DNS = labels.Labels({"k8s-app": "kube-dns"})
KUBE_DNS = resources.Service(
    namespace="kube-system",
    name="kube-dns",
    cluster_addresses=ADDRESS,
    ports=(
        resources.ServicePort(port=53, protocol=net.Protocol.UDP, target=53, name="dns"),
        resources.ServicePort(port=53, protocol=net.Protocol.TCP, target=53, name="dns-tcp"),
    ),
    selector=DNS,
    labels=DNS,
)
SLICE = resources.EndpointSlice(
    namespace="kube-system",
    name="kube-dns-x",
    service="kube-dns",
    addresses=(BACKEND,),
    ports=(resources.EndpointPort(name="dns", number=53, protocol=net.Protocol.UDP),),
)
POD = resources.Pod(namespace="kube-system", name="coredns-1", uid="1", labels=DNS, addresses=(BACKEND + 1,))


def found(*items: resources.Resource) -> set[net.Address]:
    return set(resolvers.trusted(snapshot.build(items))) - {resolvers.NODE_LOCAL}


def test_the_service_and_what_is_behind_it_are_believed() -> None:
    assert found(KUBE_DNS, SLICE) == {*ADDRESS, BACKEND}


def test_its_name_means_nothing_and_its_label_everything() -> None:
    assert found(dataclasses.replace(KUBE_DNS, name="rke2-coredns"), SLICE) == set(ADDRESS)
    assert found(dataclasses.replace(KUBE_DNS, labels=labels.NO_LABELS), SLICE) == set()


def test_a_service_of_another_namespace_is_not_believed_whatever_its_label() -> None:
    """F11: whoever may write to a namespace of theirs must not open addresses for everybody."""
    mine, slice_ = dataclasses.replace(KUBE_DNS, namespace="mine"), dataclasses.replace(SLICE, namespace="mine")
    assert found(mine, slice_) == set()
    assert found(mine, dataclasses.replace(KUBE_DNS, name="other"), slice_) == set(ADDRESS)


def test_without_slices_the_pods_it_selects_are_behind_it() -> None:
    """Directories of manifests have none."""
    assert found(KUBE_DNS, POD, dataclasses.replace(POD, name="other", labels=labels.NO_LABELS)) == {
        *ADDRESS,
        BACKEND + 1,
    }


def test_the_cache_of_the_node_and_whom_the_admin_names_are_always_believed() -> None:
    """F29; an IPv4 address written as an IPv6 one is the IPv4 one (rule A24)."""
    named = ipaddress.ip_address("::ffff:192.0.2.53"), ipaddress.ip_address("2001:db8::53")
    assert resolvers.trusted(snapshot.build(()), named) == {
        ipaddress.ip_address("169.254.20.10"),
        ipaddress.ip_address("192.0.2.53"),
        ipaddress.ip_address("2001:db8::53"),
    }
