"""The verdict stream's request and items, there and back; what this version does not know is refused."""

from __future__ import annotations

import ipaddress

import pytest

from agent import errors
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.model import net, resources, verdict
from agent.rpc import convert
from tests.support import agents

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


@pytest.mark.parametrize("item", [*VERDICTS, verdict.Lost(count=2**40, where="ring")])
def test_verdicts_and_losses_survive_the_wire(item: verdict.Item) -> None:
    message = convert.item_message(item).SerializeToString()
    assert convert.item(pb.WatchVerdictsResponse.FromString(message)) == item


@pytest.mark.parametrize(("number", "name"), [(6, "TCP"), (58, "ICMPV6"), (89, "")])
def test_a_verdict_says_its_protocol_by_number_and_by_name(number: int, name: str) -> None:
    said = convert.item_message(agents.flow(protocol=number)).verdict
    assert (said.protocol, said.protocol_name) == (number, name)


@pytest.mark.parametrize("reason", verdict.Reason)
@pytest.mark.parametrize("kind", verdict.Verdict)
def test_every_verdict_and_reason_has_its_name_on_the_wire(kind: verdict.Verdict, reason: verdict.Reason) -> None:
    event = agents.flow(verdict=kind, reason=reason)
    message = convert.item_message(event)
    assert (message.verdict.verdict, message.verdict.reason) == (kind.name, reason.name)
    assert convert.item(message) == event


@pytest.mark.parametrize(
    "wanted",
    [
        verdict.Filter(),
        verdict.Filter(raw=True),
        *(verdict.Filter(verdict=kind, namespace="x", pod="a") for kind in verdict.Verdict),
    ],
)
def test_a_filter_survives_the_wire(wanted: verdict.Filter) -> None:
    message = convert.watch_message(wanted, follow=True, last=3)
    assert (message.follow, message.last) == (True, 3)
    assert convert.wanted(message) == wanted


def test_what_another_version_says_is_refused_and_not_guessed() -> None:
    message = convert.item_message(agents.flow())
    message.verdict.reason = "MOON_PHASE"
    with pytest.raises(errors.InvalidInput, match="MOON_PHASE"):
        convert.item(message)
    with pytest.raises(errors.InvalidInput, match="different versions"):
        convert.item(pb.WatchVerdictsResponse())
    message = convert.item_message(agents.flow())
    message.verdict.source.address = "10.0.0.256"
    with pytest.raises(errors.InvalidInput, match=r"10\.0\.0\.256"):
        convert.item(message)
