"""A verdict that is wrong in any way, or missing, does not pass for what the evaluator says (rules A14 to A16, A51)."""

from __future__ import annotations

import dataclasses
import ipaddress
from typing import Any

import pytest

from agent import snapshot as snapshot_
from agent.model import audit, labels, net, resources, verdict
from agent.policy import evaluator
from tests.system import attribution

CLIENT, SERVER, OTHER, FRONTEND = (ipaddress.ip_address(f"10.0.0.{number}") for number in (2, 3, 4, 100))
PORT = 80
AUDITED = audit.Audit(flags=frozenset({audit.Target("x")}))
SERVICE = resources.Service(namespace="x", name="web", cluster_addresses=(FRONTEND,))
CALLER, SERVING, BESIDE = (
    resources.Pod(
        namespace="x", name=name, uid=name, node=node, labels=labels.Labels({"role": name}), addresses=(address,)
    )
    for name, node, address in (("a", "n1", CLIENT), ("b", "n2", SERVER), ("c", "n2", OTHER))
)


def _policy(name: str, of: str, direction: net.Direction, allowed: str = "") -> resources.NetworkPolicy:
    """Return a policy that isolates the pod with a role, but for the pod with the role `allowed`."""
    rules = (resources.PolicyRule(peers=(resources.PodPeer(pods=_role(allowed)),), ports=None),) if allowed else ()
    made = resources.NetworkPolicy(namespace="x", name=name, subject=_role(of), directions=frozenset({direction}))
    if direction is net.Direction.EGRESS:
        return dataclasses.replace(made, egress=rules)
    return dataclasses.replace(made, ingress=rules)


def _role(name: str) -> labels.LabelSelector:
    requirement = labels.Requirement(key="role", operator=labels.Operator.IN, values=frozenset({name}))
    return labels.LabelSelector(requirements=(requirement,))


NO_EGRESS, QUARANTINE = (_policy(name, "a", net.Direction.EGRESS) for name in ("no-egress", "quarantine"))
CLOSED = _policy("closed", "b", net.Direction.INGRESS)
ONLY_B, ONLY_C = (_policy(f"only-{name}", "a", net.Direction.EGRESS, name) for name in ("b", "c"))


def _cluster(*policies: resources.NetworkPolicy) -> snapshot_.Snapshot:
    return snapshot_.build((resources.Namespace(name="x"), CALLER, SERVING, BESIDE, SERVICE, *policies))


def _flow(server: resources.Pod = SERVING) -> evaluator.Flow:
    return evaluator.Flow(
        source=CALLER,
        destination=server,
        source_address=CLIENT,
        destination_address=server.addresses[0],
        protocol=net.Protocol.TCP,
        port=PORT,
    )


def _asked(*policies: resources.NetworkPolicy, audits: audit.Audit = audit.NOTHING) -> attribution.Asked:
    return attribution.of_pair("a -> b", _cluster(*policies), _flow(), audits)


def _calls(*policies: resources.NetworkPolicy, audits: audit.Audit = audit.NOTHING) -> attribution.Asked:
    """Ask for a connection to the Service whose backends are b and c."""
    flow = dataclasses.replace(_flow(), destination=None, destination_address=FRONTEND)
    dialled = attribution.Dialled(service=resources.ObjectRef("Service", "x", "web"), flow=flow)
    flows = [_flow(SERVING), _flow(BESIDE)]
    return attribution.of_service("a -> web", _cluster(*policies), dialled, flows, audits)


def _event(direction: net.Direction, *isolating: resources.NetworkPolicy, **more: Any) -> verdict.VerdictEvent:
    """Return what is told of a connection from a to b that is denied; `more` replaces what is so."""
    right = verdict.VerdictEvent(
        time_ns=1,
        node="n1" if direction is net.Direction.EGRESS else "n2",
        verdict=verdict.Verdict.DROPPED,
        reason=verdict.Reason.POLICY_DENIED,
        direction=direction,
        layer=verdict.Layer.PACKET,
        protocol=net.Protocol.TCP.value,
        source=verdict.FlowEnd(address=CLIENT, port=40000, identity=300, namespace="x", pod="a"),
        destination=_end("b", SERVER),
        generation=1,
        isolating=tuple(one.ref for one in isolating),
    )
    return dataclasses.replace(right, **more)


def _end(pod: str, address: net.Address, owner: resources.ObjectRef | None = None) -> verdict.FlowEnd:
    return verdict.FlowEnd(address=address, port=PORT, identity=300, namespace="x" if pod else "", pod=pod, owner=owner)


