"""Advice allows what was seen and nothing else, and says what it cannot express."""

from __future__ import annotations

import dataclasses
import ipaddress
import pathlib
from collections.abc import Iterable
from typing import Any

import pytest

from agent import decode, snapshot
from agent.flows import advise, manifests, records, selectors, talks
from agent.model import labels, net, resources
from agent.policy import evaluator, reachability
from tests.flows import recording
from tests.support import agents, cases
from tests.support import flows as tables

DISTINCT = ("networkpolicy", "seeds", "blocks", "host-network")
"""Tables in which no two pods are of one workload."""
WORLD = ipaddress.ip_address("203.0.113.10")


def pod(name: str, address: str, namespace: str = "x", **labelled: str) -> resources.Pod:
    return resources.Pod(
        namespace=namespace,
        name=name,
        uid=name,
        node="n1",
        labels=labels.Labels(labelled),
        addresses=(ipaddress.ip_address(address),),
    )


def flow(source: evaluator.Party, destination: evaluator.Party, port: int = 80, **more: Any) -> evaluator.Flow:
    found = evaluator.Flow(
        source=source,
        destination=destination,
        source_address=source.addresses[0] if source else WORLD,
        destination_address=destination.addresses[0] if destination else WORLD,
        protocol=net.Protocol.TCP,
        port=port,
    )
    return dataclasses.replace(found, **more)


def advised(found: Iterable[records.Record], known: Iterable[selectors.Workload] = ()) -> advise.Advice:
    return advise.advise(talks.gather(found), known)


def decoded(documents: Iterable[dict[str, Any]]) -> list[resources.Resource]:
    """Return what an agent makes of manifests; there must be nothing wrong with them."""
    items = [item for document in documents for item in decode.decode_all(document)]
    assert [problem for item in items for problem in item.problems] == []
    return [item.resource for item in items if item.resource is not None]


def enforced(cluster: snapshot.Snapshot, advice: advise.Advice) -> snapshot.Snapshot:
    """Return the cluster under the advised policies and no other."""
    made = snapshot.build(decoded(document for _, document in manifests.kubernetes(advice)))
    return dataclasses.replace(cluster, policies=made.policies)


def opened(cluster: snapshot.Snapshot, flows: Iterable[evaluator.Flow]) -> set[talks.Key]:
    found = talks.gather(recording.judged(cluster, flows)).talks
    return {talk.key for talk in found if talk.passed}


@pytest.mark.parametrize(
    "path",
    recording.tables([path for path in cases.paths() if path.parent.name in DISTINCT], every=8),
)
def test_advice_on_the_traffic_of_a_table_allows_exactly_that_traffic(path: pathlib.Path) -> None:
    step = cases.load(path).steps[-1]
    cluster = tables.snapshot_of(step)
    ports = sorted({(check.port, check.protocol) for check in step.checks}, key=str)
    flows = [one for _, one in recording.flows_of(cluster, step)]
    advice = advised(recording.judged(cluster, flows))
    after = enforced(cluster, advice)
    assert opened(after, flows) == opened(cluster, flows)
    passed = {(one.source, one.destination, one.port, one.protocol) for one in flows}
    isolated = {one.workload for one in advice.policies}
    others = [
        one
        for source in cluster.pods.values()
        for destination in cluster.pods.values()
        if source.has_identity and destination.has_identity and source is not destination
        for port in ports
        for one in reachability.flows(source, destination, port)
        if (source, destination, *port) not in passed
        if isolated & {selectors.Workload(pod.namespace, pod.labels) for pod in (source, destination)}
    ]
    assert not opened(after, others)


