"""From the ring to a collector: what arrives, what happens when it does not, and that nobody else pays for it."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Awaitable, Callable

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2

from agent.hubble import records
from agent.hubble import ring as ring_
from agent.model import collector as collector_
from agent.model import verdict
from agent.otlp import exporter, flowlog, outbox
from tests.hubble import serving
from tests.otlp import collector
from tests.otlp.collector import FORWARDED, Refusal, World
from tests.support import agents

CODES = grpc.StatusCode
MOST = outbox.RECORDS_MOST
BATCH = outbox.BATCH_RECORDS


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for a request to fill."""
    monkeypatch.setattr(outbox, "GATHER_S", 0.05)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await scenario()

    asyncio.run(bounded())


def balanced(world: World, wanted: int) -> None:
    """Every flow that was wanted was exported, or dropped, or waits."""
    counted = world.counted
    assert counted.exported + sum(counted.dropped.values()) + counted.waiting == wanted


def test_a_collector_gets_every_field_of_a_flow_the_resource_and_the_scope() -> None:
    async def scenario() -> None:
        taker = collector.Collector()
        said = {
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a%20b",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.cluster.name=east,k8s.node.name=forged",
        }
        async with collector.exporting(taker, environment=said) as world:
            world.publish()
            await world.delivered(1)
            batch, serial = world.ring.holding(0), 0
        assert batch is not None
        [request] = taker.requests
        [of_resource] = request.resource_logs
        assert collector.attributes(of_resource.resource.attributes) == {
            "service.name": "nodewall-agent",
            "service.version": "7",
            "k8s.node.name": "n1",
            "k8s.cluster.name": "east",
        }
        [of_scope] = of_resource.scope_logs
        assert (of_scope.scope.name, of_scope.scope.version) == ("nodewall", "7")
        [record] = of_scope.log_records
        log = flowlog.of_flow(batch.record(serial))
        assert record.time_unix_nano == log.time_ns == 1_700_000_000_123_000_000
        assert record.observed_time_unix_nano == world.clock.unix_ns()
        assert (record.severity_number, record.severity_text) == (13, "WARN")
        assert record.event_name == "nodewall.flow"
        assert record.body.string_value == log.body
        assert collector.attributes(record.attributes) == log.attributes
        assert collector.attributes(record.attributes)["log.record.uid"] == batch.record(serial).uuid
        assert taker.metadata[0]["x-tenant"] == "a b"

    run(scenario)


@pytest.mark.parametrize(("flows", "expected"), [(collector_.Flows.DENIED, 3), (collector_.Flows.ALL, 5)])
def test_allowed_flows_are_sent_only_if_all_are_asked_for(flows: collector_.Flows, expected: int) -> None:
    async def scenario() -> None:
        taker = collector.Collector()
        async with collector.exporting(taker, flows=flows) as world:
            world.publish(2, **FORWARDED)
            world.publish(2)
            world.publish(verdict=verdict.Verdict.AUDIT)
            await world.delivered(expected)
        assert len(taker.flows) == expected
        balanced(world, expected)

    run(scenario)


def test_a_collector_that_is_not_there_yet_gets_everything_once_it_is() -> None:
    async def scenario() -> None:
        taker, port = collector.Collector(), serving.free_port()
        async with World(port).running() as world:
            world.publish(1000)
            await world.settled()
            await collector.until(lambda: world.counted.requests["again"] > 0)
            assert world.counted.waiting == 1000
            async with collector.serving(taker, port):
                await world.delivered(1000)
                await asyncio.sleep(0)
        assert len({collector.attributes(one.attributes)["log.record.uid"] for one in taker.flows}) == 1000
        assert not taker.lost
        assert world.counted.exported == 1000

    run(scenario)


def test_when_it_dies_no_more_is_lost_than_the_queue_does_not_hold_and_the_number_is_told() -> None:
    async def scenario() -> None:
        first, second, port = collector.Collector(), collector.Collector(), serving.free_port()
        async with World(port).running() as world:
            async with collector.serving(first, port):
                world.publish(10)
                await world.delivered(10)
            world.publish(3000)
            await world.settled()
            async with collector.serving(second, port):
                # The queue, and what had been taken from it when it was filled.
                await collector.until(lambda: not world.counted.waiting)
                world.publish(5)
                await collector.until(lambda: len(second.flows) + second.lost["full"] == 3005)
                await world.delivered(len(second.flows) + 10)
        lost = second.lost["full"]
        assert 0 < lost <= 3000 - MOST
        assert len(second.flows) == 3000 + 5 - lost
        counted = world.counted
        assert (counted.exported, counted.dropped["full"], counted.waiting) == (3015 - lost, lost, 0)
        ports = [int(str(collector.attributes(one.attributes)["source.port"])) for one in second.flows[:-5]]
        assert ports == sorted(set(ports)), "in order, none of them twice"

    run(scenario)


