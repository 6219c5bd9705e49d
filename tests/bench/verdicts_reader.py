"""`python -m tests.bench.verdicts_reader SOCKET STREAMS [stalled]`: collectors, by gRPC's own client.

Prints once a second how many flows came and how many were told lost so far, all streams together.
A stalled one asks and never reads.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import grpc.aio

from agent.api.observer import observer_pb2 as pb

METHOD = "/observer.Observer/GetFlows"
FLOW = bytes([pb.GetFlowsResponse.FLOW_FIELD_NUMBER << 3 | 2])
CHANNELS = 10


async def main(socket: str, streams: int, *, stalled: bool) -> None:
    """Collect until killed."""
    counts = {"flows": 0, "lost": 0}
    asked = pb.GetFlowsRequest(follow=True).SerializeToString()
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(f"unix:{socket}", options=options) for _ in range(min(streams, CHANNELS))]

    async def collect(channel: Any) -> None:
        call = channel.unary_stream(METHOD)(asked)
        await call.initial_metadata()
        began.release()
        if stalled:
            await asyncio.Event().wait()
        async for answer in call:
            if answer.startswith(FLOW):
                counts["flows"] += 1
            else:
                counts["lost"] += pb.GetFlowsResponse.FromString(answer).lost_events.num_events_lost

    began = asyncio.Semaphore(0)
    collecting = [asyncio.create_task(collect(channels[number % len(channels)])) for number in range(streams)]
    for _ in range(streams):
        await began.acquire()
    print("ready", flush=True)
    while collecting:
        await asyncio.sleep(1)
        print(json.dumps({"at": time.monotonic(), **counts}), flush=True)


asyncio.run(main(sys.argv[1], int(sys.argv[2]), stalled="stalled" in sys.argv))
