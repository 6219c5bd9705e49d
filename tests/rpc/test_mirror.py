"""Values and messages with the same field names: nothing is lost, and no field can be forgotten on one side."""

from __future__ import annotations

import dataclasses
import ipaddress
import typing
from typing import Any

import pytest

from agent import errors
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.model import resources
from agent.rpc import details, mirror
from tests.rpc import test_convert
from tests.support import agents

REF = resources.ObjectRef("Service", "x", "web")
WORDS = details.PolicyWords(policy=agents.DENY.ref, rules=("from \x1b", "to"))
SIDE = details.EndpointSide(isolated=True, policy_set=2**32 - 1, rows=7, policies=(WORDS,))
MATCH = details.PolicyMatch(policy=agents.DENY.ref, path="spec.ingress[0].from", because="it is")
VALUES: tuple[tuple[object, type], ...] = (
    (
        details.EndpointDetail(
            endpoint=test_convert.ENDPOINT,
            ingress=SIDE,
            egress=details.EndpointSide(),
            ingress_ifindex=3,
            hold="new",
            recent={"ingress dropped": 2**40},
            services=(REF,),
        ),
        pb.EndpointDetail,
    ),
    (
        details.IdentityDetail(
            identity=test_convert.IDENTITY,
            reserved="world",
            meaning="m",
            holders=(details.Holder(address=agents.CLIENT, owner=REF),),
            prefixes=(ipaddress.ip_network("fd00::/8"), ipaddress.ip_network("10.0.0.0/8")),
            rows=3,
        ),
        pb.IdentityDetail,
    ),
    (
        details.PolicyDetail(
            policy=test_convert.POLICY,
            uid="u",
            subject="s",
            rules=(details.RuleWords(direction="ingress", index=1, text="t"),),
            endpoints=(details.SelectedEndpoint(id=1, namespace="x", pod="a", directions=("ingress",)),),
            rows=(
                details.PolicyRow(
                    policy_set=1,
                    direction="ingress",
                    identity=2,
                    peer="world",
                    protocol="TCP",
                    ports="80",
                    action="allow",
                    rule_index=1,
                ),
            ),
            row_count=2000,
        ),
        pb.PolicyDetail,
    ),
    (
        details.AddressDetail(
            address=ipaddress.ip_address("fd00::1"),
            owners=(REF,),
            endpoint=1,
            identity=2,
            reserved="world",
            prefix="fd00::/8",
            found="f",
            services=(details.ServicePoint(port=80, protocol="TCP", service=REF),),
            selected_by=(MATCH,),
            peer_of=(MATCH,),
        ),
        pb.AddressDetail,
    ),
    (
        details.Service(
            namespace="x",
            name="web",
            frontends=(details.ServiceFrontend(address=agents.CLIENT, port=80, protocol="TCP", number=9),),
            backends=(
                details.ServiceBackend(address=agents.SERVER, port=80, protocol="TCP", identity=300, owner=REF),
                details.ServiceBackend(address=agents.SERVER, port=81, protocol="UDP"),
            ),
            classes=(details.ServiceClass(number=9, policy_set=1, allows="all", rule="r", pods=("x/a",)),),
        ),
        pb.Service,
    ),
    (details.Setting(name="n", value="v", origin="default", changeable=True), pb.Setting),
    (details.MetricSample(name="n", kind="counter", labels={"a": "b"}, value=1.5, help="h"), pb.MetricSample),
)


@pytest.mark.parametrize(("value", "kind"), VALUES, ids=lambda one: getattr(one, "__name__", ""))
def test_every_detail_survives_the_wire(value: object, kind: Any) -> None:
    wire = mirror.message(value, kind).SerializeToString()
    assert mirror.value(kind.FromString(wire), type(value)) == value


@pytest.mark.parametrize(("value", "kind"), VALUES, ids=lambda one: getattr(one, "__name__", ""))
def test_every_field_of_a_detail_is_one_of_its_message_and_has_a_value_in_this_test(value: object, kind: type) -> None:
    names = [field.name for field in dataclasses.fields(value)]  # type: ignore[arg-type]  # details are dataclasses
    assert names == [field.name for field in kind.DESCRIPTOR.fields]  # type: ignore[attr-defined]  # see above
    assert [name for name in names if not getattr(value, name)] == []


def test_no_detail_is_missing_here() -> None:
    tested: set[type] = set()

    def visit(kind: typing.Any) -> None:
        if isinstance(kind, type) and kind.__module__ == details.__name__:
            tested.add(kind)
            for hint in typing.get_type_hints(kind).values():
                visit(hint)
        for argument in typing.get_args(kind):
            visit(argument)

    for value, _ in VALUES:
        visit(type(value))
    defined = {one for one in vars(details).values() if isinstance(one, type) and one.__module__ == details.__name__}
    assert tested == defined


def test_an_address_of_another_version_is_refused() -> None:
    with pytest.raises(errors.InvalidInput, match="different versions"):
        mirror.value(pb.AddressDetail(address="10.0.0.256"), details.AddressDetail)
