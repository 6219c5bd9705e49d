"""The allow-list: everything a bundle holds, and how each is got. What is not here is not in it.

It names nothing that is made to hold a secret: no environment, no kubeconfig, no token, no key, no certificate, nobody
else's processes, pins, chains or sets. The agent is asked over its API, the kernel by name.
"""

from __future__ import annotations

import itertools
import pathlib
import time
from collections.abc import Callable, Iterator, Mapping

from agent import errors
from agent.cli import output
from agent.cli.bundle import archive, node, process
from agent.rpc import client, details

VERDICTS = 1000
DETAILS_S = 15.0
"""What policies are described in; the others are only listed."""
KERNEL_S = client.KERNEL_TIMEOUT_S + 5
"""What the client gives the agent to read the kernel, and a little to say that it was not enough."""
PINS = "nodewall"
BPFFS = pathlib.Path("/sys/fs/bpf")


def everything(socket: pathlib.Path, *, texts: bool) -> Iterator[archive.Item]:
    """Yield every item for the agent at `socket`; without `texts`, none that may quote labels."""
    pid = process.behind(socket)
    yield from of_agent(socket, texts=texts)
    if texts:
        yield archive.Item(name="agent/log.txt", collect=lambda: process.log_tail(pid))
    yield archive.Item(name="node/kernel.json", collect=process.in_network_of(pid, node.kernel))
    yield archive.Item(name="node/mounts.txt", collect=node.mounts)
    yield archive.Item(name="node/pins.json", collect=lambda: node.pins(_pins(socket)))
    yield archive.Item(name="node/conntrack.json", collect=process.in_network_of(pid, node.conntrack))
    yield archive.Item(name="node/iptables.txt", collect=process.in_network_of(pid, node.chains), limit_s=30.0)
    yield archive.Item(name="node/ipsets.json", collect=process.in_network_of(pid, node.ipsets))


def of_agent(socket: pathlib.Path, *, texts: bool) -> Iterator[archive.Item]:
    """Yield what the agent is asked for."""

    def ask(question: Callable[[client.AgentClient], object]) -> Callable[[], object]:
        def asked() -> object:
            with client.AgentClient(socket) as agent:
                return output.plain(question(agent))

        return asked

    yield archive.Item(name="agent/status.json", collect=ask(client.AgentClient.status))
    yield archive.Item(name="agent/config.json", collect=ask(client.AgentClient.config))
    yield archive.Item(name="agent/endpoints.json", collect=ask(client.AgentClient.endpoints))
    yield archive.Item(name="agent/policies.json", collect=ask(client.AgentClient.policies))
    if texts:
        in_words = ask(lambda agent: list(_policies(agent)))
        yield archive.Item(name="agent/policies-in-words.json", collect=in_words, limit_s=DETAILS_S + 10)
    yield archive.Item(name="agent/audit.json", collect=ask(_audit))
    yield archive.Item(name="agent/identities.json", collect=ask(client.AgentClient.identities))
    yield archive.Item(name="agent/services.json", collect=ask(client.AgentClient.services))
    yield archive.Item(name="agent/metrics.json", collect=ask(lambda agent: [_sample(one) for one in agent.metrics()]))
    yield archive.Item(name="agent/maps.json", collect=ask(client.AgentClient.tables), limit_s=KERNEL_S)
    last = ask(lambda agent: tuple(agent.watch_verdicts(follow=False, last=VERDICTS)))
    yield archive.Item(name="agent/verdicts.jsonl", collect=last)


def _policies(agent: client.AgentClient) -> Iterator[details.PolicyDetail]:
    deadline = time.monotonic() + DETAILS_S
    listed = itertools.takewhile(lambda _: time.monotonic() < deadline, agent.policies())
    for one in listed:
        yield agent.policy(one.ref.path)


def _audit(agent: client.AgentClient) -> Mapping[str, object]:
    entries, trouble = agent.audit()
    return {"audit": entries, "trouble": trouble}


def _sample(one: details.MetricSample) -> list[object]:
    """Return a sample without the word `labels`: a metric's are no pod's."""
    return [one.name, dict(one.labels), one.value]


def _pins(socket: pathlib.Path) -> pathlib.Path:
    """Return where the agent has its pins, or where agents have them unless told."""
    try:
        with client.AgentClient(socket) as agent:
            told = {one.name: one.value for one in agent.config()}
    except errors.NodewallError:
        return BPFFS / PINS
    # As the datapath names it: bpffs keeps dots for itself.
    return pathlib.Path(told.get("bpffs") or BPFFS) / PINS / told.get("node", "").replace(".", "_")
