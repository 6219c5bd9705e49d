"""A collector: a server of LogsService that keeps what it gets, and answers as a test says."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.logs.v1 import logs_pb2

from agent import reconciler
from agent.api.nodewall.otlp.v1 import status_pb2
from agent.hubble import ring, tls
from agent.metrics import picture
from agent.model import collector as collector_
from agent.model import verdict
from agent.observer import stream
from agent.otlp import exporter, flowlog, transport
from tests.support import agents

PATIENCE_S = 10.0


@dataclasses.dataclass
class Refusal:
    """An answer that is an error."""

    code: grpc.StatusCode
    retry_s: float | None = None

    @property
    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        if self.retry_s is None:
            return ()
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(self.retry_s * 1000))
        info = status_pb2.RetryInfo(retry_delay=delay)
        detail = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=info.SerializeToString())
        status = status_pb2.Status(code=self.code.value[0], message="no", details=[detail])
        return (("grpc-status-details-bin", status.SerializeToString()),)


class Collector(logs_service_pb2_grpc.LogsServiceServicer):
    """Takes everything, unless told otherwise."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.requests: list[logs_service_pb2.ExportLogsServiceRequest] = []
        self.metadata: list[dict[str, str]] = []
        self.at: list[float] = []
        """When each request came, those that were refused among them."""
        self.answers: collections.deque[Refusal | logs_service_pb2.ExportLogsPartialSuccess] = collections.deque()
        self.open = asyncio.Event()
        """Not set: requests get no answer."""
        self.open.set()
        self.asked = asyncio.Event()

    async def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.at.append(asyncio.get_running_loop().time())
        self.metadata.append({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        self.asked.set()
        await self.open.wait()
        answer = self.answers.popleft() if self.answers else None
        if isinstance(answer, Refusal):
            await context.abort(answer.code, "no\x1b[31m", answer.metadata)
            return None
        self.requests.append(request)
        return logs_service_pb2.ExportLogsServiceResponse(partial_success=answer)

    @property
    def records(self) -> list[logs_pb2.LogRecord]:
        return [
            record
            for request in self.requests
            for of_resource in request.resource_logs
            for of_scope in of_resource.scope_logs
            for record in of_scope.log_records
        ]

    @property
    def flows(self) -> list[logs_pb2.LogRecord]:
        return [record for record in self.records if record.event_name == flowlog.FLOW]

    @property
    def lost(self) -> collections.Counter[str]:
        """What was told to be lost, by why."""
        found: collections.Counter[str] = collections.Counter()
        for record in self.records:
            if record.event_name == flowlog.LOST:
                said = attributes(record.attributes)
                count = said["nodewall.lost.count"]
                assert isinstance(count, int)
                found[str(said["nodewall.lost.reason"])] += count
        return found

    async def got(self, flows: int) -> None:
        """Wait for so many flows; raises TimeoutError."""
        await until(lambda: len(self.flows) >= flows)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds; raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(
    collector: Collector, port: int = 0, files: tls.Files | None = None, options: Sequence[tuple[str, int]] = ()
) -> AsyncIterator[int]:
    """Answer on 127.0.0.1 inside the context; gives the port. With `files`, clients have to show a certificate."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0), *options))
    logs_service_pb2_grpc.add_LogsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{port}"
    if files is None:
        port = server.add_insecure_port(address)
    else:
        pair = (files.key.read_bytes(), files.certificate.read_bytes())
        authority = files.client_authority.read_bytes()
        credentials = grpc.ssl_server_credentials([pair], authority, require_client_auth=True)
        port = server.add_secure_port(address, credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


def attributes(pairs: Any) -> dict[str, object]:
    """Return what key-value pairs of OpenTelemetry say."""
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: common_pb2.AnyValue) -> object:
    kind = value.WhichOneof("value")
    found = getattr(value, kind or "")
    return tuple(map(_value, found.values)) if kind == "array_value" else found


class World:
    """An agent that publishes verdicts, its exporter, and a collector to start."""

    def __init__(self, port: int, *, environment: dict[str, str] | None = None, **more: Any) -> None:
        """Export to `port`, to which nothing may listen yet; call it in an event loop."""
        told = collector_.collector(
            more.get("endpoint", f"http://127.0.0.1:{port}"),
            flows=more.get("flows", collector_.Flows.DENIED),
            certificates=more.get("certificates", pathlib.Path("/nonexistent")),
            environment=environment or {},
        )
        assert told is not None
        self.clock = agents.ManualClock()
        self.verdicts = stream.Stream(clock=self.clock)
        self.ring = ring.Ring(node="n1", version="7", clock=self.clock)
        self.told: list[str] = []
        self.sender = transport.Transport(told, tell=self.told.append)
        self.exporter = exporter.Exporter(
            told, node="n1", version="7", sender=self.sender, clock=self.clock, chance=lambda: 0.5
        )
        self.node: reconciler.Enforcement | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        """Export inside the context; at its end as when the agent ends."""
        with self.verdicts.tapped(self.ring):
            tasks = [asyncio.create_task(self.exporter.read(self.ring), name="flow logs")]
            tasks += [asyncio.create_task(self.exporter.send(), name="flow log export")]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                ended = await asyncio.gather(*tasks, return_exceptions=True)
                assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended

    def publish(self, count: int = 1, **changes: object) -> None:
        """Have so many verdicts told of, with source ports that tell them apart."""
        ends = agents.flow(**changes)
        source = ends.source
        self.verdicts.publish(
            [
                dataclasses.replace(ends, source=dataclasses.replace(source, port=1 + number % 65535))
                for number in range(count)
            ]
        )

    async def settled(self) -> None:
        """Wait until all that was published is with the exporter."""
        end = self.ring.end
        await until(lambda: self.counted.exported + self.counted.waiting + sum(self.counted.dropped.values()) >= end)

    async def delivered(self, count: int) -> None:
        """Wait until the collector said of so many that it has them."""
        await until(lambda: self.counted.exported >= count)

    def answered(self) -> bool:
        """Tell whether the collector has answered anything."""
        return sum(self.counted.requests.values()) > 0

    @property
    def counted(self) -> picture.Exports:
        return self.exporter.counted()


@contextlib.asynccontextmanager
async def exporting(
    collector: Collector, *, options: Sequence[tuple[str, int]] = (), **told: Any
) -> AsyncIterator[World]:
    """Export to a collector inside the context."""
    async with serving(collector, options=options) as port, World(port, **told).running() as world:
        yield world


FORWARDED = {"verdict": verdict.Verdict.FORWARDED, "reason": verdict.Reason.RULE_ALLOWED, "isolating": ()}
