"""Where Services listen and what stands behind them."""

from __future__ import annotations

import dataclasses
import ipaddress

from agent import desired, snapshot
from agent.model import identity, labels, net, resources
from agent.services import frontends

TCP = net.Protocol.TCP
VIP4, VIP6 = ipaddress.ip_address("10.96.0.1"), ipaddress.ip_address("fd96::1")
NODE = resources.Node(name="n", addresses=(ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1")))
WEB = resources.ContainerPort(8080, TCP, "web")
POD = resources.Pod(
    namespace="x",
    name="a",
    uid="a",
    labels=labels.Labels({"app": "a"}),
    addresses=(ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("fd00::1")),
    ports=(resources.ContainerPort(9, net.Protocol.UDP, "web"), WEB),
)
PORT = resources.ServicePort(port=80, protocol=TCP, target="web", name="http")
SERVICE = resources.Service(
    namespace="x",
    name="s",
    cluster_addresses=(VIP4,),
    ports=(PORT,),
    selector=labels.Labels({"app": "a"}),
)


def identity_of(address: net.Address) -> identity.NumericIdentity:
    """Give each address an identity that shows in the results: its last byte, after the reserved ones."""
    return identity.NumericIdentity(identity.FIRST_ALLOCATED + (int(address) & 255))


def build(*items: resources.Resource) -> frontends.Services:
    return frontends.build(snapshot.build(items, ()), identity_of, node=NODE.name)


def behind(found: frontends.Services, address: net.Address = VIP4, port: int = 80) -> list[tuple[int, int]]:
    number = found.frontends.get(desired.Frontend(address, port, 6))
    return [] if number is None else [(each.identity - 256, each.port) for each in found.backends[number]]


def test_a_port_name_is_resolved_on_each_pod_with_its_protocol() -> None:
    other = dataclasses.replace(
        POD,
        name="b",
        addresses=(ipaddress.ip_address("10.0.0.2"),),
        ports=(resources.ContainerPort(81, TCP, "web"),),
    )
    nameless = dataclasses.replace(POD, name="c", addresses=(ipaddress.ip_address("10.0.0.3"),), ports=())
    assert behind(build(SERVICE, POD, other, nameless)) == [(1, 8080), (2, 81)]


def test_a_number_needs_no_declaration() -> None:
    """Rule A34."""
    by_number = dataclasses.replace(SERVICE, ports=(dataclasses.replace(PORT, target=99),))
    assert behind(build(by_number, dataclasses.replace(POD, ports=()))) == [(1, 99)]


def test_a_frontend_has_backends_of_its_own_family_only() -> None:
    """Rule A24."""
    both = dataclasses.replace(SERVICE, cluster_addresses=(VIP4, VIP6))
    only6 = dataclasses.replace(POD, addresses=POD.addresses[1:])
    found = build(both, only6)
    assert behind(found, VIP6) == [(1, 8080)]
    assert desired.Frontend(VIP4, 80, 6) not in found.frontends


def test_without_endpoints_there_is_no_frontend() -> None:
    """Kube-proxy refuses; so nothing must be judged."""
    assert build(SERVICE).frontends == {}


def test_a_headless_service_listens_nowhere() -> None:
    assert build(dataclasses.replace(SERVICE, cluster_addresses=()), POD).frontends == {}


def test_external_addresses_and_the_node_port_of_this_node_are_frontends() -> None:
    """kube-proxy translates node ports at the node's own addresses only; another node's is left as it was dialled."""
    external = ipaddress.ip_address("203.0.113.1")
    port = dataclasses.replace(PORT, node_port=30080)
    other = resources.Node(name="other", addresses=(ipaddress.ip_address("192.0.2.2"),))
    found = build(dataclasses.replace(SERVICE, external_addresses=(external,), ports=(port,)), POD, NODE, other)
    assert set(found.frontends) == {
        desired.Frontend(VIP4, 80, 6),
        desired.Frontend(external, 80, 6),
        *(desired.Frontend(address, 30080, 6) for address in NODE.addresses),
    }
    assert behind(found, NODE.addresses[1], 30080) == [(1, 8080)]


def test_two_services_at_one_address_and_port_have_the_backends_of_both() -> None:
    """Which of them kube-proxy serves is not defined: only what holds for both may be said early (rule A42)."""
    shared = ipaddress.ip_address("203.0.113.1")
    first = dataclasses.replace(SERVICE, external_addresses=(shared,))
    second = dataclasses.replace(
        first, name="t", cluster_addresses=(), selector=labels.Labels({"app": "b"}), ports=(PORT,)
    )
    other = dataclasses.replace(
        POD, name="b", labels=labels.Labels({"app": "b"}), addresses=(ipaddress.ip_address("10.0.0.2"),)
    )
    for items in ((first, second), (second, first)):
        found = build(*items, POD, other)
        assert behind(found, shared) == [(1, 8080), (2, 8080)]
        assert behind(found) == [(1, 8080)]
        names = [ref.name for ref in found.owners[found.frontends[desired.Frontend(shared, 80, 6)]]]
        assert names == ["s", "t"]


def test_only_ready_pods_that_stay_are_backends() -> None:
    for change in (
        {"ready": False},
        {"deleting": True},
        {"phase": resources.PodPhase.FAILED},
        {"namespace": "y"},
        {"labels": labels.Labels({"app": "b"})},
    ):
        assert build(SERVICE, dataclasses.replace(POD, **change)).frontends == {}


def test_host_network_pods_are_backends_at_their_nodes_address() -> None:
    """Rule A26: what they are to policies is what the ipcache says of the node's address."""
    on_host = dataclasses.replace(POD, host_network=True, addresses=NODE.addresses[:1])
    number = int(NODE.addresses[0]) & 255
    assert behind(build(SERVICE, on_host, NODE)) == [(number, 8080)]


def test_endpoint_slices_take_the_place_of_the_selector() -> None:
    served = resources.EndpointSlice(
        namespace="x",
        name="s-1",
        service="s",
        addresses=(ipaddress.ip_address("198.51.100.7"), ipaddress.ip_address("fd00::7")),
        ports=(
            resources.EndpointPort(name="http", number=70, protocol=TCP),
            resources.EndpointPort(name="other", number=71, protocol=TCP),
            resources.EndpointPort(name="http", number=72, protocol=net.Protocol.UDP),
        ),
    )
    second = dataclasses.replace(served, name="s-2", addresses=(ipaddress.ip_address("198.51.100.8"),))
    assert behind(build(SERVICE, POD, served, second)) == [(7, 70), (8, 70)]
    elsewhere = dataclasses.replace(served, namespace="y")
    assert behind(build(SERVICE, POD, elsewhere)) == [(1, 8080)]


def test_an_empty_slice_means_no_endpoints() -> None:
    empty = resources.EndpointSlice(namespace="x", name="s-1", service="s")
    assert build(SERVICE, POD, empty).frontends == {}


def test_no_selector_and_an_empty_one_select_nothing() -> None:
    for selector in (None, labels.NO_LABELS):
        assert build(dataclasses.replace(SERVICE, selector=selector), POD).frontends == {}


def test_services_with_like_backends_are_one_number() -> None:
    second = dataclasses.replace(SERVICE, name="t", cluster_addresses=(ipaddress.ip_address("10.96.0.2"),))
    found = build(SERVICE, second, POD)
    (number,) = set(found.frontends.values())
    assert [ref.name for ref in found.owners[number]] == ["s", "t"]


def test_what_denies_every_backend_is_named_and_of_several_rules_none() -> None:
    """Rule D2."""
    none = desired.ServiceClass.NONE
    backends = [frontends.Backend(1, 80, 6), frontends.Backend(2, 80, 6)]
    deny = {number: desired.Row(desired.Action.DENY, number) for number in (3, 4)}
    rows: list[tuple[desired.Row | None, desired.Row | None]]
    rows = [(deny[3], deny[3]), (deny[3], deny[4]), (deny[3], None), (None, None)]
    found = [
        frontends.classify(backends, lambda backend, pair=pair: pair[backend.identity - 1])  # type: ignore[misc]
        for pair in rows
    ]
    assert found == [(none, 3), (none, 0), (none, 0), (none, 0)]
