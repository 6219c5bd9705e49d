"""Every filter against a naive one over the same flows, and what is refused."""

from __future__ import annotations

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from agent import errors
from agent.api.flow import flow_pb2 as pb
from agent.hubble import filters, flows, records
from tests.hubble import naive, variety

RECORDS = variety.flows()
MESSAGES = tuple(flows.flow(record, version="0") for record in RECORDS)
ONE = pb.FlowFilter
TABLE: tuple[pb.FlowFilter, ...] = (
    ONE(source_ip=["10.0.0.2"]),
    ONE(source_ip=["10.0.0.0/23", "fd00::/16"]),
    ONE(destination_ip=["203.0.113.7", "2001:db8::7"]),
    ONE(destination_ip=["2001:0db8:0::/32"]),
    ONE(destination_ip=["0.0.0.0/0"]),
    ONE(source_pod=["x/"]),
    ONE(source_pod=["x/web", "y/w"]),
    ONE(source_pod=["/"]),
    ONE(source_pod=["/web-2"]),
    ONE(source_pod=["lo"]),
    ONE(destination_pod=["x/db-1"]),
    ONE(destination_pod=["nowhere/"]),
    ONE(verdict=["DROPPED"]),
    ONE(verdict=["FORWARDED", "AUDIT"]),
    ONE(verdict=["REDIRECTED"]),
    ONE(event_type=[pb.EventTypeFilter(type=5)]),
    ONE(event_type=[pb.EventTypeFilter(type=1)]),
    ONE(event_type=[pb.EventTypeFilter(type=1, match_sub_type=True, sub_type=132), pb.EventTypeFilter(type=129)]),
    ONE(event_type=[pb.EventTypeFilter(type=5, match_sub_type=True, sub_type=0)]),
    ONE(source_fqdn=["api.example.com"]),
    ONE(destination_fqdn=["*.example.com"]),
    ONE(destination_fqdn=["API.*.com.", "n?"]),
    ONE(destination_fqdn=["n*"]),
    ONE(source_label=["app=web"]),
    ONE(source_label=["k8s:app=web,tier=front", "reserved:world"]),
    ONE(destination_label=["app!=web"]),
    ONE(destination_label=["!app"]),
    ONE(destination_label=["io.kubernetes.pod.namespace=y"]),
    ONE(destination_label=["reserved:host"]),
    ONE(destination_label=["reserved:remote-node"]),
    ONE(protocol=["tcp"]),
    ONE(protocol=["UDP", "sctp"]),
    ONE(protocol=["icmp"]),
    ONE(protocol=["ICMPv4"]),
    ONE(protocol=["icmpv6"]),
    ONE(source_port=["53"]),
    ONE(destination_port=["80", "443"]),
    ONE(destination_port=["0"]),
    ONE(reply=[True]),
    ONE(reply=[False]),
    ONE(source_service=["kube-system/"]),
    ONE(destination_service=["x/we", "kube-system/dns"]),
    ONE(source_identity=[300, 2]),
    ONE(destination_identity=[1]),
    ONE(node_name=["n1"]),
    ONE(node_name=["n*"]),
    ONE(node_name=["default/"]),
    ONE(node_name=["other/n1", "m*"]),
    ONE(ip_version=["IPv4"]),
    ONE(ip_version=["IPv6"]),
    ONE(ip_version=["IP_NOT_USED"]),
    ONE(uuid=[RECORDS[7].uuid, "nonsense"]),
    ONE(dns_query=["^api[.]"]),
    ONE(dns_query=["", "nothing"]),
    ONE(dns_query=[r"(?i)EXAMPLE\.com\.$", "^n"], verdict=["DROPPED"]),
    ONE(traffic_direction=["INGRESS"]),
    ONE(traffic_direction=["EGRESS"]),
    ONE(drop_reason_desc=["POLICY_DENIED"]),
    ONE(drop_reason_desc=["POLICY_DENY", "INVALID_SOURCE_IP"]),
    ONE(drop_reason_desc=[199]),  # type: ignore[list-item]  # a number this side has no name for
    ONE(source_cluster_name=["default"]),
    ONE(destination_cluster_name=["d*", "other"]),
    ONE(source_pod=["x/"], destination_port=["80"], verdict=["DROPPED"]),
    ONE(source_label=["app=web"], destination_label=["app=db"], protocol=["tcp"], ip_version=["IPv4"]),
    ONE(),
)


@pytest.mark.parametrize("wanted", TABLE, ids=lambda wanted: str(wanted).replace("\n", " ").strip() or "empty")
def test_a_filter_admits_what_a_naive_one_admits(wanted: pb.FlowFilter) -> None:
    admitted = [record.serial for record in RECORDS if filters.predicate(wanted)(record)]
    assert admitted == [number for number, flow in enumerate(MESSAGES) if naive.admits(wanted, flow)]