def test_pods_of_one_workload_share_a_policy_and_what_tells_them_apart_is_no_label() -> None:
    one = pod("web-5c-aaaaa", "10.0.0.1", app="web", **{"pod-template-hash": "5c"})
    two = pod("web-5c-bbbbb", "10.0.0.2", app="web", **{"pod-template-hash": "5c"})
    db = pod("db-0", "10.0.0.3", app="db", **{"statefulset.kubernetes.io/pod-name": "db-0"})
    cluster = snapshot.build((one, two, db))
    advice = advised(recording.judged(cluster, [flow(one, db, 5432), flow(two, db, 5432)]))
    documents = {one.name: document for one, document in manifests.kubernetes(advice)}
    assert documents == {
        "db": {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "db-advised", "namespace": "x"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "db"}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {
                        "from": [{"podSelector": {"matchLabels": {"app": "web"}}}],
                        "ports": [{"port": 5432, "protocol": "TCP"}],
                    }
                ],
            },
        },
        "web": {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "web-advised", "namespace": "x"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "web"}},
                "policyTypes": ["Ingress", "Egress"],
                "egress": [
                    {
                        "to": [{"podSelector": {"matchLabels": {"app": "db"}}}],
                        "ports": [{"port": 5432, "protocol": "TCP"}],
                    }
                ],
            },
        },
    }


def test_a_workload_whose_labels_are_part_of_anothers_is_told_from_it() -> None:
    plain, canary, bare = (
        pod("web", "10.0.0.1", app="web"),
        pod("canary", "10.0.0.2", app="web", track="canary"),
        pod("bare", "10.0.0.3"),
    )
    client = pod("client", "10.0.1.1", "y", app="client")
    cluster = snapshot.build((plain, canary, bare, client))
    flows = [flow(source, to) for source in cluster.pods.values() for to in cluster.pods.values() if source != to]
    recorded = [*recording.judged(cluster, [flow(client, plain)])]
    denied = dataclasses.replace(cluster, policies={agents.DENY.ref: agents.DENY})
    recorded += recording.judged(denied, [flow(client, canary), flow(client, bare)])
    advice = advised(recorded)
    after = enforced(cluster, advice)
    assert opened(after, flows) == opened(cluster, [flow(client, plain)])
    web = next(document for one, document in manifests.kubernetes(advice) if one.name == "web")
    assert web["spec"]["podSelector"] == {
        "matchLabels": {"app": "web"},
        "matchExpressions": [{"key": "track", "operator": "DoesNotExist"}],
    }


def test_pods_that_are_only_known_from_the_cluster_are_told_apart_too() -> None:
    web, client = pod("web", "10.0.0.1", app="web"), pod("c", "10.0.0.2", app="c")
    idle = selectors.Workload("x", labels.Labels({"app": "web", "job": "nightly"}))
    advice = advised(recording.judged(snapshot.build((web, client)), [flow(client, web)]), [idle])
    chosen = {one.name: document["spec"]["podSelector"] for one, document in manifests.kubernetes(advice)}
    assert chosen["web"]["matchExpressions"] == [{"key": "job", "operator": "DoesNotExist"}]
    assert len(advice.policies) == 2


def test_replies_and_what_was_denied_last_are_not_allowed() -> None:
    web, db = pod("web", "10.0.0.1", app="web"), pod("db", "10.0.0.2", app="db")
    cluster = snapshot.build((web, db))
    found = recording.judged(cluster, [flow(web, db)])
    replies = [dataclasses.replace(one, reply=True) for one in recording.judged(cluster, [flow(db, web, 40000)])]
    advice = advised([*found, *replies])
    assert {one.name: len(one.rules[net.Direction.INGRESS]) for one in advice.policies} == {"db": 1, "web": 0}
    closed = dataclasses.replace(cluster, policies={agents.DENY.ref: agents.DENY})
    later = [dataclasses.replace(one, time_ns=one.time_ns + 10**9) for one in recording.judged(closed, [flow(web, db)])]
    advice = advised([*found, *later])
    assert not any(rules for one in advice.policies for rules in one.rules.values())


def test_machines_outside_are_addresses_with_their_names_in_a_note() -> None:
    web = pod("web", "10.0.0.1", app="web")
    host = resources.Host(name="api.example.com", addresses=(WORLD,))
    advice = advised(recording.judged(snapshot.build((web, host)), [flow(web, host, 443), flow(host, web)]))
    ((one, document),) = manifests.kubernetes(advice)
    block = {"ipBlock": {"cidr": "203.0.113.10/32"}}
    assert document["spec"]["egress"][0]["to"] == [block]
    assert document["spec"]["ingress"][0]["from"] == [block]
    assert "203.0.113.10 is api.example.com; names may get other addresses" in one.notes
    ((_, document),) = manifests.cilium(advice)
    assert document["spec"]["egress"][0]["toFQDNs"] == [{"matchName": "api.example.com"}]
    assert document["spec"]["ingress"][0]["fromCIDR"] == ["203.0.113.10/32"]


