"""Labs without agents: everything connects, as in a cluster without policy."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent import errors
from agent.lab import agents, comparison, exchange, kernel, lab, plan, removal, rundir
from agent.model import net
from tests.lab import manifests

pytestmark = pytest.mark.root

BOTH = (net.Family.IPV4, net.Family.IPV6)
PORTS = ("80/TCP", "80/UDP", "80/SCTP")
DOCUMENTS = [
    manifests.node("node-1", "192.168.7.1", "fd00:7::1"),
    manifests.node("node-2", "192.168.7.2", "fd00:7::2"),
    manifests.pod("a", ports=PORTS),
    manifests.pod("b", ports=PORTS),
    manifests.pod("c", node="node-2", ports=PORTS),
    manifests.pod("onhost", node="node-2", hostNetwork=True, ports=("7000/TCP", "7000/UDP")),
    manifests.host("far", "203.0.113.10", "2001:db8::10", ports=PORTS),
    manifests.service("web", app="a", port=8080, target=80, type="NodePort"),
    manifests.service("both", app="none", port=8080, target=80),
]
SOURCES = ("x/a", "x/b", "x/c", "x/onhost", "node/node-1", "node/node-2")


def _name(suffix: str = "") -> str:
    return f"unit-{os.getpid()}{suffix}"


@pytest.fixture(scope="module", params=list(plan.Topology), ids=lambda topology: topology.value)
def running(request: pytest.FixtureRequest) -> Iterator[lab.Lab]:
    with lab.Lab(name=_name(), topology=request.param, families=BOTH, agents=False) as built:
        built.up(DOCUMENTS)
        yield built


def _to_service(running: lab.Lab, name: str, source: str, *, tries: int = 1) -> list[exchange.ProbeResult]:
    service = running.plan.snapshot.services["x", name]
    requests = [
        exchange.ProbeRequest(source=source, destination=name, port=8080, protocol=protocol, address=address)
        for address in service.cluster_addresses
        for protocol in (net.Protocol.TCP, net.Protocol.UDP)
        for _ in range(tries)
    ]
    return running.probe(requests)


def test_everybody_reaches_everybody_by_every_protocol_and_family(running: lab.Lab) -> None:
    rows = comparison.compare(running, timeout_s=2.0)
    assert {(row.expected.family, row.expected.port[1]) for row in rows} >= {
        (family, protocol) for family in BOTH for protocol in (net.Protocol.TCP, net.Protocol.UDP, net.Protocol.SCTP)
    }
    assert [row.measured for row in rows if row.measured.answered_by != row.expected.destination] == []
    assert comparison.disagreements(rows) == []


def test_nodes_reach_pods(running: lab.Lab) -> None:
    """Rule A37: as kubelet's probes do."""
    requests = [
        exchange.ProbeRequest(source=f"node/{node}", destination=pod, port=80, family=family)
        for node in ("node-1", "node-2")
        for pod in ("x/a", "x/c")
        for family in BOTH
    ]
    assert all(result.allowed for result in running.probe(requests, 2.0))


@pytest.mark.parametrize("source", SOURCES)
def test_a_service_leads_to_its_pod_itself_included(running: lab.Lab, source: str) -> None:
    """Rule A40: the pod behind the Service reaches itself through it (hairpin)."""
    assert {result.answered_by for result in _to_service(running, "web", source)} == {"x/a"}


@pytest.mark.parametrize("source", ["x/a", "x/c", "node/node-1"])
def test_a_service_without_endpoints_is_refused_at_once(running: lab.Lab, source: str) -> None:
    results = _to_service(running, "both", source)
    # the kernel itself says EPERM to a local sender of a datagram that its own netfilter refuses
    refusals = {"ECONNREFUSED", "EPERM"} if source.startswith("node/") else {"ECONNREFUSED"}
    assert {result.error for result in results} <= refusals
    assert all(result.milliseconds < 900 for result in results)


@pytest.mark.parametrize("source", ["host/far", "x/b", "x/c"])
def test_node_ports_answer_on_every_node(running: lab.Lab, source: str) -> None:
    ports = running.plan.snapshot.services["x", "web"].ports
    requests = [
        exchange.ProbeRequest(source=source, destination="web", port=port.node_port, protocol=port.protocol, address=ip)
        for node in running.plan.nodes.values()
        for ip in node.addresses
        for port in ports
        if port.node_port
    ]
    assert {result.answered_by for result in running.probe(requests, 2.0)} == {"x/a"}
    assert len(requests) == 8


def test_datagrams_without_connect_are_answered_too(running: lab.Lab) -> None:
    request = exchange.ProbeRequest(
        source="x/b", destination="x/c", port=80, protocol=net.Protocol.UDP, connected=False
    )
    assert running.probe([request])[0].answered_by == "x/c"


def test_a_port_nobody_listens_on_is_refused(running: lab.Lab) -> None:
    protocols = (net.Protocol.TCP, net.Protocol.UDP, net.Protocol.SCTP)
    requests = [exchange.ProbeRequest(source="x/a", destination="x/c", port=9, protocol=p) for p in protocols]
    assert [result.error for result in running.probe(requests)] == ["ECONNREFUSED"] * 3