def test_what_a_collector_rejects_of_a_request_is_counted_and_not_sent_again() -> None:
    async def scenario() -> None:
        taker = collector.Collector()
        taker.answers.append(logs_service_pb2.ExportLogsPartialSuccess(rejected_log_records=3, error_message="old\x1b"))
        async with collector.exporting(taker) as world:
            world.publish(10)
            await world.delivered(7)
            await collector.until(lambda: taker.lost["refused"] == 3)
        assert len(taker.flows) == 10
        counted = world.counted
        assert (counted.exported, counted.dropped["refused"], counted.requests["refused"]) == (7, 3, 0)

    run(scenario)


def test_a_warning_that_rejects_nothing_loses_nothing() -> None:
    async def scenario() -> None:
        taker = collector.Collector()
        taker.answers.append(logs_service_pb2.ExportLogsPartialSuccess(error_message="soon to be refused"))
        async with collector.exporting(taker) as world:
            world.publish(2)
            await world.delivered(2)
        assert world.counted.exported == 2

    run(scenario)


@pytest.mark.parametrize("code", [CODES.UNAVAILABLE, CODES.ABORTED, CODES.DATA_LOSS])
def test_what_failed_for_now_is_sent_again_once_and_whole(code: grpc.StatusCode) -> None:
    async def scenario() -> None:
        taker = collector.Collector()
        taker.answers.append(Refusal(code))
        async with collector.exporting(taker) as world:
            world.publish(3)
            await world.delivered(3)
        assert len(taker.flows) == 3
        assert world.counted.requests == {"ok": 1, "again": 1, "refused": 0}

    run(scenario)


@pytest.mark.parametrize("code", [CODES.INVALID_ARGUMENT, CODES.UNAUTHENTICATED, CODES.RESOURCE_EXHAUSTED])
def test_what_is_refused_for_good_is_dropped_and_told_with_the_next_request(code: grpc.StatusCode) -> None:
    async def scenario() -> None:
        taker = collector.Collector()
        taker.answers.append(Refusal(code))
        async with collector.exporting(taker) as world:
            world.publish(3)
            await taker.asked.wait()
            world.publish(2)
            await world.delivered(2)
        assert taker.lost == {"refused": 3}
        counted = world.counted
        assert (counted.exported, counted.dropped["refused"], counted.requests["refused"]) == (2, 3, 1)

    run(scenario)


def test_an_exhausted_collector_is_asked_again_when_it_says() -> None:
    async def scenario() -> None:
        taker = collector.Collector()
        taker.answers.append(Refusal(CODES.RESOURCE_EXHAUSTED, retry_s=0.7))
        async with collector.exporting(taker) as world:
            world.publish(3)
            await world.delivered(3)
        first, second = taker.at
        assert second - first >= 0.7
        assert len(taker.flows) == 3
        balanced(world, 3)

    run(scenario)


def test_requests_are_packed_if_asked_for() -> None:
    async def scenario() -> None:
        unpacked_alone = (("grpc.compression_enabled_algorithms_bitset", 1),)
        for packing, refused in (("none", 0), ("gzip", 1)):
            taker, said = collector.Collector(), {"OTEL_EXPORTER_OTLP_COMPRESSION": packing}
            async with collector.exporting(taker, options=unpacked_alone, environment=said) as world:
                world.publish(5)
                await collector.until(world.answered)
            assert world.counted.requests["refused"] == refused

    run(scenario)


def test_a_request_that_nobody_answers_is_given_up_in_time_and_sent_over_another_connection() -> None:
    async def scenario() -> None:
        taker = collector.Collector()
        taker.open.clear()
        async with collector.exporting(taker, environment={"OTEL_EXPORTER_OTLP_TIMEOUT": "100"}) as world:
            world.publish(3)
            await taker.asked.wait()
            taker.asked.clear()
            await taker.asked.wait()
            taker.open.set()
            await world.delivered(3)
            await collector.until(lambda: not world.counted.waiting)
        assert world.counted.exported == 3

    run(scenario)


