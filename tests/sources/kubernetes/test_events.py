"""Sending Events: created, or counted up, by two verbs; each failure is one exception."""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Mapping
from typing import Any, cast

import pytest

from agent.model import resources
from agent.sources.kubernetes import access, connection, events, notices
from tests.support import agents

NOTICE = notices.Notice(
    policy=resources.ObjectRef("NetworkPolicy", "x", "p"), uid="u", name="p.12ab", message="spec: odd", count=0
)
EVENTS = "https://api/api/v1/namespaces/x/events"


@dataclasses.dataclass
class Server:
    """Access and transport in one: answers from a list, and remembers the requests."""

    answers: list[tuple[int, object] | Exception]
    requests: list[tuple[str, str, Mapping[str, object]]] = dataclasses.field(default_factory=list)
    closed: int = 0

    def configuration(self) -> Any:
        settings = {"BearerToken": {"key": "authorization", "value": "Bearer t"}}
        return types.SimpleNamespace(host="https://api", auth_settings=lambda: settings)

    def transport(self, _configuration: Any) -> Any:
        return self

    def request(self, method: str, url: str, *, headers: Mapping[str, str], body: Any, _request_timeout: Any) -> Any:
        assert headers["authorization"] == "Bearer t"
        assert (headers["Content-Type"] == "application/merge-patch+json") is (method == "PATCH")
        assert _request_timeout == (events.CONNECT_S, events.READ_S)
        self.requests.append((method, url, body))
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        status, content = answer
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        response = types.SimpleNamespace(status=status, read=lambda *_, **__: raw, close=lambda: None)
        return types.SimpleNamespace(response=response)

    def close(self) -> None:
        self.closed += 1


def sent(server: Server, notice: notices.Notice = NOTICE) -> int:
    clock = agents.ManualClock()
    return events.EventSender(access_=cast("access.Access", server), node="n1", clock=clock).send(notice)


def test_a_problem_becomes_an_event_about_the_policy() -> None:
    server = Server([(201, {"count": 1})])
    assert sent(server) == 1
    ((method, url, body),) = server.requests
    assert (method, url) == ("POST", EVENTS)
    assert body["metadata"] == {"name": "p.12ab", "namespace": "x"}
    assert body["involvedObject"] == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "namespace": "x",
        "name": "p",
        "uid": "u",
    }
    assert (body["type"], body["reason"], body["message"]) == ("Warning", "NotHonoured", "spec: odd")
    assert body["source"] == {"component": "nodewall", "host": "n1"}
    assert (body["reportingComponent"], body["reportingInstance"]) == ("nodewall", "n1")
    assert body["firstTimestamp"] == body["lastTimestamp"] == "2023-11-14T22:13:21Z"


@pytest.mark.parametrize(
    ("ref", "version", "namespace"),
    [
        (resources.ObjectRef("CiliumNetworkPolicy", "x", "p"), "cilium.io/v2", "x"),
        (resources.ObjectRef("ClusterNetworkPolicy", "", "p"), "policy.networking.k8s.io/v1alpha2", "default"),
    ],
)
def test_an_event_names_the_api_of_its_policy_and_one_about_no_namespace_is_in_default(
    ref: resources.ObjectRef, version: str, namespace: str
) -> None:
    server = Server([(409, {}), (200, {"count": 2})])
    assert sent(server, dataclasses.replace(NOTICE, policy=ref)) == 2
    (_, url, body), (_, patched, _) = server.requests
    assert url == f"https://api/api/v1/namespaces/{namespace}/events"
    assert patched == f"{url}/p.12ab"
    about = body["involvedObject"]
    assert isinstance(about, dict)
    assert (about["apiVersion"], about["kind"], about.get("namespace", "")) == (version, ref.kind, ref.namespace)
    assert body["metadata"] == {"name": "p.12ab", "namespace": namespace}


def test_one_that_another_node_or_an_earlier_agent_created_is_freshened_and_its_count_learned() -> None:
    server = Server([(409, {"reason": "AlreadyExists"}), (200, {"count": 4})])
    assert sent(server) == 4
    assert server.requests[1] == ("PATCH", f"{EVENTS}/p.12ab", {"lastTimestamp": "2023-11-14T22:13:21Z"})


def test_one_that_was_told_is_counted_up() -> None:
    server = Server([(200, {"count": 5})])
    assert sent(server, dataclasses.replace(NOTICE, count=4)) == 5
    assert server.requests == [
        ("PATCH", f"{EVENTS}/p.12ab", {"lastTimestamp": "2023-11-14T22:13:21Z", "count": 5}),
    ]


def test_one_that_expired_is_created_anew() -> None:
    server = Server([(404, {"reason": "NotFound"}), (201, {"count": 1})])
    assert sent(server, dataclasses.replace(NOTICE, count=4)) == 1
    assert [method for method, _, _ in server.requests] == ["PATCH", "POST"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, {"reason": "Forbidden", "message": "no"}), "403 Forbidden: no"),
        ((500, b"<html>"), "500 : <html>"),
        ((201, b"{"), "no Event"),
        (OSError("unreachable"), "OSError: unreachable"),
        (access.Unusable("no token"), "no token"),
    ],
)
def test_whatever_goes_wrong_is_one_failure_that_says_what(answer: Any, said: str) -> None:
    with pytest.raises(connection.Failed, match=said):
        sent(Server([answer]))


def test_credentials_are_read_anew_after_401() -> None:
    server = Server([(401, {"reason": "Unauthorized"})])
    with pytest.raises(connection.Failed, match="401"):
        sent(server)
    assert server.closed == 1


def test_names_cannot_lead_out_of_their_path() -> None:
    server = Server([(201, {})])
    sent(server, dataclasses.replace(NOTICE, policy=resources.ObjectRef("NetworkPolicy", "../y", "p")))
    assert server.requests[0][1] == "https://api/api/v1/namespaces/..%2Fy/events"
