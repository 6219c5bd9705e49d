"""Services as chains."""

from __future__ import annotations

import ipaddress

from agent.lab import plan, proxy, resolve
from agent.model import net
from tests.lab import manifests

NODES = [ipaddress.ip_address("172.18.0.2")]
PODS = [manifests.pod("a", address="10.244.1.10"), manifests.pod("b", address="10.244.1.11")]


def _fronts(*documents: manifests.Document, family: net.Family = net.Family.IPV4) -> list[proxy.Frontend]:
    return proxy.frontends(plan.read(resolve.resolve(documents)), family)


def test_a_service_leads_to_the_pods_it_selects() -> None:
    fronts = _fronts(*PODS, manifests.service("s", app="a", port=80, target=8080))
    assert [front.backends for front in fronts] == [((ipaddress.ip_address("10.244.1.10"), 8080),)] * 2
    assert {front.protocol for front in fronts} == {net.Protocol.TCP, net.Protocol.UDP}


def test_endpoint_slices_win_over_the_selector() -> None:
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s-1", "namespace": "x", "labels": {"kubernetes.io/service-name": "s"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.9.9.9"]}],
        "ports": [{"name": "tcp", "port": 99, "protocol": "TCP"}],
    }
    fronts = _fronts(*PODS, slice_, manifests.service("s", app="a", port=80, target=8080))
    ends = {front.protocol: front.backends for front in fronts}
    assert ends == {net.Protocol.TCP: ((ipaddress.ip_address("10.9.9.9"), 99),), net.Protocol.UDP: ()}


def test_finished_pods_serve_nobody() -> None:
    """Rule A27."""
    finished = manifests.pod("a", address="10.244.1.10")
    finished["status"]["phase"] = "Failed"
    assert all(not front.backends for front in _fronts(finished, manifests.service("s", app="a", port=80, target=1)))


def test_the_families_do_not_mix() -> None:
    """Rule A24."""
    service = manifests.service("s", app="a", port=80, target=8080)
    assert _fronts(*PODS, service, family=net.Family.IPV6) == []


def test_backends_are_chosen_evenly_and_hairpins_masqueraded() -> None:
    same = [manifests.pod("a", address="10.244.1.10"), manifests.pod("b", address="10.244.1.11")]
    same[1]["metadata"]["labels"] = {"app": "a"}
    text = proxy.render(_fronts(*same, manifests.service("s", app="a", port=80, target=8080)), NODES)
    assert text.count("--probability 0.5000000000") == 2
    assert text.count("-s 10.244.1.10 -j MARK --set-xmark 0x4000/0x4000") == 2
    assert "-p tcp -m tcp -j DNAT --to-destination 10.244.1.11:8080" in text
    assert "REJECT" not in text


def test_a_service_without_endpoints_is_refused() -> None:
    text = proxy.render(_fronts(*PODS, manifests.service("s", app="none", port=80, target=8080)), NODES)
    assert text.count("-j REJECT") == 2
    assert "DNAT" not in text


def test_node_ports_are_opened_on_the_nodes_addresses_and_masqueraded() -> None:
    service = manifests.service("s", app="a", port=80, target=8080, type="NodePort")
    text = proxy.render(_fronts(*PODS, service), NODES)
    rules = [line for line in text.splitlines() if "-d 172.18.0.2 -p tcp -m tcp --dport 30000" in line]
    assert len(rules) == 1
    assert f"-A {rules[0].split()[-1]} -j MARK --set-xmark 0x4000/0x4000" in text


def test_ipv6_destinations_are_bracketed() -> None:
    pods = [manifests.pod("a", address="fd00::10")]
    text = proxy.render(_fronts(*pods, manifests.service("s", app="a", port=80, target=81), family=net.Family.IPV6), [])
    assert "--to-destination [fd00::10]:81" in text


def test_chain_names_fit_iptables() -> None:
    text = proxy.render(_fronts(*PODS, manifests.service("s" * 63, app="a", port=80, target=8080)), NODES)
    assert all(len(line.split()[0]) <= 29 for line in text.splitlines() if line.startswith(":"))