def _egress(*isolating: resources.NetworkPolicy, **more: Any) -> verdict.VerdictEvent:
    return _event(net.Direction.EGRESS, *isolating, **more)


def _ingress(*isolating: resources.NetworkPolicy, **more: Any) -> verdict.VerdictEvent:
    return _event(net.Direction.INGRESS, *isolating, **more)


TO_SERVICE = {
    "destination": _end("", FRONTEND, resources.ObjectRef("Service", "x", "web")),
    "reason": verdict.Reason.SERVICE_DENIED,
    "layer": verdict.Layer.SOCKET,
}
TO_C = {"destination": _end("c", OTHER)}
WOULD = {"verdict": verdict.Verdict.AUDIT}


def _summary(found: attribution.Comparison) -> tuple[int, int, int]:
    return len(found.agreed), len(found.silent), len(found.wrong)


@pytest.mark.parametrize(
    ("policies", "told"),
    [
        ((NO_EGRESS,), _egress(NO_EGRESS)),
        ((NO_EGRESS, QUARANTINE), _egress(NO_EGRESS, QUARANTINE)),
        ((NO_EGRESS, QUARANTINE), _egress(QUARANTINE, NO_EGRESS)),
        ((ONLY_C,), _egress(ONLY_C)),
        ((CLOSED,), _ingress(CLOSED)),
        ((ONLY_B, CLOSED), _ingress(CLOSED)),
        ((NO_EGRESS, CLOSED), _egress(NO_EGRESS)),
        ((NO_EGRESS,), _egress(NO_EGRESS, layer=verdict.Layer.SOCKET)),
    ],
)
def test_a_denial_that_names_direction_and_isolating_policies_agrees(
    policies: tuple[resources.NetworkPolicy, ...], told: verdict.VerdictEvent
) -> None:
    assert _summary(attribution.compare([_asked(*policies)], [told, told])) == (1, 0, 0)


WRONG = {
    "another policy": _egress(QUARANTINE),
    "one policy too few": _egress(),
    "one policy too many": _egress(NO_EGRESS, QUARANTINE),
    "a policy twice": _egress(NO_EGRESS, NO_EGRESS),
    "the other direction": _ingress(NO_EGRESS),
    "the other direction's policy": _ingress(CLOSED),
    "another reason": _egress(NO_EGRESS, reason=verdict.Reason.ENDPOINT_HELD),
    "a rule": _egress(NO_EGRESS, rule=verdict.RuleRef(NO_EGRESS.ref, net.Direction.EGRESS, 0)),
    "another node": _egress(NO_EGRESS, node="n2"),
    "another pod at the address": _egress(NO_EGRESS, destination=_end("c", SERVER)),
    "no pod": _egress(NO_EGRESS, destination=_end("", SERVER)),
    "audit": _egress(NO_EGRESS, **WOULD),
}


@pytest.mark.parametrize("told", WRONG.values(), ids=WRONG)
def test_a_denial_that_says_anything_else_is_wrong_and_no_answer(told: verdict.VerdictEvent) -> None:
    found = attribution.compare([_asked(NO_EGRESS, CLOSED)], [told])
    assert _summary(found) == (0, 1, 1)
    assert found.wrong[0].startswith("a -> b: told ")
    right = attribution.compare([_asked(NO_EGRESS, CLOSED)], [told, _egress(NO_EGRESS)])
    assert _summary(right) == (1, 0, 1), "the right verdict beside it excuses nothing"


@pytest.mark.parametrize(
    "told",
    [
        [],
        [_egress(verdict=verdict.Verdict.FORWARDED, reason=verdict.Reason.RULE_ALLOWED)],
        [_egress(NO_EGRESS, **TO_C)],
        [_egress(NO_EGRESS, protocol=net.Protocol.UDP.value)],
        [_egress(NO_EGRESS, destination=dataclasses.replace(_end("b", SERVER), port=PORT + 1))],
    ],
    ids=["nothing", "only what passed", "only of another pod", "only of another protocol", "only of another port"],
)
def test_who_was_told_nothing_is_silent(told: list[verdict.VerdictEvent]) -> None:
    found = attribution.compare([_asked(NO_EGRESS)], told)
    assert _summary(found) == (0, 1, 0)
    assert "NetworkPolicy x/no-egress" in str(found.silent[0])


def test_of_what_is_allowed_no_denial_may_be_told() -> None:
    asked = _asked(ONLY_B)
    assert _summary(attribution.compare([asked], [])) == (0, 0, 0)
    assert _summary(attribution.compare([asked], [_egress(ONLY_B)])) == (0, 0, 1)


