"""Services and their endpoints."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from agent import decode
from agent.model import labels, net, resources
from tests.decode import samples


def _service(**spec: Any) -> tuple[resources.Service, list[str]]:
    document = samples.service()
    document["spec"].update(spec)
    decoded = decode.decode(document)
    assert isinstance(decoded.resource, resources.Service)
    return decoded.resource, [problem.path for problem in decoded.problems]


def test_every_frontend_of_a_service_is_read() -> None:
    service, paths = _service()
    assert paths == []
    assert service == resources.Service(
        namespace="x",
        name="s",
        cluster_addresses=(ipaddress.ip_address("10.96.0.1"), ipaddress.ip_address("2001:db8:1::1")),
        external_addresses=(ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("192.0.2.2")),
        ports=(
            resources.ServicePort(port=80, protocol=net.Protocol.TCP, target="web", name="http", node_port=30080),
            resources.ServicePort(port=53, protocol=net.Protocol.UDP, target=53, name="dns"),
        ),
        selector=labels.Labels({"app": "web"}),
    )


def test_a_headless_service_has_no_address() -> None:
    service, paths = _service(clusterIP="None", clusterIPs=["None"], externalIPs=None)
    assert service.cluster_addresses == ()
    assert paths == []


def test_an_address_that_the_load_balancer_serves_itself_is_no_frontend() -> None:
    """kube-proxy does not translate addresses of ipMode Proxy: what is dialled there leaves the cluster (rule A42)."""
    document = samples.service()
    document["status"] = {
        "loadBalancer": {"ingress": [{"ip": "192.0.2.2", "ipMode": "VIP"}, {"ip": "192.0.2.3", "ipMode": "Proxy"}]}
    }
    document["spec"]["externalIPs"] = []
    service = decode.decode(document).resource
    assert isinstance(service, resources.Service)
    assert service.external_addresses == (ipaddress.ip_address("192.0.2.2"),)


@pytest.mark.parametrize("selector", [None, {}])
def test_an_empty_selector_selects_no_pod(selector: object) -> None:
    assert _service(selector=selector)[0].selector is None


def test_what_cannot_be_read_of_a_service_is_left_out() -> None:
    service, paths = _service(
        clusterIPs=["x"], selector={"a": 1}, ports=[{"port": 0}, {"port": 80, "targetPort": True}, {"port": 81}]
    )
    assert [port.port for port in service.ports] == [81]
    assert service.selector is None
    assert sorted(paths) == ["spec.clusterIPs[0]", "spec.ports[0].port", "spec.ports[1].targetPort", "spec.selector[a]"]


def test_a_slice_has_the_ready_and_the_serving_addresses() -> None:
    decoded = decode.decode(samples.endpoint_slice())
    assert decoded.problems == ()
    assert decoded.resource == resources.EndpointSlice(
        namespace="x",
        name="s-1",
        service="s",
        addresses=tuple(ipaddress.ip_address(f"10.0.0.{last}") for last in (1, 2, 4)),
        ports=(resources.EndpointPort(name="http", number=8080, protocol=net.Protocol.TCP),),
    )


def test_a_slice_of_host_names_has_no_address() -> None:
    document = {**samples.endpoint_slice(), "addressType": "FQDN", "endpoints": [{"addresses": ["db.example"]}]}
    decoded = decode.decode(document)
    assert isinstance(decoded.resource, resources.EndpointSlice)
    assert decoded.resource.addresses == ()
    assert decoded.problems == ()


def test_endpoints_are_read_as_a_slice() -> None:
    subset = {"addresses": [{"ip": "10.0.0.1"}], "notReadyAddresses": [{"ip": "10.0.0.2"}], "ports": [{"port": 80}]}
    document = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "s"}, "subsets": [subset]}
    assert decode.decode(document).resource == resources.EndpointSlice(
        namespace="default",
        name="endpoints/s",
        service="s",
        addresses=(ipaddress.ip_address("10.0.0.1"),),
        ports=(resources.EndpointPort(name="", number=80, protocol=net.Protocol.TCP),),
    )
    document["subsets"] = [subset, subset]
    assert [problem.path for problem in decode.decode(document).problems] == ["subsets"]
