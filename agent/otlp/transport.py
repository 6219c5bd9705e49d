"""Requests to one collector over a channel of gRPC; the one place here that names it, but for `credentials`.

The channel connects again by itself. It is made anew where that is not enough: when certificates were replaced, and
after a request that nobody answered, as the connection may lead to a machine that is gone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from agent import errors
from agent.model import collector as collector_
from agent.otlp import credentials, wire

DETAILS = "grpc-status-details-bin"
OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 20_000),
    ("grpc.max_receive_message_length", 256 * 1024),
)
"""gRPC adds a fifth of random to each of these waits."""
COMPRESSIONS = {
    collector_.Compression.NONE: grpc.Compression.NoCompression,
    collector_.Compression.GZIP: grpc.Compression.Gzip,
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A request was not taken."""

    code: str
    """The name of gRPC's status."""
    message: str
    """A stranger's: escape it."""
    asked_s: float | None = None
    """How long the collector asks to wait; None: it does not."""


class Transport:
    """Sends to one collector, one request at a time."""

    def __init__(self, collector: collector_.Collector, *, tell: Callable[[str], None]) -> None:
        """Read certificates; raises InvalidInput. `tell` gets what is wrong with later ones. Nothing is sent yet."""
        self._collector = collector
        self._tell = tell
        self._credentials = credentials.Credentials(collector)
        self._loaded = self._credentials.load()
        self._channel: Any = None
        self._metadata = tuple(collector.headers.items())

    async def export(self, request: bytes, *, timeout_s: float) -> wire.Answer | Failed:
        """Send a serialised request and wait for the answer, which is an error's too."""
        await self._take_new_credentials()
        if self._channel is None:
            self._channel = self._open()
        call = self._channel.unary_unary(wire.METHOD, request_serializer=None, response_deserializer=None)
        compression = COMPRESSIONS[self._collector.compression]
        try:
            response = await call(request, timeout=timeout_s, metadata=self._metadata, compression=compression)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                await self.close()
            return Failed(code=error.code().name, message=error.details() or "", asked_s=_asked_s(error))
        try:
            return wire.answer(response)
        except errors.InvalidAnswer as error:
            return Failed(code="INTERNAL", message=str(error))

    async def close(self) -> None:
        """Close the connection; the next request opens another."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _take_new_credentials(self) -> None:
        if not self._credentials.changed():
            return
        try:
            self._loaded = self._credentials.load()
        except errors.InvalidInput as error:
            self._tell(f"{error}; the ones before stay in use")
        else:
            await self.close()

    def _open(self) -> Any:
        target = f"dns:///{self._collector.target}"
        if self._loaded is None:
            return grpc.aio.insecure_channel(target, options=OPTIONS)
        return grpc.aio.secure_channel(target, self._loaded, options=OPTIONS)


def _asked_s(error: grpc.aio.AioRpcError) -> float | None:
    metadata: Any = error.trailing_metadata() or ()
    details = (value for key, value in metadata if key == DETAILS and isinstance(value, bytes))
    return next((wire.asked_s(value) for value in details), None)
