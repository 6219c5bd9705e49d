"""What learning from DNS costs: the kernel's program on one answer, and a look-up as a pod sees it.

An answer counts once, for the query that it answers, so each run of the program follows one of the program that reads
queries, and is timed by itself; the baseline is a packet of another kind, timed in the same way.

A look-up is asked of a resolver outside, in one process, one after the other: without the program at the pod's veth,
with it, and through a Python proxy beside the resolver instead (`dns_serving`). Rounds go over the three in turn, so
that a busy moment of the machine hits each of them.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
import time
from collections.abc import Callable, Iterator

from agent.datapath import probe
from agent.datapath.bpf import datapath as datapath_
from agent.datapath.bpf import dns_loader, syscalls
from agent.model import net
from tests.bench import dns_messages, dns_serving, figures
from tests.bpf import by_name
from tests.bpf import node as node_
from tests.bpf.dns import rig, wire

BPFFS = pathlib.Path("/sys/fs/bpf")
RECORDS = (1, 4, 32)
RUNS = 3000
UNREAD = 1000
"""Answers in the ring at most, which has room for more: whoever reads it is woken when it had caught up, no more."""
OTHER_PORT = 4053
ROUNDS = 9
LOOK_UPS = 1000
BEHIND_PORT = 5353
"""Of the resolver, where the pod asks a proxy."""
ANSWERED = 1
"""Records of an answer to a look-up that is timed from the pod."""
PATIENCE_S = 5.0
PLAIN, LEARNED, PROXIED = "no program", "the learner", "a Python proxy"


def run() -> list[figures.Figure]:
    """Measure the programs, then look-ups."""
    probe.require_bpffs(BPFFS)
    found = [figure for variant in dns_loader.Variant for figure in _programs(variant)]
    return found + _look_ups()


def _programs(variant: dns_loader.Variant) -> Iterator[figures.Figure]:
    """Time one variant on answers with more and more records."""
    with rig.loaded(BPFFS, variant) as learner:
        learner.clear()
        learner.know(dns_messages.NAME, exact=rig.API)
        other = wire.frame(rig.RESOLVER4, rig.POD4, (OTHER_PORT, OTHER_PORT), dns_messages.answer(1))
        baseline = _median_ns(learner, other)
        yield figures.Figure(name=f"not DNS, {variant.value}", value=baseline, unit="ns")
        for count in RECORDS:
            answer = dns_messages.answer(count)
            frame = wire.frame(rig.RESOLVER4, rig.POD4, (wire.PORT, rig.CLIENT_PORT), answer)
            taken = _median_ns(learner, frame, lambda: learner.ask(dns_messages.query()))
            learned = len({one.address for one in learner.learned()})
            assert learned == count, f"{learned} of {count} addresses were learned"
            yield figures.Figure(
                name=f"answer with {count} addresses, {variant.value}", value=taken, unit="ns", baseline=baseline
            )


def _median_ns(learner: rig.Learner, frame: bytes, before: Callable[[], object] = lambda: None) -> float:
    """Return what one run of the program on `frame` takes; `before` is done before each, and not timed."""
    program, took = learner.programs[dns_loader.ANSWER], []
    for number in range(RUNS):
        if number % UNREAD == 0:
            while learner.reader.read():
                pass
        before()
        took.append(syscalls.program_test_run(program, frame).nanoseconds)
    return figures.median(took)


def _look_ups() -> list[figures.Figure]:
    """Time look-ups from a pod of a node that learns, and of the same node that does not."""
    took: dict[str, list[float]] = {PLAIN: [], LEARNED: [], PROXIED: []}
    with node_.running() as node, _datapath(node) as datapath:
        datapath.apply(by_name.state(node, by_name.build(f"*.{dns_messages.ZONE}")))
        for _ in range(ROUNDS):
            for kind, several in took.items():
                datapath.attach_links(by_name.sandboxes(node) if kind == LEARNED else ())
                several.append(_round(node, proxied=kind == PROXIED))
        learned = {address for _, address in datapath.known().addresses}
    assert dns_messages.FIRST in learned, "nothing was learned"
    plain = figures.median(took[PLAIN])
    return [
        figures.Figure(
            name=f"look-up, {kind}",
            value=figures.median(several),
            unit="us",
            baseline=None if kind == PLAIN else plain,
            note="" if kind == PLAIN else f"{figures.median(several) - plain:+.2f} us",
        )
        for kind, several in took.items()
    ]


@contextlib.contextmanager
def _datapath(node: node_.Node) -> Iterator[datapath_.BPFDatapath]:
    datapath = datapath_.BPFDatapath(node=f"bench-{os.getpid()}", bpffs=BPFFS, cgroup_root=node.cgroup)
    try:
        datapath.open()
        yield datapath
    finally:
        datapath.uninstall()


def _round(node: node_.Node, *, proxied: bool) -> float:
    """Return the median of LOOK_UPS from the first pod, in microseconds."""
    outside, pod = node.outside, node.pods[0]
    with contextlib.ExitStack() as serving:
        port = BEHIND_PORT if proxied else wire.PORT
        serving.enter_context(outside.started(dns_serving.resolver(port, ANSWERED)))
        if proxied:
            serving.enter_context(outside.started(dns_serving.proxy(wire.PORT, BEHIND_PORT)))
        return pod.run(_asks(outside.address4, wire.PORT))


def _asks(server: net.Address, port: int) -> Callable[[], float]:
    """Return what asks a server one query after the other, once it answers."""
    query = dns_messages.query()

    def action() -> float:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.connect((str(server), port))
            _wait_for(client, query)
            took = []
            for _ in range(LOOK_UPS):
                begin = time.perf_counter_ns()
                client.send(query)
                client.recv(dns_serving.DATAGRAM)
                took.append((time.perf_counter_ns() - begin) / 1000)
        return figures.median(took)

    return action


def _wait_for(client: socket.socket, query: bytes) -> None:
    """Return once the server answers; it has only been started."""
    client.settimeout(0.05)
    until = time.monotonic() + PATIENCE_S
    while True:
        with contextlib.suppress(OSError):
            client.send(query)
            client.recv(dns_serving.DATAGRAM)
            break
        assert time.monotonic() < until, "the resolver does not answer"
        time.sleep(0.01)
    client.settimeout(PATIENCE_S)
    with contextlib.suppress(TimeoutError):
        client.settimeout(0.1)
        while client.recv(dns_serving.DATAGRAM):
            pass
    client.settimeout(PATIENCE_S)
