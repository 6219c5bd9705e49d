"""Pods, namespaces, nodes and hosts: rules A13, A25 to A27, A31 to A35."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest

from agent import decode
from agent.decode import fields
from agent.model import labels, net, resources
from tests.decode import samples

ODD_ANSWERS: tuple[object, ...] = (True, 1, "True", "yes", "", " true", ["true"], {})


def _pod(**changes: dict[str, Any]) -> tuple[resources.Pod, list[str]]:
    """Decode the sample pod with sections updated; return it and the paths of its problems."""
    document = samples.pod()
    for section, values in changes.items():
        document[section].update(values)
    decoded = decode.decode(document)
    assert isinstance(decoded.resource, resources.Pod)
    return decoded.resource, [problem.path for problem in decoded.problems]


def test_every_field_of_a_pod_that_policy_needs_is_read() -> None:
    pod, paths = _pod()
    assert paths == []
    assert pod == resources.Pod(
        namespace="x",
        name="a",
        uid="u-2",
        labels=labels.Labels({"app": "web"}),
        node="node-1",
        addresses=(ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("2001:db8::1")),
        ports=(
            resources.ContainerPort(80, net.Protocol.TCP, "web"),
            resources.ContainerPort(81, net.Protocol.UDP, "web"),
            resources.ContainerPort(15, net.Protocol.TCP, "mesh"),
        ),
    )


def test_one_name_in_several_containers_is_a_union_and_restartable_init_containers_count_a33() -> None:
    names = {(port.name, port.number) for port in _pod()[0].ports}
    assert names == {("web", 80), ("web", 81), ("mesh", 15)}


def test_the_protocol_of_a_named_port_is_kept_with_it_a31_a32_a35() -> None:
    pod, paths = _pod(spec={"containers": [{"ports": [{"name": "s", "containerPort": 1, "protocol": "SCTP"}]}]})
    assert resources.ContainerPort(1, net.Protocol.SCTP, "s") in pod.ports
    assert paths == []


def test_ports_without_a_name_are_declarations_only_a34() -> None:
    pod, _ = _pod(spec={"containers": [{"ports": [{"containerPort": 80}]}], "initContainers": None})
    assert pod.ports == (resources.ContainerPort(80, net.Protocol.TCP, None),)


def test_a_malformed_container_port_is_left_out_alone() -> None:
    pod, paths = _pod(spec={"containers": [{"ports": [{"containerPort": "80"}, {"containerPort": 81}]}, "x"]})
    assert [port.number for port in pod.ports] == [81, 15]
    assert paths == ["spec.containers[0].ports[0].containerPort", "spec.containers[1]"]


def test_a_pod_on_the_host_network_has_no_identity_a26() -> None:
    pod, _ = _pod(spec={"hostNetwork": True})
    assert pod.host_network
    assert not pod.has_identity


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_has_no_identity_a27(phase: str) -> None:
    assert not _pod(status={"phase": phase})[0].has_identity


def test_a_pod_without_an_address_has_no_identity_a27() -> None:
    pod, paths = _pod(status={"podIP": "", "podIPs": None})
    assert not pod.has_identity
    assert paths == []


@pytest.mark.parametrize(("phase", "paths"), [("Odd", ["status.phase"]), (1, ["status.phase"]), (None, [])])
def test_a_pod_of_no_known_phase_counts_as_not_finished(phase: object, paths: list[str]) -> None:
    pod, found = _pod(status={"phase": phase})
    assert pod.has_identity
    assert found == paths


def test_a_terminating_pod_stays_subject_and_peer_a28() -> None:
    pod, _ = _pod(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert pod.deleting
    assert pod.has_identity


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ({"conditions": None}, True),
        ({"conditions": None, "phase": "Pending"}, False),
        ({"conditions": [{"type": "Ready", "status": "False"}]}, False),
        ({"conditions": ["x", {"type": "Ready", "status": "True"}]}, True),
    ],
)
def test_a_pod_is_ready_by_its_condition_or_else_if_it_runs(status: dict[str, Any], *, ready: bool) -> None:
    assert _pod(status=status)[0].ready is ready


@pytest.mark.parametrize("address", ["10.0.0", "10.0.0.1/32", "fe80::1%eth0", 167772161, True, "x", ["10.0.0.1"]])
def test_a_malformed_address_is_left_out_with_a_problem(address: object) -> None:
    pod, paths = _pod(status={"podIP": None, "podIPs": [{"ip": address}, {"ip": "10.0.0.9"}]})
    assert pod.addresses == (ipaddress.ip_address("10.0.0.9"),)
    assert paths == ["status.podIPs[0].ip"]


def test_a_mapped_address_is_the_ipv4_address_in_it_a24() -> None:
    pod, _ = _pod(status={"podIP": "::ffff:10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]})
    assert pod.addresses == (ipaddress.ip_address("10.0.0.1"),)


@pytest.mark.parametrize("value", [True, 1, 1.0, ["x"], fields.Repeated(3)])
def test_a_pod_whose_labels_cannot_be_read_is_not_read(value: object) -> None:
    document = samples.pod()
    document["metadata"]["labels"] = {"app": "web", "on": value}
    decoded = decode.decode(document)
    assert decoded.resource is None
    assert [problem.path for problem in decoded.problems] == ["metadata.labels[on]"]


def test_a_pod_without_a_uid_is_known_by_its_name() -> None:
    assert _pod(metadata={"uid": None})[0].uid == "x/a"


def test_every_namespace_has_its_name_as_a_label_a13() -> None:
    decoded = decode.decode(samples.namespace())
    wanted = {"team": "a", "kubernetes.io/metadata.name": "x"}
    assert decoded.resource == resources.Namespace(name="x", labels=labels.Labels(wanted))


@pytest.mark.parametrize(
    ("annotations", "asked", "problems"),
    [
        (None, False, 0),
        ({}, False, 0),
        ({"nodewall.io/audit": "true"}, True, 0),
        ({"nodewall.io/audit": "false"}, False, 0),
        ({"nodewall.io/audit": None}, False, 0),
        ({"other": "true"}, False, 0),
        *(({"nodewall.io/audit": odd}, False, 1) for odd in ODD_ANSWERS),
        ("true", False, 1),
        ([], False, 1),
    ],
)
def test_only_the_text_true_asks_for_audit_and_what_is_neither_is_told_a51(
    annotations: object, *, asked: bool, problems: int
) -> None:
    """Rule A51: of a policy and of a namespace; neither loses anything by it."""
    space, policy = samples.namespace(), samples.full_policy()
    found = []
    for document in (space, policy):
        plain = decode.decode(document).resource
        document["metadata"]["annotations"] = annotations
        decoded = decode.decode(document)
        assert isinstance(decoded.resource, resources.Namespace | resources.NetworkPolicy)
        assert dataclasses.replace(decoded.resource, asks_audit=False) == plain
        found.append((decoded.resource.asks_audit, len(decoded.problems)))
    assert found == [(asked, problems)] * 2


def test_the_name_label_of_a_namespace_cannot_be_overridden_a13() -> None:
    document = samples.namespace()
    document["metadata"]["labels"] = {"kubernetes.io/metadata.name": "y", "on": True, "empty": None}
    decoded = decode.decode(document)
    wanted = {"kubernetes.io/metadata.name": "x", "empty": ""}
    assert decoded.resource == resources.Namespace(name="x", labels=labels.Labels(wanted))
    assert [problem.path for problem in decoded.problems] == ["metadata.labels[on]"]


def test_a_node_has_its_addresses_and_pod_ranges_each_once() -> None:
    assert decode.decode(samples.node()).resource == resources.Node(
        name="node-1",
        addresses=(ipaddress.ip_address("192.0.2.10"), ipaddress.ip_address("198.51.100.10")),
        pod_ranges=(ipaddress.ip_network("10.0.0.0/24"), ipaddress.ip_network("2001:db8::/64")),
    )


def test_a_host_has_addresses_and_ports() -> None:
    assert decode.decode(samples.host()).resource == resources.Host(
        name="client",
        addresses=(ipaddress.ip_address("203.0.113.1"),),
        ports=(resources.ContainerPort(443, net.Protocol.TCP), resources.ContainerPort(53, net.Protocol.UDP)),
    )
