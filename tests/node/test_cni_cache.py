"""Files of the CNI result cache, as libcni writes them and as they should not be."""

from __future__ import annotations

import ipaddress
import json
import pathlib
from typing import Any

import pytest

from agent.model import resources
from agent.node import cni_cache

PTP = [{"name": "veth1a2b"}, {"name": "eth0", "sandbox": "/run/netns/cni-1"}]


def file(**changes: Any) -> dict[str, Any]:
    arguments = [["IgnoreUnknown", "1"], ["K8S_POD_NAMESPACE", "x"], ["K8S_POD_NAME", "a"], ["K8S_POD_UID", "u-1"]]
    written = {
        "kind": "cniCacheV1",
        "containerId": "c0ffee",
        "config": "bnVsbA==",
        "ifName": "eth0",
        "networkName": "pods",
        "cniArgs": arguments,
        "netns": "/run/netns/cni-1",
        "result": {
            "cniVersion": "1.0.0",
            "interfaces": PTP,
            "ips": [{"address": "10.0.0.2/24", "gateway": "10.0.0.1", "interface": 1}],
            "dns": {},
        },
    }
    return {**written, **changes}


def decoded(document: object) -> cni_cache.Attachment | resources.Problem | None:
    return cni_cache.decode(json.dumps(document).encode(), name="pods-c0ffee-eth0")


def attachment(document: object) -> cni_cache.Attachment:
    found = decoded(document)
    assert isinstance(found, cni_cache.Attachment), found
    return found


def test_a_file_of_libcni_joins_pod_namespace_interface_and_addresses() -> None:
    assert attachment(file()) == cni_cache.Attachment(
        namespace="x",
        pod="a",
        uid="u-1",
        container="c0ffee",
        interface="eth0",
        netns=pathlib.Path("/run/netns/cni-1"),
        host_interfaces=("veth1a2b",),
        addresses=(ipaddress.ip_address("10.0.0.2"),),
    )


def test_dual_stack_addresses_are_all_the_pods_and_those_of_host_interfaces_are_not() -> None:
    addresses = [
        {"address": "10.0.0.2/24", "interface": 1},
        {"address": "fd00::2/64", "interface": 1},
        {"address": "169.254.1.1/32", "interface": 0},
        {"address": "::ffff:10.0.0.2/128"},
    ]
    found = attachment(file(result={"interfaces": PTP, "ips": addresses}))
    assert [str(address) for address in found.addresses] == ["10.0.0.2", "fd00::2"]


def test_a_bridge_is_named_beside_the_veth() -> None:
    interfaces = [{"name": "cni0", "mac": "a2:00:00:00:00:01"}, *PTP]
    assert attachment(file(result={"interfaces": interfaces})).host_interfaces == ("cni0", "veth1a2b")


def test_a_loopback_says_whose_namespace_it_is_and_no_address() -> None:
    """Containerd 1.6 leaves `netns` out, and the plugin lists 127.0.0.1 as the pod's."""
    inside = [{"name": "lo", "sandbox": "/run/netns/cni-1"}]
    ips = [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}]
    found = attachment(file(ifName="lo", netns="", result={"interfaces": inside, "ips": ips}))
    assert (found.is_loopback, found.uid, found.addresses) == (True, "u-1", ())
    assert found.netns == pathlib.Path("/run/netns/cni-1")


def test_a_loopback_that_names_no_namespace_is_nothing_to_tell() -> None:
    assert decoded(file(ifName="lo", netns="", result={"interfaces": []})) is None


def test_a_runtime_that_tells_no_uid_leaves_it_empty() -> None:
    assert attachment(file(cniArgs=[["K8S_POD_NAMESPACE", "x"], ["K8S_POD_NAME", "a"]])).uid == ""


@pytest.mark.parametrize("document", [file(cniArgs=None), file(cniArgs=[["K8S_POD_NAME", "a"]])])
def test_other_users_of_cni_are_no_pods(document: object) -> None:
    assert decoded(document) is None


@pytest.mark.parametrize(
    "document",
    [
        [],
        {},
        file(kind="cniCacheV2"),
        file(netns=7),
        file(netns="relative"),
        file(result=None),
        file(result={"ips": [{"address": "10.0.0.2/99"}]}),
        file(cniArgs=[["K8S_POD_NAMESPACE"]]),
    ],
)
def test_a_file_that_cannot_be_used_is_a_problem_that_names_it(document: object) -> None:
    problem = decoded(document)
    assert isinstance(problem, resources.Problem)
    assert problem.ref.name == "pods-c0ffee-eth0"
    assert "unknown to the agent" in problem.reason


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"null", b"[" * 100_000, b'{"x":' + b"[" * 100_000, b'{"kind":"\x80"}', b'{"\x80":1}'],
)
def test_bytes_that_are_no_json_are_a_problem_and_no_exception(content: bytes) -> None:
    assert isinstance(cni_cache.decode(content, name="half"), resources.Problem)


def test_a_file_without_namespace_goes_by_its_own_interfaces_sandbox() -> None:
    """What containerd 1.6 leaves out is in the plugin's result."""
    document = file()
    del document["netns"]
    assert attachment(document).netns == pathlib.Path("/run/netns/cni-1")


def test_another_interfaces_sandbox_is_not_taken_for_the_pods() -> None:
    interfaces = [{"name": "veth1a2b"}, {"name": "net1", "sandbox": "/run/netns/cni-2"}]
    document = file(netns="", result={"interfaces": interfaces, "ips": [{"address": "10.0.0.2/24"}]})
    found = decoded(document)
    assert isinstance(found, resources.Problem)
    assert found.path == "netns"
