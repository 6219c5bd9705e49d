"""A small synchronous client of one agent, for agentctl and the lab.

What the agent refuses is raised as it raised it (InvalidInput, NotFound); every other failure is an Unreachable that
names the socket and says what to do. No gRPC status leaves this module.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self

import grpc

from agent import errors, patience
from agent import snapshot as snapshot_
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.api.nodewall.agent.v1 import agent_pb2_grpc as pb_grpc
from agent.datapath import tracing
from agent.model import audit as audit_
from agent.model import verdict
from agent.rpc import audits, convert, details, mirror, refusals, snapshots, sockets, traces, views
from agent.rpc import names as names_

TIMEOUT_S = 5.0
KERNEL_TIMEOUT_S = 30.0
"""Reading a large node's rules back takes seconds."""
SNAPSHOT_TIMEOUT_S = 60.0
"""Writing down a cluster of 10,000 pods takes seconds, on a busy node many."""
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)
"""A list of a large cluster's identities is longer than gRPC's 4 MiB; and an agent that is back after half a minute is
asked at once, where gRPC would by then try every ten seconds: a local socket costs nothing to try."""


class AgentClient:
    """One agent, by its socket; a context manager. No connection is made before the first question."""

    def __init__(self, socket: pathlib.Path, *, timeout_s: float = TIMEOUT_S) -> None:
        """Each question fails after `timeout_s` seconds."""
        self.socket = socket
        self._timeout_s = patience.seconds(timeout_s)
        self._channel = grpc.insecure_channel(sockets.target(socket.absolute()), options=OPTIONS)
        self._stub = pb_grpc.AgentStub(self._channel)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def status(self) -> views.Status:
        """Return what runs, since when, and what is wrong; raises Unreachable, as all of these do."""
        return mirror.value(self._ask(self._stub.GetStatus, pb.GetStatusRequest()), views.Status)

    def endpoints(self) -> tuple[details.Endpoint, ...]:
        """Return the pods of the node that policy is enforced on."""
        answer = self._ask(self._stub.ListEndpoints, pb.ListEndpointsRequest())
        return tuple(mirror.value(one, details.Endpoint) for one in answer.endpoints)

    def identities(self) -> tuple[details.Identity, ...]:
        """Return identities and the facts they stand for."""
        answer = self._ask(self._stub.ListIdentities, pb.ListIdentitiesRequest())
        return tuple(mirror.value(one, details.Identity) for one in answer.identities)

    def policies(self) -> tuple[details.Policy, ...]:
        """Return policies, whom they select on the node, and their problems."""
        answer = self._ask(self._stub.ListPolicies, pb.ListPoliciesRequest())
        return tuple(mirror.value(one, details.Policy) for one in answer.policies)

    def endpoint(self, name: str) -> details.EndpointDetail:
        """Return a pod of the node by NAMESPACE/NAME, unique name or id; raises InvalidInput, NotFound."""
        return mirror.value(self._ask(self._stub.GetEndpoint, pb.GetEndpointRequest(name=name)), details.EndpointDetail)

    def identity(self, number: int) -> details.IdentityDetail:
        """Return an identity; raises NotFound."""
        return mirror.value(self._ask(self._stub.GetIdentity, pb.GetIdentityRequest(id=number)), details.IdentityDetail)

    def policy(self, name: str) -> details.PolicyDetail:
        """Return a policy by NAMESPACE/NAME or unique name; raises InvalidInput, NotFound."""
        return mirror.value(self._ask(self._stub.GetPolicy, pb.GetPolicyRequest(name=name)), details.PolicyDetail)

    def address(self, text: str) -> details.AddressDetail:
        """Return who an address is; raises InvalidInput."""
        answer = self._ask(self._stub.GetAddress, pb.GetAddressRequest(address=text))
        return mirror.value(answer, details.AddressDetail)

    def services(self) -> tuple[details.Service, ...]:
        """Return the Services of the cluster."""
        answer = self._ask(self._stub.ListServices, pb.ListServicesRequest())
        return tuple(mirror.value(one, details.Service) for one in answer.services)

    def config(self) -> tuple[details.Setting, ...]:
        """Return what the agent was told at its start."""
        answer = self._ask(self._stub.GetConfig, pb.GetConfigRequest())
        return tuple(mirror.value(one, details.Setting) for one in answer.settings)

    def set_log_level(self, level: str) -> str:
        """Change how much the agent logs; return the level before. Raises InvalidInput."""
        return str(self._ask(self._stub.SetLogLevel, pb.SetLogLevelRequest(level=level)).before)

    def metrics(self) -> tuple[details.MetricSample, ...]:
        """Return the samples of a scrape."""
        answer = self._ask(self._stub.GetMetrics, pb.GetMetricsRequest())
        return tuple(mirror.value(one, details.MetricSample) for one in answer.samples)

    def set_audit(self, target: audit_.Target, *, enable: bool) -> views.AuditChange:
        """Put a policy or a namespace into audit, or take it out."""
        answer = self._ask(self._stub.SetAudit, audits.set_message(target, enable=enable))
        return mirror.value(answer, views.AuditChange)

    def audit(self) -> tuple[tuple[views.AuditEntry, ...], str]:
        """Return what is in audit, and why that may not be what it was before the agent's start ("": it is)."""
        answer = self._ask(self._stub.ListAudit, pb.ListAuditRequest())
        return tuple(mirror.value(one, views.AuditEntry) for one in answer.entries), answer.trouble

    def watch_verdicts(
        self, *, follow: bool, last: int = 0, wanted: verdict.Filter = verdict.EVERY_VERDICT
    ) -> Generator[verdict.Item, None, None]:
        """Yield the `last` stored verdicts (0 without `follow`: all), then, with `follow`, those to come.

        Close it to end following. Raises InvalidInput.
        """
        self._require()
        request = convert.watch_message(wanted, follow=follow, last=last)
        call = self._stub.WatchVerdicts(request, timeout=None if follow else self._timeout_s)
        try:
            for message in call:
                yield convert.item(message)
        except grpc.RpcError as error:
            raise refusals.read(error) or self._unreachable(error) from error
        finally:
            call.cancel()

    def learned(self, pod: str = "") -> tuple[names_.LearnedAddress, ...]:
        """Return what this node's pods, or one, were told by DNS; raises InvalidInput, NotFound."""
        self._require()
        call = self._stub.ListLearned(pb.ListLearnedRequest(pod=pod), timeout=patience.seconds(KERNEL_TIMEOUT_S))
        try:
            return tuple(mirror.value(one, names_.LearnedAddress) for message in call for one in message.addresses)
        except grpc.RpcError as error:
            raise refusals.read(error) or self._unreachable(error) from error
        finally:
            call.cancel()

    def names(self) -> names_.KnownNames:
        """Return the names of the node's policies, and whose answers are believed."""
        answer = self._ask(self._stub.ListNames, pb.ListNamesRequest(), timeout_s=KERNEL_TIMEOUT_S)
        return mirror.value(answer, names_.KnownNames)

    def explain_name(self, pod: str, name: str) -> names_.Explained:
        """Return what a name or an address means for a pod; raises InvalidInput, NotFound."""
        request = pb.ExplainNameRequest(pod=pod, name=name)
        return mirror.value(self._ask(self._stub.ExplainName, request, timeout_s=KERNEL_TIMEOUT_S), names_.Explained)

    def snapshot(self) -> snapshot_.Snapshot:
        """Return the cluster as the agent enforces it; raises InvalidAnswer where another release answers."""
        answer = self._ask(self._stub.GetSnapshot, pb.GetSnapshotRequest(), timeout_s=SNAPSHOT_TIMEOUT_S)
        if not answer.json:
            raise self._error("nothing is enforced yet", "wait for it with agentctl status --wait")
        return snapshots.load(answer.json)

    def trace(self, source: str, destination: str, port: str, asks: str = "") -> traces.Traced:
        """Trace a flow, and a DNS query for a name by it; raises InvalidInput where an end, port or name is wrong."""
        request = pb.TraceFlowRequest(source=source, destination=destination, port=port, asks=asks)
        return mirror.value(self._ask(self._stub.TraceFlow, request, timeout_s=KERNEL_TIMEOUT_S), traces.Traced)

    def tables(self) -> traces.Tables:
        """Return what the engine has in the kernel."""
        answer = self._ask(self._stub.ListMaps, pb.ListMapsRequest(), timeout_s=KERNEL_TIMEOUT_S)
        return mirror.value(answer, traces.Tables)

    def rows(
        self, table: str, *, endpoint: str = "", policy_set: int = 0, limit: int = 0
    ) -> Generator[tracing.Row, None, bool]:
        """Yield the rows of a table, at most `limit` (0: all); returns whether there are more. Raises InvalidInput."""
        self._require()
        request = pb.DumpMapRequest(table=table, endpoint=endpoint, policy_set=policy_set, limit=limit)
        call, more = self._stub.DumpMap(request, timeout=patience.seconds(KERNEL_TIMEOUT_S)), False
        try:
            for message in call:
                yield from (mirror.value(one, tracing.Row) for one in message.rows)
                more = message.more
        except grpc.RpcError as error:
            raise refusals.read(error) or self._unreachable(error) from error
        finally:
            call.cancel()
        return more

    def _ask(self, call: Callable[..., Any], request: object, *, timeout_s: float = 0.0) -> Any:
        self._require()
        try:
            return call(request, timeout=max(self._timeout_s, patience.seconds(timeout_s)))
        except grpc.RpcError as error:
            raise refusals.read(error) or self._unreachable(error) from error

    def _require(self) -> None:
        """Raise Unreachable where gRPC would say less about it."""
        try:
            self.socket.stat()
        except PermissionError as error:
            raise self._error("permission denied", "run as root") from error
        except OSError as error:
            remedy = "start nodewall-agent, or name its socket with --socket"
            raise self._error("there is no such socket", remedy) from error
        if not os.access(self.socket, os.W_OK):
            raise self._error("permission denied", "run as root")

    def _unreachable(self, error: grpc.RpcError) -> errors.Unreachable:
        match error.code():
            case grpc.StatusCode.DEADLINE_EXCEEDED:
                return self._error(f"no answer in {self._timeout_s:g} s", "see the agent's log")
            case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
                return self._error("nobody listens there", "start nodewall-agent; what it enforced last stays in force")
            case grpc.StatusCode.RESOURCE_EXHAUSTED:
                return self._error("too many callers", "end other watchers of verdicts")
            case grpc.StatusCode.UNIMPLEMENTED:
                return self._error("it does not know this question", "use agentctl of the agent's release")
            case code:
                return self._error(f"{code.name.lower()}: {error.details()}", "see the agent's log")

    def _error(self, reason: str, remedy: str) -> errors.Unreachable:
        return errors.Unreachable(socket=str(self.socket), reason=reason, remedy=remedy)