def test_of_two_who_ask_each_has_an_answer_of_its_own() -> None:
    """One who has no name of his own would be answered by the other."""
    cluster = _cluster(NO_EGRESS)
    asked = [attribution.of_pair("a -> it", cluster, _flow(pod), audit.NOTHING) for pod in (SERVING, BESIDE)]
    found = attribution.compare(asked, [_egress(NO_EGRESS)])
    assert (found.agreed, found.silent) == (tuple(asked[:1]), tuple(asked[1:]))


def test_each_side_that_a_policy_in_audit_would_deny_is_told() -> None:
    asked = _asked(NO_EGRESS, CLOSED, audits=AUDITED)
    both = [_egress(NO_EGRESS, **WOULD), _ingress(CLOSED, **WOULD)]
    assert _summary(attribution.compare([asked], both)) == (1, 0, 0)
    assert _summary(attribution.compare([asked], both[:1])) == (0, 1, 0)
    assert _summary(attribution.compare([asked], [*both, _egress(NO_EGRESS)])) == (1, 0, 1)
    assert _summary(attribution.compare([asked], [_egress(QUARANTINE, **WOULD), both[1]])) == (0, 1, 1)


def test_a_call_to_a_service_is_told_where_it_was_turned_away() -> None:
    """Rule A42: at the Service where no backend is allowed, else at the backend that was drawn."""
    asked = _calls(NO_EGRESS)
    for told in (_egress(NO_EGRESS, **TO_SERVICE), _egress(NO_EGRESS), _egress(NO_EGRESS, **TO_C)):
        assert _summary(attribution.compare([asked], [told])) == (1, 0, 0)
    assert _summary(attribution.compare([asked], [])) == (0, 1, 0)
    assert _summary(attribution.compare([asked], [_egress(QUARANTINE, **TO_SERVICE)])) == (0, 1, 1)
    as_backend = TO_SERVICE | {"reason": verdict.Reason.POLICY_DENIED}
    assert _summary(attribution.compare([asked], [_egress(NO_EGRESS, **as_backend)])) == (0, 1, 1)


def test_of_a_service_with_an_allowed_backend_only_the_other_is_denied() -> None:
    asked = _calls(ONLY_C)
    assert _summary(attribution.compare([asked], [_egress(ONLY_C)])) == (1, 0, 0)
    assert _summary(attribution.compare([asked], [_egress(ONLY_C, **TO_C)])) == (0, 1, 1)
    assert _summary(attribution.compare([asked], [_egress(ONLY_C, **TO_SERVICE)])) == (0, 1, 1)


def test_a_call_to_a_service_in_audit_is_told_at_the_service_or_at_the_backend() -> None:
    """Rule A51: by the call alone, where its packet comes too late to be joined with it."""
    asked = _calls(NO_EGRESS, audits=AUDITED)
    for told in (
        _egress(NO_EGRESS, **TO_SERVICE | WOULD),
        _egress(NO_EGRESS, **WOULD),
        _egress(NO_EGRESS, **TO_C | WOULD),
    ):
        assert _summary(attribution.compare([asked], [told])) == (1, 0, 0)
    assert _summary(attribution.compare([asked], [_egress(NO_EGRESS, **TO_SERVICE)])) == (0, 1, 1)
    one_left = _calls(ONLY_C, audits=AUDITED)
    assert _summary(attribution.compare([one_left], [_egress(ONLY_C, **TO_SERVICE | WOULD)])) == (0, 1, 1)
    assert _summary(attribution.compare([one_left], [_egress(ONLY_C, **WOULD)])) == (1, 0, 0)


def test_a_rule_that_denies_is_named_and_nobody_else() -> None:
    deny = resources.PolicyRule(action=resources.RuleAction.DENY)
    closed = dataclasses.replace(CLOSED, ingress=(deny,), kind="CiliumNetworkPolicy")
    rule = verdict.RuleRef(policy=closed.ref, direction=net.Direction.INGRESS, index=0)
    right = _event(net.Direction.INGRESS, reason=verdict.Reason.POLICY_DENY, rule=rule)
    assert attribution.compare([_asked(closed)], [right]).agreed
    for wrong in (
        _event(net.Direction.INGRESS, closed, reason=verdict.Reason.POLICY_DENY, rule=rule),
        _event(net.Direction.INGRESS, closed),
    ):
        assert attribution.compare([_asked(closed)], [wrong]).wrong