def test_every_field_is_in_the_table_and_every_filter_but_the_hopeless_admits_some_and_not_all() -> None:
    used = {field.name for wanted in TABLE for field, _ in wanted.ListFields()}
    assert used == {field.name for field in pb.FlowFilter.DESCRIPTOR.fields}
    telling = {
        field.name
        for wanted in TABLE
        if len(wanted.ListFields()) == 1
        if 0 < sum(naive.admits(wanted, flow) for flow in MESSAGES) < len(MESSAGES)
        for field, _ in wanted.ListFields()
    }
    assert used - telling == {"reply", "node_name"}  # one node, and no replies


def test_allow_lists_add_up_and_deny_lists_take_away() -> None:
    allow = [ONE(source_pod=["x/"]), ONE(destination_pod=["x/"])]
    deny = [ONE(verdict=["FORWARDED"]), ONE(protocol=["udp"])]
    wanted = filters.wanted(allow, deny)
    assert [record.serial for record in RECORDS if wanted(record)] == [
        number
        for number, flow in enumerate(MESSAGES)
        if any(naive.admits(one, flow) for one in allow) and not any(naive.admits(one, flow) for one in deny)
    ]
    assert all(map(filters.wanted([], []), RECORDS))
    assert not any(map(filters.wanted([ONE()], [ONE()]), RECORDS))


def stranger(number: int) -> bytes:
    """Return a message whose field `number`, of no type in particular, says 1."""
    file = descriptor_pb2.FileDescriptorProto(name=f"stranger{number}.proto", syntax="proto3")
    message = file.message_type.add(name=f"Stranger{number}")
    message.field.add(name="it", number=number, type="TYPE_UINT32", label="LABEL_OPTIONAL")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    made = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"Stranger{number}"))(it=1)
    return made.SerializeToString()


@pytest.mark.parametrize("number", sorted({*filters.UNANSWERED, 4, 41, 100, 12345}))
def test_a_field_this_agent_cannot_answer_is_refused_by_its_number(number: int) -> None:
    wanted = ONE.FromString(ONE(source_pod=["x/"]).SerializeToString() + stranger(number))
    with pytest.raises(errors.InvalidInput, match=rf"FlowFilter field {number}\b") as raised:
        filters.predicate(wanted)
    assert raised.value.value == filters.UNANSWERED.get(number, "unknown")


def test_a_field_inside_a_field_is_refused_too() -> None:
    inner = pb.EventTypeFilter.FromString(pb.EventTypeFilter(type=1).SerializeToString() + stranger(9))
    with pytest.raises(errors.InvalidInput, match="EventTypeFilter field 9"):
        filters.predicate(ONE(event_type=[inner]))


@pytest.mark.parametrize(
    "wanted",
    [
        ONE(source_ip=["10.0.0.300"]),
        ONE(source_ip=[""]),
        ONE(source_pod=[""]),
        ONE(protocol=["http"]),
        ONE(source_port=["http"]),
        ONE(source_port=["-1"]),
        ONE(source_port=["९"]),
        ONE(source_label=["app=web=x"]),
        ONE(source_label=["a in b"]),
        ONE(source_identity=range(filters.VALUES_MOST + 1)),
        ONE(dns_query=["a("]),
        ONE(dns_query=["(?=a)"]),
        ONE(dns_query=["a{1001}"]),
    ],
    ids=lambda wanted: str(wanted)[:40],
)
def test_what_cannot_be_read_is_refused_and_never_passed_over(wanted: pb.FlowFilter) -> None:
    with pytest.raises(errors.InvalidInput):
        filters.predicate(wanted)


def test_too_many_filters_are_refused() -> None:
    with pytest.raises(errors.InvalidInput, match="blacklist"):
        filters.wanted([], [ONE()] * (filters.FILTERS_MOST + 1))


def test_regular_expressions_of_a_request_are_bounded() -> None:
    asking = [ONE(dns_query=["a"] * filters.EXPRESSIONS_MOST)]
    filters.wanted(asking, [ONE()])
    with pytest.raises(errors.InvalidInput, match="dns_query"):
        filters.wanted(asking, [ONE(dns_query=["a"])])


def test_a_pod_cannot_label_itself_into_another_namespace_or_out_of_the_cluster() -> None:
    forged = variety.pod("x", "p", "10.0.0.9", 300, **{records.NAMESPACE_LABEL: "kube-system"})
    assert records.selectable(forged, "n1")[records.NAMESPACE_LABEL] == "x"
    assert "reserved:world" not in records.selectable(forged, "n1")
