"""Model to protobuf and back: nothing is lost, and what this version does not know is refused."""

from __future__ import annotations

import dataclasses
import ipaddress

import pytest

from agent import errors
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.model import labels, net, resources, verdict
from agent.rpc import convert, views
from tests.support import agents

PROBLEM = resources.Problem(ref=agents.DENY.ref, path="spec.ingress[0]", reason="odd \x1b name")
STATUS = views.Status(
    node="n1",
    version="0.1.0",
    mode="socket+nfbpf",
    mode_reasons=("one", "two"),
    deny_mode="reject",
    hold_mode="auto",
    synced=True,
    revision=2**40,
    enforced_revision=2**40 - 1,
    generation=2**32 - 1,
    started_unix_ns=1,
    enforced_unix_ns=2,
    last_error="map is full",
    endpoints=3,
    identities=4,
    policies=5,
    policy_sets=6,
    rows=2**33,
    problems=(PROBLEM,),
    counters={"packet_denied": 2**50},
    source="/manifests",
    source_changed_unix_ns=7,
    enforced_source_digest="abc",
    sandboxes=8,
    held_endpoints=9,
    iptables="nft",
    last_repair="IPv4 filter: rewrote NW-FORWARD",
    last_repair_unix_ns=10,
    repair_error="the lock is held",
    proved=("by function: connect4 refused a call",),
    audited_endpoints=11,
    audited=("namespace x by flag",),
    not_ready=("datapath: the pin /x is gone", "inputs: no first whole list of pods"),
)
ENDPOINT = views.Endpoint(
    id=2**32 - 1,
    namespace="x",
    pod="a",
    uid="u",
    labels=labels.Labels({"app": "a", "empty": ""}),
    addresses=(agents.CLIENT, ipaddress.ip_address("fd00::2")),
    identities=(300, 301),
    netns_cookie=2**64 - 1,
    veth_ifindex=7,
    ingress_isolated=True,
    egress_isolated=True,
    ingress_policies=(agents.DENY.ref,),
    egress_policies=(agents.DENY.ref,),
    held=True,
    audit_ingress=(agents.DENY.ref,),
    audit_egress=(agents.DENY.ref,),
)
IDENTITY = views.Identity(
    id=300,
    namespace="x",
    labels=labels.Labels({"app": "a"}),
    namespace_labels=labels.Labels({"team": "t"}),
    named_ports=("http=80/TCP",),
    blocks=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::/0")),
    addresses=(agents.CLIENT,),
    address_count=70,
)
POLICY = views.Policy(
    ref=agents.DENY.ref,
    directions=("ingress", "egress"),
    selected_endpoints=2,
    ingress_rules=3,
    egress_rules=4,
    problems=(PROBLEM,),
    audit=("flag",),
)
HOST = verdict.FlowEnd(
    address=ipaddress.ip_address("fd00::9"), port=1, identity=2, owner=resources.ObjectRef("Node", "", "n2")
)
VERDICTS = (
    agents.flow(),
    agents.flow(rule=agents.RULE, isolating=(), verdict=verdict.Verdict.FORWARDED, reason=verdict.Reason.RULE_ALLOWED),
    agents.flow(source=HOST, layer=verdict.Layer.SOCKET, process=verdict.Process(pid=9, command="cu\x1brl")),
    agents.flow(dialled=HOST, joined=True, repeats=7, match=verdict.Match.L3_L4),
    agents.flow(protocol=89, direction=net.Direction.EGRESS, reason=verdict.Reason.SOURCE_SPOOFED),
)


@pytest.mark.parametrize("status", [STATUS, views.Status(node="n", version="v", mode="memory")])
def test_a_status_survives_the_wire(status: views.Status) -> None:
    message = pb.Status.FromString(convert.status_message(status).SerializeToString())
    assert convert.status(message) == status


def test_every_field_of_a_status_has_a_value_in_this_test_and_so_cannot_be_forgotten() -> None:
    empty = views.Status(node="", version="", mode="")
    assert [
        field.name for field in dataclasses.fields(STATUS) if getattr(STATUS, field.name) == getattr(empty, field.name)
    ] == []


def test_endpoints_identities_and_policies_survive_the_wire() -> None:
    bare = views.Endpoint(id=1, namespace="x", pod="a", uid="")
    for endpoint in (ENDPOINT, bare):
        assert (
            convert.endpoint(pb.Endpoint.FromString(convert.endpoint_message(endpoint).SerializeToString())) == endpoint
        )
    for identity in (IDENTITY, views.Identity(id=1)):
        assert (
            convert.identity(pb.Identity.FromString(convert.identity_message(identity).SerializeToString())) == identity
        )
    for policy in (POLICY, views.Policy(ref=agents.DENY.ref)):
        assert convert.policy(pb.Policy.FromString(convert.policy_message(policy).SerializeToString())) == policy


@pytest.mark.parametrize("item", [*VERDICTS, verdict.Lost(count=2**40, where="ring")])
def test_verdicts_and_losses_survive_the_wire(item: verdict.Item) -> None:
    message = convert.item_message(item).SerializeToString()
    assert convert.item(pb.WatchVerdictsResponse.FromString(message)) == item


@pytest.mark.parametrize("reason", verdict.Reason)
@pytest.mark.parametrize("kind", verdict.Verdict)
def test_every_verdict_and_reason_has_a_name_on_the_wire(kind: verdict.Verdict, reason: verdict.Reason) -> None:
    event = agents.flow(verdict=kind, reason=reason)
    assert convert.event(convert.verdict_message(event)) == event


@pytest.mark.parametrize(
    "wanted",
    [
        verdict.Filter(),
        verdict.Filter(raw=True),
        verdict.Filter(verdict=verdict.Verdict.DROPPED, namespace="x", pod="a"),
    ],
)
def test_a_filter_survives_the_wire(wanted: verdict.Filter) -> None:
    message = convert.watch_message(wanted, follow=True, last=3)
    assert (message.follow, message.last) == (True, 3)
    assert convert.wanted(message) == wanted


def test_what_another_version_says_is_refused_and_not_guessed() -> None:
    message = convert.verdict_message(agents.flow())
    message.reason = "MOON_PHASE"
    with pytest.raises(errors.InvalidInput, match="MOON_PHASE"):
        convert.event(message)
    with pytest.raises(errors.InvalidInput, match="different versions"):
        convert.item(pb.WatchVerdictsResponse())
    message = convert.verdict_message(agents.flow())
    message.source.address = "10.0.0.256"
    with pytest.raises(errors.InvalidInput, match=r"10\.0\.0\.256"):
        convert.event(message)
