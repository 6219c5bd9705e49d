"""A small cluster, compiled as the agent compiles it, and an agent in a thread that answers for it on a real socket."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import pathlib
import threading
from collections.abc import Iterator

from agent import audits, reconciler, snapshot
from agent.datapath import memory
from agent.model import audit, endpoint, labels, net, resources
from agent.observer import stream
from agent.policy import compiler
from agent.rpc import agent_server, describe, getters, names, service, views
from agent.rpc import audits as audits_rpc
from tests.support import agents

SELECT_A = labels.LabelSelector((labels.Requirement(key="app", operator=labels.Operator.IN, values=frozenset({"a"})),))
SELECT_B = labels.LabelSelector((labels.Requirement(key="app", operator=labels.Operator.IN, values=frozenset({"b"})),))
BLOCK = resources.IPBlock(
    cidr=ipaddress.ip_network("203.0.113.0/24"), excepts=(ipaddress.ip_network("203.0.113.128/25"),)
)
TO_B = resources.NetworkPolicy(
    namespace="x",
    name="to-b",
    uid="u-1",
    subject=SELECT_B,
    directions=frozenset({net.Direction.INGRESS}),
    ingress=(
        resources.PolicyRule(
            peers=(resources.PodPeer(pods=SELECT_A),),
            ports=(resources.PortMatch(protocol=net.Protocol.TCP, port="http"),),
        ),
        resources.PolicyRule(
            peers=(BLOCK,),
            ports=(resources.PortMatch(protocol=net.Protocol.TCP, port=net.PortRange(8080, 8087)),),
        ),
    ),
)
FROM_A = resources.NetworkPolicy(
    namespace="x",
    name="from-a",
    subject=SELECT_A,
    directions=frozenset({net.Direction.EGRESS}),
    egress=(resources.PolicyRule(peers=(resources.PodPeer(pods=SELECT_B),)),),
)
SERVICE = resources.Service(
    namespace="x",
    name="web",
    cluster_addresses=(ipaddress.ip_address("10.96.0.1"),),
    ports=(resources.ServicePort(port=80, protocol=net.Protocol.TCP, target="http", node_port=30080),),
    selector=labels.Labels({"app": "b"}),
)
NODE = resources.Node(
    name="n1",
    addresses=(ipaddress.ip_address("192.0.2.1"),),
    pod_ranges=(ipaddress.ip_network("10.0.0.0/24"),),
)
HOST = resources.Host(name="h", addresses=(ipaddress.ip_address("203.0.113.10"),))
HTTP = resources.ContainerPort(number=8000, protocol=net.Protocol.TCP, name="http")
ELSEWHERE = ipaddress.ip_address("10.0.1.2")


def cluster(*more: resources.Resource) -> snapshot.Snapshot:
    """Return x/a and x/b on n1, y/c on n2, a Service before x/b, and two policies that let x/a talk to x/b."""
    return snapshot.build(
        (
            *(resources.Namespace(name="x"), resources.Namespace(name="y"), NODE, resources.Node(name="n2"), HOST),
            *(agents.pod("a", agents.CLIENT), agents.pod("b", agents.SERVER, ports=(HTTP,))),
            agents.pod("c", ELSEWHERE, namespace="y", node="n2"),
            *(TO_B, FROM_A, SERVICE, *more),
        )
    )


def enforcement(
    *more: resources.Resource, sandboxes: tuple[endpoint.Sandbox, ...] = agents.SANDBOXES
) -> reconciler.Enforcement:
    """Return that cluster, and `more`, compiled for n1, which learns names."""
    picture = cluster(*more)
    view = endpoint.NodeView(name="n1", sandboxes=sandboxes, learns_names=True, filters_queries=True)
    compiled = compiler.compile_node(picture, view)
    problem = resources.Problem(TO_B.ref, "spec.ingress[1].ports[0].endPort", "is \x1b[31modd\u202e")
    return reconciler.Enforcement(
        inputs=reconciler.Inputs(revision=4, source=agents.update(picture), sandboxes=sandboxes),
        state=compiled.state,
        snapshot=picture,
        problems=(*compiled.problems, problem),
        generation=2,
        unix_ns=9,
    )


class Node:
    """An agent that enforces what it is given; `getters.Node`."""

    def __init__(self, enforcement: reconciler.Enforcement | None, **changes: object) -> None:
        """Answer with `enforcement`, and a status with `changes`."""
        self.enforcement = enforcement
        self.changes = changes
        self.audit = auditing()

    def status(self) -> views.Status:
        told: dict[str, object] = {"node": "n1", "version": "0", "mode": "memory", "synced": True, "revision": 4}
        bare = views.Status(**(told | self.changes))  # type: ignore[arg-type]  # a test names real fields
        return bare if self.enforcement is None else describe.enforced(bare, self.enforcement)


def auditing() -> audits_rpc.Auditing:
    """Return the audit of an agent that was started without any, and keeps none."""
    clock = agents.ManualClock()
    loop = reconciler.Reconciler(
        datapath=memory.MemoryDatapath(),
        node="n1",
        deny_mode=endpoint.DenyMode.REJECT,
        hold_mode=endpoint.HoldMode.AUTO,
        clock=clock,
    )
    ledger = audits.Ledger(file=pathlib.Path("/nowhere/audit.json"), given=audit.NOTHING, clock=clock)
    return audits_rpc.Auditing(loop=loop, ledger=ledger)


@contextlib.contextmanager
def agent(
    path: pathlib.Path,
    node: getters.Node,
    *,
    process: getters.Process = getters.NO_PROCESS,
    verdicts: stream.Stream | None = None,
    names: names.Names = names.NO_NAMES,
) -> Iterator[pathlib.Path]:
    """Serve on `path`, in a thread, while the context lasts."""
    serving, stopped = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    stored = verdicts or stream.Stream(clock=agents.ManualClock())

    async def serve() -> None:
        kernel = agents.kernel(node, stored)
        api = service.AgentService(node=node, stream=stored, kernel=kernel, process=process, names=names)
        async with agent_server.serving(api, path):
            serving.set()
            await stopped.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert serving.wait(10)
        yield path
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join()
        loop.close()
