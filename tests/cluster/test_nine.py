"""What the truth tables say, said of the real nine pods."""

from __future__ import annotations

import collections

import pytest

from agent.model import net
from tests.cluster import nine
from tests.support import cases

ADDRESSES = {
    f"{where}/{name}": (f"10.244.9.{row * 3 + column}", f"fd00:10:244:9::{row * 3 + column}")
    for row, where in enumerate(nine.NAMESPACES)
    for column, name in enumerate(nine.NAMES)
}
SERVICES = {party: (f"10.96.0.{number}",) for number, party in enumerate(ADDRESSES)}


def table(name: str) -> cases.Case:
    return cases.load(cases.DIRECTORY / "networkpolicy" / f"{name}.yaml")


def test_every_namespace_and_every_node_has_three_and_no_two_of_a_namespace_share_a_node() -> None:
    placed = [(pod["metadata"]["namespace"], pod["spec"]["nodeName"]) for pod in nine.pods()]
    assert len(set(placed)) == len(placed) == 9
    assert set(collections.Counter(node for _, node in placed).values()) == {3}


def test_pods_declare_what_the_tables_check() -> None:
    declared = {(port["containerPort"], port["protocol"]) for pod in nine.pods() for port in ports_of(pod)}
    checked = {
        (check.port, check.protocol.name)
        for path in cases.paths()
        if path.parent.name == "networkpolicy"
        for step in cases.load(path).steps
        for check in step.checks
    }
    assert checked <= declared == set(nine.PORTS)


def ports_of(pod: nine.Document) -> list[nine.Document]:
    return list(pod["spec"]["containers"][0]["ports"])


def test_a_block_of_one_pod_becomes_the_real_one_in_both_families() -> None:
    [policy] = nine.policies(table("34-egress-to-cidr").steps[0].documents(), ADDRESSES)
    four, six = ADDRESSES["y/b"]
    assert policy["spec"]["egress"] == [
        {"to": [{"ipBlock": {"cidr": f"{four}/32"}}, {"ipBlock": {"cidr": f"{six}/128"}}]}
    ]


def test_an_exception_stays_with_the_block_of_its_family() -> None:
    [policy] = nine.policies(table("35-except").steps[0].documents(), ADDRESSES)
    four, six = ADDRESSES["x/b"]
    assert [peer["ipBlock"] for peer in policy["spec"]["egress"][0]["to"]] == [
        {"cidr": "0.0.0.0/4", "except": [f"{four}/32"]},
        {"cidr": "fd00::/8", "except": [f"{six}/128"]},
    ]


def test_a_block_of_nobody_is_refused() -> None:
    documents = table("34-egress-to-cidr").steps[0].documents()
    for document in documents:
        if document["kind"] == "Pod":
            document["status"]["podIP"] = "192.0.2.1"
    with pytest.raises(ValueError, match="no pod of the fixture"):
        nine.policies(documents, ADDRESSES)


def test_every_pair_is_asked_by_both_addresses_and_by_the_service() -> None:
    [check] = table("01-default-deny-ingress").steps[0].checks
    asked = dict(nine.questions(check, ADDRESSES, SERVICES))
    assert len(asked) == 9 * 8 * 3
    assert {question.target for question in asked if question.address in SERVICES["x/a"]} == {"service of x/a"}
    assert not any(allowed for question, allowed in asked.items() if question.target.endswith("x/a"))


def test_sctp_goes_to_pods_alone() -> None:
    [check] = table("46-sctp-default-deny-ingress").steps[0].checks
    assert check.protocol is net.Protocol.SCTP
    assert all(question.address in ADDRESSES[question.target] for question, _ in nine.questions(check, ADDRESSES, {}))
