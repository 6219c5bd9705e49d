"""A small synchronous client of one agent, for agentctl and the lab.

Every failure is an Unreachable that names the socket and says what to do; no gRPC status leaves this module.
"""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Generator
from types import TracebackType
from typing import Any, Self

import grpc

from agent import errors, patience
from agent.api.nodewall.agent.v1 import agent_pb2 as pb
from agent.api.nodewall.agent.v1 import agent_pb2_grpc as pb_grpc
from agent.model import verdict
from agent.rpc import convert, sockets, views

TIMEOUT_S = 5.0
OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0))
"""A list of a large cluster's identities is longer than gRPC's 4 MiB."""


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
        return convert.status(self._ask(self._stub.GetStatus, pb.GetStatusRequest()))

    def endpoints(self) -> tuple[views.Endpoint, ...]:
        """Return the pods of the node that policy is enforced on."""
        answer = self._ask(self._stub.ListEndpoints, pb.ListEndpointsRequest())
        return tuple(convert.endpoint(one) for one in answer.endpoints)

    def identities(self) -> tuple[views.Identity, ...]:
        """Return identities and the facts they stand for."""
        answer = self._ask(self._stub.ListIdentities, pb.ListIdentitiesRequest())
        return tuple(convert.identity(one) for one in answer.identities)

    def policies(self) -> tuple[views.Policy, ...]:
        """Return policies, whom they select on the node, and their problems."""
        answer = self._ask(self._stub.ListPolicies, pb.ListPoliciesRequest())
        return tuple(convert.policy(one) for one in answer.policies)

    def watch_verdicts(
        self, *, follow: bool, last: int = 0, wanted: verdict.Filter = verdict.EVERY_VERDICT
    ) -> Generator[verdict.Item, None, None]:
        """Yield the `last` stored verdicts (0 without `follow`: all), then, with `follow`, those to come.

        Close it to end following.
        """
        self._require()
        request = convert.watch_message(wanted, follow=follow, last=last)
        call = self._stub.WatchVerdicts(request, timeout=None if follow else self._timeout_s)
        try:
            for message in call:
                yield convert.item(message)
        except grpc.RpcError as error:
            raise self._unreachable(error) from error
        finally:
            call.cancel()

    def _ask(self, call: Callable[..., Any], request: object) -> Any:
        self._require()
        try:
            return call(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise self._unreachable(error) from error

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
            case code:
                return self._error(f"{code.name.lower()}: {error.details()}", "see the agent's log")

    def _error(self, reason: str, remedy: str) -> errors.Unreachable:
        return errors.Unreachable(socket=str(self.socket), reason=reason, remedy=remedy)
