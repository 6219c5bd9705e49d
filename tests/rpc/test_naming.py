"""What a person may call a pod, a policy, an address; and what is answered where that means nothing, or several."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from agent import errors
from agent.model import resources
from agent.rpc import naming
from tests.support import agents, served

OTHER_KIND = dataclasses.replace(served.TO_B, kind="CiliumNetworkPolicy")
NOW = served.enforcement(dataclasses.replace(served.TO_B, namespace="y", name="same"), OTHER_KIND)


def test_a_pod_is_named_with_its_namespace_alone_or_by_its_id() -> None:
    found = naming.endpoint(NOW, "x/a")
    assert found.pod == "a"
    assert naming.endpoint(NOW, "a") == found
    assert naming.endpoint(NOW, str(found.id)) == found


@pytest.mark.parametrize("text", ["", "/", "x/", "/a", "x/a/b"])
def test_a_name_of_no_form_is_refused_with_the_form(text: str) -> None:
    for find in (naming.endpoint, naming.policy):
        with pytest.raises(errors.InvalidInput, match="NAMESPACE/NAME"):
            find(NOW, text if text != "x/a/b" else "x/a/b/c")


@pytest.mark.parametrize("text", ["x/c", "y/a", "z", "0", "٣"])
def test_a_pod_that_is_not_here_is_not_found_and_those_that_are_here_are_named(text: str) -> None:
    with pytest.raises(errors.NotFound, match="x/a, x/b") as raised:
        naming.endpoint(NOW, text)
    assert raised.value.value == text


def test_a_name_that_several_have_is_refused_with_all_of_them() -> None:
    sandboxes = (*agents.SANDBOXES, dataclasses.replace(agents.SANDBOXES[0], namespace="y"))
    now = served.enforcement(agents.pod("a", served.ELSEWHERE, namespace="y"), sandboxes=sandboxes)
    with pytest.raises(errors.InvalidInput, match="x/a, y/a"):
        naming.endpoint(now, "a")


def test_a_pod_with_several_sandboxes_is_named_by_its_id() -> None:
    again = dataclasses.replace(agents.SANDBOXES[0], netns_cookie=99)
    now = served.enforcement(sandboxes=(*agents.SANDBOXES, again))
    with pytest.raises(errors.InvalidInput, match="several sandboxes"):
        naming.endpoint(now, "x/a")


def test_a_policy_is_named_alone_where_only_one_has_the_name_and_with_its_kind_where_two_kinds_do() -> None:
    assert naming.policy(NOW, "from-a").name == "from-a"
    assert naming.policy(NOW, "y/same").namespace == "y"
    with pytest.raises(errors.InvalidInput, match="CiliumNetworkPolicy/x/to-b"):
        naming.policy(NOW, "to-b")
    assert naming.policy(NOW, "CiliumNetworkPolicy/x/to-b").kind == "CiliumNetworkPolicy"
    with pytest.raises(errors.NotFound, match="policy list"):
        naming.policy(NOW, "x/nothing")


def test_a_policy_of_no_namespace_is_named_alone_or_with_its_kind() -> None:
    wide = resources.NetworkPolicy(namespace="", name="to-b", kind="ClusterNetworkPolicy", tier=resources.Tier.ADMIN)
    now = served.enforcement(wide)
    assert naming.policy(now, "ClusterNetworkPolicy/to-b") == wide
    assert naming.policy(now, "x/to-b").kind == "NetworkPolicy"
    with pytest.raises(errors.InvalidInput, match=r"ClusterNetworkPolicy/to-b"):
        naming.policy(now, "to-b")
    assert naming.policy(served.enforcement(dataclasses.replace(wide, name="w")), "w").name == "w"
    assert wide.ref.path == "ClusterNetworkPolicy/to-b"


def test_of_many_names_an_error_lists_none_rather_than_pages() -> None:
    many = [resources.NetworkPolicy(namespace="x", name=f"p{number}") for number in range(100)]
    with pytest.raises(errors.NotFound) as raised:
        naming.policy(served.enforcement(*many), "nope")
    assert "p99" not in str(raised.value)


def test_an_address_is_read_as_the_datapath_sees_it_and_anything_else_refused() -> None:
    assert naming.address("::ffff:10.0.0.2") == ipaddress.ip_address("10.0.0.2")
    with pytest.raises(errors.InvalidInput, match="fd00::7"):
        naming.address("10.0.0")
