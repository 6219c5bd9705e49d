"""Pods whose manifests have no address are judged by the names, labels and addresses a recording has for them."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib

import pytest

from agent import snapshot
from agent.flows import placing, records, simulate, talks
from agent.model import identity, labels, net, resources, verdict
from agent.policy import evaluator
from tests.flows import recording
from tests.support import agents, cases
from tests.support import flows as tables

A = agents.pod("a", agents.CLIENT)
B = agents.pod("b", agents.SERVER)
BARE_A, BARE_B = (dataclasses.replace(pod, addresses=(), node=None) for pod in (A, B))
OPEN = snapshot.build((A, B))
BARE = snapshot.build((BARE_A, BARE_B))
FLOW = evaluator.Flow(
    source=A,
    destination=B,
    source_address=agents.CLIENT,
    destination_address=agents.SERVER,
    protocol=net.Protocol.TCP,
    port=80,
)
NODE_ADDRESS = ipaddress.ip_address("192.168.60.11")


def judged(base: snapshot.Snapshot, *found: records.Record, policy: resources.NetworkPolicy = agents.DENY) -> str:
    """Return the outcome of the one flow under `policy`, and why it has none."""
    told = talks.gather(found)
    (one,) = simulate.simulate(told, base, simulate.changed(base, snapshot.build((policy,)))).judged
    return one.why or one.outcome.value


def bare(cluster: snapshot.Snapshot) -> snapshot.Snapshot:
    """Return a cluster as people write it: pods without addresses, nodes without a status."""
    pods = {key: pod if pod.host_network else _stripped(pod) for key, pod in cluster.pods.items()}
    return dataclasses.replace(cluster, pods=pods)


def _stripped(pod: resources.Pod) -> resources.Pod:
    return dataclasses.replace(pod, addresses=(), node=None)


@pytest.mark.parametrize("path", recording.tables(recording.enforced()[::4], every=6))
def test_what_breaks_without_addresses_is_what_breaks_with_them(path: pathlib.Path) -> None:
    step = cases.load(path).steps[-1]
    cluster = tables.snapshot_of(step)
    open_ = dataclasses.replace(cluster, policies={})
    told = talks.gather(recording.judged(open_, (flow for _, flow in recording.flows_of(cluster, step))))
    with_, without = (simulate.simulate(told, base, simulate.changed(base, cluster)) for base in (open_, bare(open_)))
    assert [one.outcome for one in without.judged] == [one.outcome for one in with_.judged]
    assert with_.named == 0
    assert told.talks == () or without.named > 0


def test_a_pod_without_an_address_gets_those_of_the_recording_and_its_node() -> None:
    six = [ipaddress.ip_address(f"fd00::{number}") for number in (2, 3)]
    second = dataclasses.replace(FLOW, source_address=six[0], destination_address=six[1])
    found = placing.place(BARE, talks.gather(recording.judged(OPEN, [FLOW, second])).talks)
    assert found.snapshot.pods["x", "a"].addresses == (agents.CLIENT, six[0])
    assert found.snapshot.pods["x", "a"].node == "n1"
    assert found.pods == 2
    assert placing.place(OPEN, talks.gather(recording.judged(OPEN, [FLOW])).talks).snapshot == OPEN


def test_a_pod_of_that_name_with_other_labels_is_not_taken_for_the_one_recorded() -> None:
    other = dataclasses.replace(BARE_B, labels=labels.Labels({"app": "other"}))
    said = judged(snapshot.build((BARE_A, other)), *recording.judged(OPEN, [FLOW]))
    assert said == "pod x/b has no address in the manifests, and other labels than it was recorded with"


def test_labels_that_a_recording_leaves_out_and_those_of_a_roll_out_do_not_matter() -> None:
    more = dataclasses.replace(BARE_B, labels=labels.Labels({**B.labels, "team": "t", "pod-template-hash": "2"}))
    assert judged(snapshot.build((BARE_A, more)), *recording.judged(OPEN, [FLOW])) == "breaks"


def test_a_pod_of_the_same_workload_stands_in_without_an_address_of_its_own() -> None:
    twin = dataclasses.replace(BARE_B, name="b-2")
    base = snapshot.build((BARE_A, twin))
    report = simulate.simulate(
        talks.gather(recording.judged(OPEN, [FLOW])), base, simulate.changed(base, snapshot.build((agents.DENY,)))
    )
    assert [one.outcome for one in report.judged] == [simulate.Outcome.BREAKS]
    assert report.stand_ins == 1


def test_the_node_of_a_pod_is_the_one_that_told_of_it() -> None:
    """Rule A37: a pod's own node reaches it, whatever policies say; another node does not."""
    egress, ingress = recording.judged(OPEN, [FLOW])
    assert egress.direction is net.Direction.EGRESS
    own = records.End(address=NODE_ADDRESS, identity=identity.HOST, reserved=frozenset({"host"}))
    assert judged(BARE, dataclasses.replace(ingress, source=own)) == "passes"
    scheduled = snapshot.build((BARE_A, dataclasses.replace(BARE_B, node="n1")))
    assert judged(scheduled, dataclasses.replace(ingress, source=own, node="cluster/n1")) == "passes"
    other = dataclasses.replace(own, reserved=frozenset({"remote-node"}))
    assert judged(BARE, dataclasses.replace(ingress, source=other)) == "breaks"


