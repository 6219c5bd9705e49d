"""The observer's calls over a real unix socket."""

from __future__ import annotations

import asyncio
import pathlib

import grpc
import grpc.aio
import pytest

from agent.api.flow import flow_pb2
from agent.api.observer import observer_pb2 as pb
from agent.hubble import ring, service
from agent.model import verdict
from agent.observer import enrich, history, unnamed
from tests.hubble import naive, serving, variety
from tests.support import agents

EVENTS = [record.event for record in variety.flows()]


def stamp(request: pb.GetFlowsRequest, field: str, number: int) -> pb.GetFlowsRequest:
    """Set a time of a request to that of flow `number`."""
    moment = getattr(request, field)
    moment.seconds, moment.nanos = divmod(EVENTS[number].time_ns, 10**9)
    return request


def serials(answers: list[pb.GetFlowsResponse]) -> list[int]:
    return [int(answer.flow.uuid.rpartition("-")[2], 16) for answer in answers]


@pytest.fixture
def socket(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "state" / "hubble.sock"


def test_last_first_and_all_are_of_what_the_filters_admit_oldest_first(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        for begin in range(0, len(EVENTS), 7):
            world.verdicts.publish(EVENTS[begin : begin + 7])
        wanted = [{"source_pod": ["x/"]}]
        expected = [number for number, event in enumerate(EVENTS) if event.source.namespace == "x"]
        every = list(range(len(EVENTS)))
        assert serials(await world.flows()) == every
        assert serials(await world.flows(number=20)) == every[-20:]
        assert serials(await world.flows(number=2**64 - 1)) == every
        assert serials(await world.flows(number=20, first=True)) == every[:20]
        assert serials(await world.flows(whitelist=wanted)) == expected
        assert serials(await world.flows(whitelist=wanted, number=9)) == expected[-9:]
        assert serials(await world.flows(whitelist=wanted, number=9, first=True)) == expected[:9]
        assert serials(await world.flows(whitelist=wanted, blacklist=wanted)) == []

    serving.run(socket, scenario)


def test_since_and_until_bound_what_is_sent_and_count_before_the_number(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        world.verdicts.publish(EVENTS)

        async def asked(request: pb.GetFlowsRequest) -> list[int]:
            return serials([answer async for answer in world.observer.GetFlows(request)])

        assert await asked(stamp(pb.GetFlowsRequest(), "since", 350)) == list(range(350, 400))
        assert await asked(stamp(pb.GetFlowsRequest(), "until", 30)) == list(range(31))
        between = stamp(stamp(pb.GetFlowsRequest(number=5), "since", 100), "until", 200)
        assert await asked(between) == list(range(196, 201))
        between.first = True
        assert await asked(between) == list(range(100, 105))

    serving.run(socket, scenario)


def test_a_follower_gets_the_last_so_many_and_then_what_comes(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        world.verdicts.publish(EVENTS[:10])
        request = pb.GetFlowsRequest(follow=True, number=2, whitelist=[{"traffic_direction": ["INGRESS"]}])
        call = world.observer.GetFlows(request)
        ingress = [number for number, event in enumerate(EVENTS) if event.direction.name == "INGRESS"]
        stored = [number for number in ingress if number < 10]
        assert serials([await call.read() for _ in range(2)]) == stored[-2:]
        world.verdicts.publish(EVENTS[10:40])
        later = [number for number in ingress if 10 <= number < 40]
        assert serials([await call.read() for _ in later]) == later
        call.cancel()

    serving.run(socket, scenario)


def test_a_follower_without_a_number_gets_only_what_comes_and_none_after_until(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        world.verdicts.publish(EVENTS[:10])
        call = world.observer.GetFlows(stamp(pb.GetFlowsRequest(follow=True), "until", 12))
        await call.initial_metadata()
        world.verdicts.publish(EVENTS[10:20])
        assert serials([answer async for answer in call]) == [10, 11, 12]

    serving.run(socket, scenario)


def test_a_follower_that_stalls_costs_another_nothing_and_is_told_what_it_lost(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        count, batch = 24 * ring.CAPACITY, [EVENTS[0]] * 512
        stalled = world.observer.GetFlows(pb.GetFlowsRequest(follow=True))
        quick = world.observer.GetFlows(pb.GetFlowsRequest(follow=True, whitelist=[{"uuid": ["none"]}]))
        await stalled.initial_metadata()
        await quick.initial_metadata()
        for _ in range(0, count, len(batch)):
            world.verdicts.publish(batch)
            await asyncio.sleep(0.001)
        world.clock.pass_s(2)
        got = lost = 0
        while got + lost < count:
            answer = await stalled.read()
            if answer.HasField("lost_events"):
                assert answer.lost_events.source == flow_pb2.HUBBLE_RING_BUFFER
                lost += answer.lost_events.num_events_lost
                world.clock.pass_s(2)
            else:
                got += 1
        assert (got + lost, lost > 0) == (count, True)
        stalled.cancel()
        quick.cancel()

    serving.run(socket, scenario)


def test_what_the_kernel_lost_is_told_with_time_and_node(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        call = world.observer.GetFlows(pb.GetFlowsRequest(follow=True, whitelist=[{"uuid": ["none"]}]))
        await call.initial_metadata()
        world.verdicts.tell_lost(verdict.Lost(count=4, where="ring"))
        answer = await call.read()
        assert (answer.lost_events.num_events_lost, answer.node_name) == (4, "n1")
        assert answer.time.seconds == world.clock.unix_ns() // 10**9
        call.cancel()

    serving.run(socket, scenario)


def test_a_field_mask_is_a_lower_bound_over_the_wire(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        world.verdicts.publish(EVENTS)
        whole = await world.flows()
        masked = await world.flows(field_mask={"paths": ["source.pod_name", "ethernet", "no.such"]})
        assert [answer.flow.source for answer in masked] == [answer.flow.source for answer in whole]
        assert [answer.flow.ingress_denied_by for answer in masked] == [
            answer.flow.ingress_denied_by for answer in whole
        ]
        assert not any(answer.flow.uuid for answer in masked)

    serving.run(socket, scenario)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        (pb.GetFlowsRequest.FromString(b"\xba\x3e\x02\x0a\x00"), "GetFlowsRequest field 999"),
        (pb.GetFlowsRequest.FromString(b"\x32\x05\xaa\x01\x02\x61\x62"), "FlowFilter field 21: 'http_method'"),
        (pb.GetFlowsRequest(first=True, follow=True), "first"),
        (pb.GetFlowsRequest(whitelist=[{"source_ip": ["x\x1b"]}]), r"source_ip: 'x\\x1b'"),
        (pb.GetFlowsRequest(whitelist=[{"source_ip": ["x" * 100_000]}]), "source_ip: 'xxx"),
    ],
)
def test_what_cannot_be_answered_is_refused_and_named(
    socket: pathlib.Path, request_: pb.GetFlowsRequest, said: str
) -> None:
    async def scenario(world: serving.World) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await world.observer.GetFlows(request_).read()
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert said.replace("\\\\", "\\") in str(raised.value.details())

    serving.run(socket, scenario)


def test_flows_of_verdicts_that_nobody_asked_for_are_never_named(
    socket: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[int] = []
    enriched = enrich.enrich

    def name(event: enrich.RawEvent, context: enrich.Context) -> verdict.VerdictEvent:
        named.append(event.verdict)
        return enriched(event, context)

    async def scenario(world: serving.World) -> None:
        past = history.History()
        past.enforced(1, agents.enforced(), agents.cluster())
        forwarded, dropped = agents.Event(verdict=1, reason=1), agents.Event()
        batch = [*[forwarded] * 50, dropped, *[forwarded] * 50, dropped]
        world.verdicts.publish(
            unnamed.Unnamed(batch, enrich.Context(node="n1", past=past.past, monotonic_to_unix_ns=0))
        )
        monkeypatch.setattr(enrich, "enrich", name)
        wanted = [{"verdict": ["DROPPED"], "source_pod": ["x/"]}, {"verdict": ["DROPPED"], "destination_pod": ["x/"]}]
        assert serials(await world.flows(whitelist=wanted, number=20)) == [50, 101]
        assert named == [2, 2]
        assert len(await world.flows(whitelist=[*wanted, {"protocol": ["tcp"]}])) == len(batch)

    serving.run(socket, scenario)


def test_status_nodes_and_namespaces_say_what_is_stored(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        world.verdicts.publish(EVENTS)
        world.clock.pass_s(4)
        status = await world.observer.ServerStatus(pb.ServerStatusRequest())
        assert (status.num_flows, status.max_flows, status.seen_flows) == (400, ring.CAPACITY, 400)
        assert (status.version, status.uptime_ns, status.flows_rate) == ("7", 4 * 10**9, 100.0)
        assert (status.num_connected_nodes.value, status.num_unavailable_nodes.value) == (1, 0)
        (node,) = (await world.observer.GetNodes(pb.GetNodesRequest())).nodes
        assert (node.name, node.version, node.num_flows) == ("n1", "7", 400)
        assert node.address == f"unix://{socket}"
        named = (await world.observer.GetNamespaces(pb.GetNamespacesRequest())).namespaces
        assert [(one.cluster, one.namespace) for one in named] == [
            ("default", "default"),
            ("default", "x"),
            ("default", "y"),
        ]

    serving.run(socket, scenario)


def test_the_naive_filter_agrees_over_the_wire(socket: pathlib.Path) -> None:
    async def scenario(world: serving.World) -> None:
        world.verdicts.publish(EVENTS)
        whole = [answer.flow for answer in await world.flows()]
        deny = flow_pb2.FlowFilter(source_label=["app=web"], protocol=["tcp"])
        admitted = [answer.flow for answer in await world.flows(blacklist=[deny])]
        assert admitted == [flow for flow in whole if not naive.admits(deny, flow)]

    serving.run(socket, scenario)


def test_every_call_of_the_proto_is_answered() -> None:
    names = {method.name for method in pb.DESCRIPTOR.services_by_name["Observer"].methods}
    assert names == {"GetFlows", "GetAgentEvents", "GetNodes", "GetNamespaces", "ServerStatus"}
    assert pb.DESCRIPTOR.services_by_name["Observer"].full_name == service.NAME