def test_a_stalled_collector_costs_a_reader_of_hubbles_nothing_and_flows_are_no_longer_made_into_records(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: collections.Counter[str] = collections.Counter()
    real = flowlog.own

    def counting(record: records.Record) -> flowlog.Attributes:
        made["flows"] += 1
        return real(record)

    monkeypatch.setattr(flowlog, "own", counting)

    async def scenario() -> None:
        taker = collector.Collector()
        taker.open.clear()
        async with collector.exporting(taker, flows=collector_.Flows.ALL) as world:
            with world.ring.reading(0) as reader:
                for count in range(1, 41):
                    world.publish(100)
                    seen = 0
                    async with asyncio.timeout(collector.PATIENCE_S):
                        while seen < 100:
                            seen += len(reader.read())
                            await asyncio.sleep(0)
                    assert world.ring.end == count * 100
                assert reader.due() is None, "the reader lost nothing"
            await world.settled()
            assert made["flows"] <= MOST + BATCH
            balanced(world, 4_000)
            assert world.counted.waiting >= MOST
            taker.open.set()

    run(scenario)


def test_flows_that_were_lost_before_are_told_with_their_reason() -> None:
    async def scenario() -> None:
        taker = collector.Collector()
        async with collector.exporting(taker) as world:
            await asyncio.sleep(0)
            world.ring.tell_lost(verdict.Lost(count=7, where="ring"))
            world.ring.take([agents.flow()])
            await collector.until(lambda: taker.lost == {"ring": 7})
        assert sum(world.counted.dropped.values()) == 0

    run(scenario)


def test_a_ring_that_goes_on_past_the_exporter_is_a_counted_loss() -> None:
    async def scenario() -> None:
        world = World(1, flows=collector_.Flows.ALL)
        with world.verdicts.tapped(world.ring), world.ring.reading(0) as reader:
            for _ in range(8):
                world.publish(1000)
            while world.exporter._gather(reader):
                pass
        held = world.ring.end - world.ring.start
        counted = world.counted
        assert counted.dropped["behind"] == 8_000 - held
        balanced(world, 8_000)

    run(scenario)


def test_the_end_of_the_agent_sends_what_waits() -> None:
    async def scenario() -> None:
        taker = collector.Collector()
        async with collector.exporting(taker) as world:
            await asyncio.sleep(0.1)
            world.publish(1500)
        assert len(taker.flows) == 1500
        assert world.counted.exported == 1500
        assert world.ring.readers == 0

    run(scenario)


@pytest.mark.parametrize("stalled", [True, False])
def test_the_end_of_the_agent_waits_no_longer_than_it_may_and_counts_what_is_left(
    stalled: bool,  # noqa: FBT001 - pytest's parameter
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(exporter, "FLUSH_S", 0.2)

    async def scenario() -> None:
        taker, port = collector.Collector(), serving.free_port()
        taker.open.clear()
        async with contextual(taker, port, stalled=stalled):
            async with World(port).running() as world:
                world.publish(20)
                await world.settled()
                began = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - began < 2
            taker.open.set()
        counted = world.counted
        assert counted.dropped["ended"] == 20
        assert (counted.exported, counted.waiting) == (0, 0)

    run(scenario)


def contextual(
    taker: collector.Collector, port: int, *, stalled: bool
) -> contextlib.AbstractAsyncContextManager[object]:
    return collector.serving(taker, port) if stalled else contextlib.nullcontext()


def test_the_log_says_once_that_it_fails_and_once_that_it_works_again(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    async def scenario() -> None:
        taker = collector.Collector()
        taker.answers.extend([Refusal(CODES.UNAVAILABLE), Refusal(CODES.UNAVAILABLE), Refusal(CODES.INVALID_ARGUMENT)])
        async with collector.serving(taker) as port:
            world = World(port)

            class Log:
                def warning(self, event: str, **fields: object) -> None:
                    said.append(f"{event}: {fields['reason']}")

                def info(self, event: str, **fields: object) -> None:
                    said.append(f"{event}: {fields['dropped']}")

            monkeypatch.setattr(world.exporter, "_log", Log())
            async with world.running():
                world.publish(1)
                await collector.until(lambda: world.counted.dropped["refused"] == 1)
                for count in (1, 2):
                    world.publish(1)
                    await world.delivered(count)
                taker.answers.append(Refusal(CODES.INVALID_ARGUMENT))
                world.publish(1)
                await collector.until(lambda: world.counted.dropped["refused"] == 2)
                world.publish(1)
                await world.delivered(3)

    run(scenario)
    assert said == [
        "the collector does not take flow logs: UNAVAILABLE: no\x1b[31m",
        "the collector does not take flow logs: INVALID_ARGUMENT: no\x1b[31m",
        "the collector takes flow logs again: 1",
    ]


def test_no_more_is_read_at_once_than_the_ring_gives() -> None:
    assert ring_.CHUNK < outbox.BATCH_RECORDS < outbox.RECORDS_MOST