def test_an_address_nobody_names_may_be_that_of_a_pod_without_one() -> None:
    (_, ingress) = recording.judged(OPEN, [FLOW])
    nobody = records.End(address=ipaddress.ip_address("10.9.9.9"))
    three = snapshot.build((BARE_A, BARE_B))
    said = judged(three, dataclasses.replace(ingress, source=nobody))
    assert said == "10.9.9.9 may be a pod's: some have no address in the manifests, and it was recorded without a name"
    world = dataclasses.replace(nobody, reserved=frozenset({"world"}), identity=identity.WORLD)
    assert judged(three, dataclasses.replace(ingress, source=world)) == "breaks"


def test_a_service_is_not_judged_by_some_of_its_backends() -> None:
    service = resources.Service(
        namespace="x",
        name="b",
        ports=(resources.ServicePort(port=80, protocol=net.Protocol.TCP, target=8080),),
        selector=labels.Labels({"app": "b"}),
    )
    egress = recording.judged(OPEN, [FLOW])[0]
    end = records.End(
        address=ipaddress.ip_address("10.96.0.1"), port=80, service=resources.ObjectRef("Service", "x", "b")
    )
    dialled = dataclasses.replace(egress, destination=end)
    base = snapshot.build((BARE_A, BARE_B, service))
    assert judged(base, dialled) == "Service x/b has a backend without an address: pod x/b"
    deny_all = dataclasses.replace(agents.DENY, directions=frozenset(net.Direction))
    (one,) = simulate.simulate(
        talks.gather([dialled, *recording.judged(OPEN, [dataclasses.replace(FLOW, port=8080)])]),
        base,
        simulate.changed(base, snapshot.build((deny_all,))),
    ).of(simulate.Outcome.BREAKS)[:1]
    assert one.side is not None


def test_a_flow_between_strangers_is_judged_by_nobody() -> None:
    ingress = recording.judged(OPEN, [FLOW])[1]
    ends = {
        side: dataclasses.replace(getattr(ingress, side), namespace="", pod="", labels=labels.NO_LABELS)
        for side in ("source", "destination")
    }
    strange = dataclasses.replace(ingress, **ends)
    assert judged(snapshot.build(()), strange) == "no pod of the cluster is at either end"
    audited = dataclasses.replace(strange, verdict=verdict.Verdict.AUDIT)
    assert judged(snapshot.build(()), audited) == "no pod of the cluster is at either end"
