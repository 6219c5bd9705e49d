"""Three questions to a container runtime over its socket, as bytes; the one place here that names gRPC."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Self

import grpc

from agent import errors
from agent.node.cri import messages

LIST_TIMEOUT_S = 5.0
STATUS_TIMEOUT_S = 20.0
"""A verbose status takes seconds while containerd starts many pods (2 s each in a burst of 20)."""
ANSWER_BYTES = 16 << 20
"""As kubelet has it."""


class Client:
    """A connection, made again by itself when it was lost; close it, or use it as a context manager."""

    def __init__(self, socket: pathlib.Path) -> None:
        """Take the runtime's socket; nothing is sent yet."""
        options = [
            ("grpc.max_receive_message_length", ANSWER_BYTES),
            ("grpc.default_authority", "localhost"),  # the socket's path is no host name, and servers mind
            ("grpc.initial_reconnect_backoff_ms", 500),
            ("grpc.max_reconnect_backoff_ms", 5000),
            ("grpc.enable_http_proxy", 0),
        ]
        self._socket = socket
        self._channel = grpc.insecure_channel(f"unix://{socket}", options=options)
        self._list = self._channel.unary_unary(messages.LIST, request_serializer=None, response_deserializer=None)
        self._status = self._channel.unary_unary(messages.STATUS, request_serializer=None, response_deserializer=None)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Close the connection; a question under way raises Unreachable. Again is no error."""
        self._channel.close()

    def list(self) -> tuple[messages.Listed, ...]:
        """Return the sandboxes that are ready. Raises Unreachable or InvalidAnswer."""
        return messages.decode_list(self._ask(self._list, messages.LIST_READY, LIST_TIMEOUT_S))

    def status(self, sandbox: str) -> messages.Status | None:
        """Return what is known of a sandbox, None if there is none of that id. Raises Unreachable or InvalidAnswer."""
        try:
            answer = self._ask(self._status, messages.status_request(sandbox), STATUS_TIMEOUT_S)
        except errors.Unreachable as error:
            cause = error.__cause__
            if isinstance(cause, grpc.RpcError) and cause.code() is grpc.StatusCode.NOT_FOUND:
                return None
            raise
        return messages.decode_status(answer)

    def _ask(self, method: Callable[..., bytes], request: bytes, timeout_s: float) -> bytes:
        remedy = "the CNI result cache is not cross-checked until it answers"
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as error:
            reason = f"{error.code().name}: {error.details()}"
            raise errors.Unreachable(socket=str(self._socket), reason=reason, remedy=remedy) from error
        except ValueError as error:  # a channel that was closed
            raise errors.Unreachable(socket=str(self._socket), reason=str(error), remedy=remedy) from error