def test_nothing_at_all_times_out(running: lab.Lab) -> None:
    address = net.host_network(running.plan.nodes["node-1"].addresses[0]).supernet(new_prefix=24)[200]
    request = exchange.ProbeRequest(source="x/a", destination="nobody", port=80, address=address)
    result = running.probe([request], 0.3)[0]
    assert (result.allowed, result.errno) == (False, result.errno)
    assert result.errno


def test_commands_run_as_processes_of_the_pod(running: lab.Lab) -> None:
    text = "grep -o '0::.*kubepods.*' /proc/self/cgroup; ip -o -4 addr show eth0; exit 7"
    done = running.exec("x/a", ["sh", "-c", text], capture_output=True)
    assert done.returncode == 7
    assert f"pod{running.plan.pods['x/a'].uid}" in done.stdout
    assert str(running.plan.pods["x/a"].addresses[0]) in done.stdout
    assert running.exec("x/a", ["/no/such/program"], capture_output=True).returncode == 127


def test_a_lab_is_found_again_by_its_name(running: lab.Lab) -> None:
    again = lab.Lab.open(running.paths.name)
    assert again.plan == running.plan
    assert [party["alive"] for party in again.status()["parties"]] == [True] * 5


def test_a_second_lab_of_that_name_is_refused_and_the_first_one_stays(running: lab.Lab) -> None:
    with pytest.raises(errors.LabError, match="is there already"):
        lab.Lab(name=running.paths.name, agents=False).up(DOCUMENTS)
    assert running.probe([exchange.ProbeRequest(source="x/a", destination="x/c", port=80)])[0].allowed


def test_pods_and_hosts_come_and_go_and_come_back(running: lab.Lab) -> None:
    fewer = [document for document in DOCUMENTS if document["metadata"]["name"] not in ("b", "far")]
    container = running.plan.pods["x/b"].container
    netns = running.paths.pod_netns("node-1", container)
    entry = running.paths.cni_results("node-1") / f"nodewall-lab-{container}-eth0"
    assert entry.exists()
    running.apply(fewer)
    assert not netns.exists()
    assert not entry.exists()
    assert "x/b" not in running.plan.pods
    assert running.exec("node/node-1", ["ip", "link", "show", f"veth{container[:8]}"], capture_output=True).returncode
    running.apply(DOCUMENTS)
    assert comparison.disagreements(comparison.compare(running, timeout_s=2.0)) == []


def test_services_follow_their_pods(running: lab.Lab) -> None:
    relabelled = [
        {**document, "metadata": {**document["metadata"], "labels": {"app": "none"}}}
        if document["metadata"]["name"] == "c"
        else document
        for document in DOCUMENTS
    ]
    running.apply(relabelled)
    assert {result.answered_by for result in _to_service(running, "both", "x/a")} == {"x/c"}
    running.apply(DOCUMENTS)
    assert {result.error for result in _to_service(running, "both", "x/a")} == {"ECONNREFUSED"}


def test_a_finished_pod_loses_its_namespace_and_keeps_its_manifest(running: lab.Lab) -> None:
    """Rule A27."""
    finished = [
        {**document, "status": {"phase": "Succeeded"}} if document["metadata"]["name"] == "b" else document
        for document in DOCUMENTS
    ]
    running.apply(finished)
    assert "x/b" not in running.plan.pods
    assert (running.paths.manifests / "pod_x_b.yaml").exists()
    running.apply(DOCUMENTS)
    assert running.probe([exchange.ProbeRequest(source="x/b", destination="x/c", port=80)])[0].allowed


def test_nodes_cannot_come_into_a_running_lab(running: lab.Lab) -> None:
    with pytest.raises(errors.LabError, match="nodes cannot"):
        running.apply([*DOCUMENTS, manifests.node("node-3", "192.168.7.3", "fd00:7::3")])


def test_a_failed_build_leaves_nothing() -> None:
    name = _name("f")
    same_port = [manifests.pod(pod, hostNetwork=True, ports=("7000/TCP",)) for pod in "ab"]
    with pytest.raises(errors.LabError, match="cannot listen on 7000/TCP"):
        lab.Lab(name=name, agents=False).up(same_port)
    assert not _traces(name)


def test_an_agent_that_ends_is_shown_with_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    name = _name("a")
    monkeypatch.setattr(agents, "flags", lambda *_: ["--no-such-flag"])
    with pytest.raises(errors.LabError, match=r"the agent of node-1 ended:(.|\n)*--no-such-flag|required"):
        lab.Lab(name=name).up([manifests.pod("a")])
    assert not _traces(name)


def test_down_removes_a_lab_whose_builder_was_killed() -> None:
    name = _name("k")
    script = (
        "import os, signal; from agent.lab import lab; from tests.lab import test_lab;"
        f"lab.Lab(name={name!r}, agents=False).up(test_lab.DOCUMENTS); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert removal.processes(rundir.RunDirectory(name).cgroup)
    assert lab.Lab(name=name).down()
    assert not _traces(name)
    assert not lab.Lab(name=name).down()


def _traces(name: str) -> list[pathlib.Path]:
    paths = rundir.RunDirectory(name)
    found = [path for path in (paths.path, paths.cgroup, paths.bpffs) if path.exists()]
    return found + [pathlib.Path(point) for point in kernel.mounts_below(paths.path)]
