"""Small worlds for tests of the agent: a cluster of two pods and one policy, and what is known of them on node n1."""

from __future__ import annotations

import dataclasses
import ipaddress

from agent import desired, snapshot
from agent.datapath import memory
from agent.model import endpoint, identity, labels, net, resources, verdict
from agent.observer import stream
from agent.rpc import kernel as kernel_
from agent.sources import manifests

CLIENT = ipaddress.ip_address("10.0.0.2")
SERVER = ipaddress.ip_address("10.0.0.3")
DENY = resources.NetworkPolicy(namespace="x", name="deny", directions=frozenset({net.Direction.INGRESS}))
RULE = verdict.RuleRef(policy=DENY.ref, direction=net.Direction.INGRESS, index=0)


class ManualClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        """Start at one second."""
        self.now_ns = 1_000_000_000

    def unix_ns(self) -> int:
        return 1_700_000_000_000_000_000 + self.now_ns

    def monotonic_ns(self) -> int:
        return self.now_ns

    def boot_ns(self) -> int:
        return self.now_ns

    def pass_s(self, seconds: float) -> None:
        self.now_ns += int(seconds * 1e9)


def pod(name: str, address: net.Address, **more: object) -> resources.Pod:
    base = resources.Pod(
        namespace="x", name=name, uid=f"uid-{name}", labels=labels.Labels({"app": name}), addresses=(address,)
    )
    return dataclasses.replace(base, **({"node": "n1"} | more))  # type: ignore[arg-type]  # a test names real fields


def cluster(*more: resources.Resource) -> snapshot.Snapshot:
    """Pods x/a and x/b on n1, and a policy that closes x, unless `more` says otherwise."""
    return snapshot.build((resources.Namespace(name="x"), pod("a", CLIENT), pod("b", SERVER), DENY, *more))


def update(picture: snapshot.Snapshot | None = None, digest: str = "one") -> manifests.Update:
    return manifests.Update(snapshot=picture or cluster(), digest=digest, changed_unix_ns=7)


def sandbox(name: str, address: net.Address, cookie: int) -> endpoint.Sandbox:
    return endpoint.Sandbox(
        namespace="x",
        pod=name,
        uid=f"uid-{name}",
        netns_cookie=cookie,
        veth_ifindex=cookie + 100,
        ingress_ifindex=cookie + 100,
        addresses=(address,),
    )


SANDBOXES = (sandbox("a", CLIENT, 11), sandbox("b", SERVER, 12))


def enforced() -> desired.DesiredState:
    """Return what could be compiled of `cluster()`: endpoint 1 is x/a, 2 is x/b, set 5 is closed but for rule 9."""
    policy_set = desired.PolicySet(id=5, digest=b"5", direction=net.Direction.INGRESS, rows={}, isolating=(DENY.ref,))
    endpoints = {
        number: desired.Endpoint(
            id=number,
            namespace="x",
            pod=one.pod,
            uid=one.uid,
            labels={"app": one.pod},
            netns_cookie=one.netns_cookie,
            veth_ifindex=one.veth_ifindex,
            ingress_ifindex=one.ingress_ifindex,
            addresses=one.addresses,
            ingress_set=5,
            egress_set=0,
        )
        for number, one in enumerate(SANDBOXES, start=1)
    }
    return desired.DesiredState(
        endpoints=endpoints,
        sets={5: policy_set},
        hosts={CLIENT: identity.NumericIdentity(300), SERVER: identity.NumericIdentity(301)},
        rules={9: RULE},
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`enrich.RawEvent`: x/b refused x/a on port 80, unless told otherwise."""

    time_ns: int = 500
    endpoint: int = 2
    generation: int = 1
    policy_set: int = 5
    rule: int = 0
    source_identity: int = 300
    destination_identity: int = 301
    pid: int = 0
    source: net.Address = CLIENT
    destination: net.Address = SERVER
    source_port: int = 40000
    destination_port: int = 80
    protocol: int = 6
    layer: int = 2
    direction: int = 1
    verdict: int = 2
    reason: int = 3
    command: str = ""
    repeats: int = 0

    @property
    def came_from(self) -> tuple[net.Address, int]:
        return self.source, self.source_port

    @property
    def towards(self) -> tuple[int, int, bytes, bytes]:
        return self.endpoint, self.protocol, net.mapped(self.destination), self.destination_port.to_bytes(2, "big")


def flow(**changes: object) -> verdict.VerdictEvent:
    """Make a verdict of x/a -> x/b:80/TCP, dropped unless told otherwise."""
    base = verdict.VerdictEvent(
        time_ns=1_700_000_000_123_000_000,
        node="n1",
        verdict=verdict.Verdict.DROPPED,
        reason=verdict.Reason.POLICY_DENIED,
        direction=net.Direction.INGRESS,
        layer=verdict.Layer.PACKET,
        protocol=6,
        source=verdict.FlowEnd(address=CLIENT, port=40000, identity=300, namespace="x", pod="a"),
        destination=verdict.FlowEnd(address=SERVER, port=80, identity=301, namespace="x", pod="b"),
        generation=1,
        isolating=(DENY.ref,),
    )
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]  # a test names real fields


def kernel(loop: kernel_.Enforcing, verdicts: stream.Stream) -> kernel_.Kernel:
    """Return what answers of a datapath in memory that holds what `loop` enforces, or nothing yet."""
    datapath = memory.MemoryDatapath()
    if loop.enforcement is not None:
        datapath.apply(loop.enforcement.state)
    return kernel_.Kernel(node="n1", mode="memory", datapath=datapath, loop=loop, stream=verdicts)
