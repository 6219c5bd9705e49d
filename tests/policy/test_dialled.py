"""What stands behind an address that somebody dials."""

from __future__ import annotations

import dataclasses
import ipaddress

from agent import snapshot
from agent.model import labels, net, resources
from agent.policy import dialled

TCP = net.Protocol.TCP
FRONT = ipaddress.ip_address("10.96.0.1")
NODE = resources.Node(name="node-1", addresses=(ipaddress.ip_address("192.0.2.1"),))
SERVICE = resources.Service(
    namespace="x",
    name="web",
    cluster_addresses=(FRONT,),
    ports=(resources.ServicePort(port=80, protocol=TCP, target="http", name="main", node_port=30080),),
    selector=labels.Labels({"app": "web"}),
)


def pod(name: str, address: str, number: int) -> resources.Pod:
    return resources.Pod(
        namespace="x",
        name=name,
        uid=name,
        labels=labels.Labels({"app": "web", "pod": name}),
        addresses=(ipaddress.ip_address(address),),
        ports=(resources.ContainerPort(number, TCP, "http"),),
    )


FIRST, SECOND = pod("first", "10.0.0.1", 8080), pod("second", "10.0.0.2", 9090)
PART = resources.EndpointSlice(
    namespace="x",
    name="web-1",
    service="web",
    addresses=(ipaddress.ip_address("10.0.0.7"), ipaddress.ip_address("fd00::7")),
    ports=(resources.EndpointPort(name="main", number=7000, protocol=TCP),),
)


def endpoints(*items: resources.Resource, address: net.Address = FRONT, port: int = 80) -> list[tuple[str, int]] | None:
    found = dialled.behind(snapshot.build([SERVICE, NODE, *items]), address, port, TCP)
    return None if found is None else [(str(end), number) for end, number in found.endpoints]


def test_without_slices_the_selected_ready_pods_stand_behind_a_service_each_at_its_own_port() -> None:
    """Rules A31, A42."""
    gone = (
        dataclasses.replace(pod("unready", "10.0.0.3", 1), ready=False),
        dataclasses.replace(pod("leaving", "10.0.0.4", 1), deleting=True),
        dataclasses.replace(pod("done", "10.0.0.5", 1), phase=resources.PodPhase.SUCCEEDED),
        dataclasses.replace(pod("foreign", "10.0.0.6", 1), namespace="y"),
    )
    assert endpoints(FIRST, SECOND, *gone) == [("10.0.0.1", 8080), ("10.0.0.2", 9090)]


def test_slices_outweigh_the_selector_and_only_the_dialled_family_counts() -> None:
    """Rules A24, A42."""
    assert endpoints(FIRST, PART) == [("10.0.0.7", 7000)]


def test_a_node_port_leads_to_the_same_endpoints() -> None:
    """Rule A30."""
    assert endpoints(FIRST, address=NODE.addresses[0], port=30080) == [("10.0.0.1", 8080)]
    assert endpoints(FIRST, address=NODE.addresses[0], port=80) is None


def test_other_ports_and_addresses_are_no_services() -> None:
    assert endpoints(FIRST, port=81) is None
    assert endpoints(FIRST, address=ipaddress.ip_address("10.96.0.2")) is None


def test_a_service_that_nobody_serves_has_no_endpoints() -> None:
    """Rule A42: the address is refused, and by no policy."""
    assert endpoints() == []
