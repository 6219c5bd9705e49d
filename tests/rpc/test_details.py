"""What the agent says of one endpoint, identity, policy, address, Service; on a state compiled as in earnest."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from agent import desired, errors
from agent.model import labels, net, resources, verdict
from agent.rpc import address_detail, describe, endpoint_detail, identity_detail, naming, policy_detail, service_detail
from tests.support import agents, served

NOW = served.enforcement()
A, B = naming.endpoint(NOW, "x/a"), naming.endpoint(NOW, "x/b")


def test_an_endpoint_has_its_policies_by_direction_with_their_rules_in_words() -> None:
    found = endpoint_detail.detail(NOW, B)
    assert found.ingress.isolated
    assert not found.egress.isolated
    ((policy),) = found.ingress.policies
    assert policy.policy == served.TO_B.ref
    assert policy.rules == (
        "from pods with app=a in x on TCP http",
        "from 203.0.113.0/24 except 203.0.113.128/25 on TCP 8080-8087",
    )
    assert found.ingress.rows == len(NOW.state.sets[B.ingress_set].rows)
    assert found.services == (resources.ObjectRef("Service", "x", "web"),)
    assert endpoint_detail.detail(NOW, A).services == ()


def test_an_endpoint_that_is_held_says_why() -> None:
    new = dataclasses.replace(agents.SANDBOXES[0], pod="new", uid="uid-new", addresses=())
    nobody = dataclasses.replace(agents.SANDBOXES[0], namespace="", pod="cni-1", uid="", netns_cookie=5, addresses=())
    now = served.enforcement(sandboxes=(*agents.SANDBOXES, new, nobody))
    holds = {one.pod: endpoint_detail.detail(now, one).hold for one in now.state.endpoints.values()}
    assert holds["a"] == ""
    assert "has not told of this pod" in holds["new"]
    assert "whose network namespace" in holds["cni-1"]


def test_verdicts_of_an_endpoint_are_counted_where_it_is_the_subject() -> None:
    forwarded = agents.flow(direction=net.Direction.EGRESS, verdict=verdict.Verdict.FORWARDED)
    recent = (agents.flow(), agents.flow(), forwarded)
    assert endpoint_detail.detail(NOW, B, recent).recent == {"ingress dropped": 2}
    assert endpoint_detail.detail(NOW, A, recent).recent == {"egress forwarded": 1}


def test_a_policy_is_shown_as_it_was_read_with_its_problems_its_endpoints_and_its_rows() -> None:
    found = policy_detail.detail(NOW, served.TO_B)
    assert found.subject == "pods with app=b in x; isolates ingress"
    assert [(one.direction, one.index) for one in found.rules] == [
        (net.Direction.INGRESS, 0),
        (net.Direction.INGRESS, 1),
    ]
    assert [problem.path for problem in found.policy.problems] == ["spec.ingress[1].ports[0].endPort"]
    assert [(one.pod, one.directions) for one in found.endpoints] == [("b", ("ingress",))]
    rows = {(row.peer, row.protocol, row.ports, row.action, row.rule_index) for row in found.rows}
    assert ("pods in x with app=a", "TCP", "8000", "allow", 0) in rows
    assert ("addresses in 203.0.113.0/24", "TCP", "8080-8087", "allow", 1) in rows
    assert found.row_count == len(found.rows)


def test_rows_of_a_policy_are_counted_beyond_those_that_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(policy_detail, "ROWS_MOST", 1)
    found = policy_detail.detail(NOW, served.TO_B)
    assert len(found.rows) == 1
    assert found.row_count > 1


@pytest.mark.parametrize(
    ("port", "bits", "shown"), [(0, 0, "all"), (80, 16, "80"), (8080, 13, "8080-8087"), (0, 1, "0-32767")]
)
def test_ports_of_a_row_are_shown_as_people_write_them(port: int, bits: int, shown: str) -> None:
    assert policy_detail.ports(desired.RowKey(identity=0, protocol=6, port=port, port_bits=bits)) == shown


def test_an_identity_is_told_in_words_with_who_has_it() -> None:
    number = describe.identity_of(agents.CLIENT, NOW.state)
    found = identity_detail.detail(NOW, number)
    assert found.meaning == "pods in x with app=a"
    assert [(one.address, str(one.owner)) for one in found.holders] == [(agents.CLIENT, "Pod x/a")]
    assert found.rows == 1
    block = describe.identity_of(ipaddress.ip_address("203.0.113.5"), NOW.state)
    assert identity_detail.detail(NOW, block).prefixes == (served.BLOCK.cidr,)


@pytest.mark.parametrize(("number", "name"), [(0, "any"), (1, "host"), (2, "world"), (3, "unmanaged")])
def test_reserved_identities_have_names_whether_anybody_has_them_or_not(number: int, name: str) -> None:
    assert identity_detail.detail(NOW, number).reserved == name


def test_an_identity_that_nobody_has_is_not_found() -> None:
    with pytest.raises(errors.NotFound, match="identity list"):
        identity_detail.detail(NOW, 77)


def test_the_address_of_a_pod_tells_its_endpoint_and_the_policies_that_speak_of_it() -> None:
    found = address_detail.detail(NOW, agents.CLIENT)
    assert [str(owner) for owner in found.owners] == ["Pod x/a"]
    assert (found.endpoint, found.prefix) == (A.id, "10.0.0.2/32")
    assert [one.policy.name for one in found.selected_by] == ["from-a"]
    ((match),) = found.peer_of
    assert (match.policy.name, match.path) == ("to-b", "spec.ingress[0].from")
    assert match.because == "pods with app=a in x: x/a is selected (A20)"


def test_an_address_in_a_block_is_found_by_the_longest_prefix_and_one_in_an_exception_matches_nothing() -> None:
    found = address_detail.detail(NOW, served.HOST.addresses[0])
    assert [str(owner) for owner in found.owners] == ["Host h"]
    assert found.prefix == "203.0.113.0/24"
    assert [one.path for one in found.peer_of] == ["spec.ingress[1].from"]
    outside = address_detail.detail(NOW, ipaddress.ip_address("203.0.113.200"))
    assert outside.prefix == "203.0.113.128/25"
    assert outside.peer_of == ()


def test_an_address_nobody_has_is_the_worlds_and_no_error() -> None:
    found = address_detail.detail(NOW, ipaddress.ip_address("2001:db8::1"))
    assert (found.owners, found.reserved, found.prefix) == ((), "world", "")
    assert "no pod has it" in found.found


def test_addresses_of_services_and_nodes_tell_what_listens_there() -> None:
    found = address_detail.detail(NOW, served.SERVICE.cluster_addresses[0])
    assert [str(owner) for owner in found.owners] == ["Service x/web"]
    assert [(one.port, str(one.service)) for one in found.services] == [(80, "Service x/web")]
    node = address_detail.detail(NOW, served.NODE.addresses[0])
    assert [str(owner) for owner in node.owners] == ["Node n1"]
    assert [one.port for one in node.services] == [30080]


def test_a_rule_without_peers_speaks_of_every_address() -> None:
    open_ = resources.NetworkPolicy(
        namespace="y",
        name="open",
        directions=frozenset({net.Direction.INGRESS}),
        ingress=(resources.PolicyRule(),),
        egress=(resources.PolicyRule(),),
    )
    found = address_detail.detail(served.enforcement(open_), ipaddress.ip_address("192.0.2.99"))
    assert [(one.path, one.because) for one in found.peer_of] == [
        ("spec.ingress[0].from", "it is not given: anybody (A5)")
    ]


def test_a_service_is_shown_with_frontends_backends_and_what_each_set_allows_of_them() -> None:
    (found,) = service_detail.services(NOW)
    fronts = {(str(one.address), one.port): one.number for one in found.frontends}
    assert fronts.keys() == {("10.96.0.1", 80), ("192.0.2.1", 30080)}
    assert all(fronts.values())
    ((backend),) = found.backends
    assert (backend.address, backend.port, str(backend.owner)) == (agents.SERVER, 8000, "Pod x/b")
    ((one),) = found.classes
    assert (one.policy_set, one.allows, one.pods) == (A.egress_set, "all", ("x/a",))
    assert one.rule == "NetworkPolicy x/from-a egress[0]"


def test_a_service_without_backends_listens_in_vain_and_a_headless_one_nowhere() -> None:
    vain = dataclasses.replace(
        served.SERVICE,
        name="vain",
        cluster_addresses=(ipaddress.ip_address("10.96.0.2"),),
        selector=labels.Labels({"app": "none"}),
        ports=(resources.ServicePort(port=80, protocol=net.Protocol.TCP, target=80),),
    )
    headless = dataclasses.replace(vain, name="headless", cluster_addresses=(), ports=())
    found = {one.name: one for one in service_detail.services(served.enforcement(vain, headless))}
    assert [(str(one.address), one.number) for one in found["vain"].frontends] == [("10.96.0.2", 0)]
    assert (found["vain"].backends, found["vain"].classes) == ((), ())
    assert found["headless"].frontends == ()


def test_what_a_set_allows_of_some_backends_only_is_mixed() -> None:
    second = agents.pod("b2", ipaddress.ip_address("10.0.0.9"), labels=labels.Labels({"app": "b", "v": "2"}))
    second = dataclasses.replace(second, ports=(served.HTTP,))
    only_first = labels.LabelSelector(
        (*served.SELECT_B.requirements, labels.Requirement(key="v", operator=labels.Operator.DOES_NOT_EXIST))
    )
    rule = resources.PolicyRule(peers=(resources.PodPeer(pods=only_first),))
    narrow = dataclasses.replace(served.FROM_A, egress=(rule,))
    (found,) = service_detail.services(served.enforcement(second, narrow))
    assert [(one.allows, one.rule) for one in found.classes] == [("mixed", "")]