def test_cluster_dns_is_selected_by_the_label_it_has_everywhere() -> None:
    web = pod("web", "10.0.0.1", app="web")
    dns = pod("coredns-1", "10.0.0.53", "kube-system", **{"k8s-app": "kube-dns", "pod-template-hash": "1", "eks": "a"})
    query = flow(web, dns, 53, protocol=net.Protocol.UDP)
    advice = advised(recording.judged(snapshot.build((web, dns)), [query]))
    one, document = next(found for found in manifests.kubernetes(advice) if found[0].name == "web")
    assert document["spec"]["egress"] == [
        {
            "to": [
                {
                    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                }
            ],
            "ports": [{"port": 53, "protocol": "UDP"}],
        }
    ]
    assert any("53/TCP" in note for note in one.notes)


def test_what_no_policy_can_say_is_a_note() -> None:
    web = pod("web", "10.0.0.1", app="web")
    own, other = (resources.Node(name=name, addresses=(ipaddress.ip_address(at),)) for name, at in NODES)
    cluster = snapshot.build((web, own, other))
    flows = [flow(own, web), flow(web, other, 9100), flow(web, None, 0, protocol=net.Protocol.ICMP)]
    ((one, document),) = manifests.kubernetes(advised(recording.judged(cluster, flows)))
    said = "\n".join(one.notes)
    assert "from 192.168.0.1: the pod's own node, which no NetworkPolicy can keep out" in said
    assert "192.168.0.2 is a node's" in said
    assert "ICMP to 203.0.113.10 passed; no NetworkPolicy can say so" in said
    assert "ingress" not in document["spec"]
    assert document["spec"]["egress"][0]["to"] == [{"ipBlock": {"cidr": "192.168.0.2/32"}}]


NODES = (("n1", "192.168.0.1"), ("n2", "192.168.0.2"))


def test_a_workload_that_others_told_of_alone_gets_no_policy() -> None:
    web, db = pod("web", "10.0.0.1", app="web"), pod("db", "10.0.0.2", app="db")
    advice = advised(recording.judged(snapshot.build((web, db)), [flow(web, db)])[:1])
    assert [one.name for one in advice.policies] == ["web"]
    assert advice.notes == ("x/db: no policy, as its own node was not recorded",)


def test_labels_and_names_no_api_takes_get_no_selector() -> None:
    web = pod("web", "10.0.0.1", app="web")
    forged = pod("evil", "10.0.0.2", app="a b\nc: {}")
    advice = advised(recording.judged(snapshot.build((web, forged)), [flow(web, forged)]))
    ((one, document),) = manifests.kubernetes(advice)
    assert "egress" not in document["spec"]
    assert any("its labels are none" in note for note in one.notes)
    assert any("x/evil" in note for note in advice.notes)
    assert not selectors.Workload("no namespace", labels.NO_LABELS).nameable


def test_policies_have_names_of_their_own_that_the_api_takes() -> None:
    first, second = pod("Web_1", "10.0.0.1", app="a"), pod("web.-1", "10.0.0.2", app="b")
    advice = advised(recording.judged(snapshot.build((first, second)), [flow(first, second)]))
    names = [document["metadata"]["name"] for _, document in manifests.kubernetes(advice)]
    assert names == ["web-1-advised", "web-1-advised-2"]


def test_cilium_policies_isolate_where_nothing_was_seen() -> None:
    web, db = pod("web", "10.0.0.1", app="web"), pod("db", "10.0.0.2", "y", app="db")
    advice = advised(recording.judged(snapshot.build((web, db)), [flow(web, db)]))
    found = {one.name: document["spec"] for one, document in manifests.cilium(advice)}
    assert found["web"] == {
        "endpointSelector": {"matchLabels": {"app": "web"}},
        "ingress": [{}],
        "egress": [
            {
                "toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "y", "app": "db"}}],
                "toPorts": [{"ports": [{"port": "80", "protocol": "TCP"}]}],
            }
        ],
    }
