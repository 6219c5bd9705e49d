"""What a pod belongs to, by what its labels tell."""

from __future__ import annotations

import pytest

from agent.flows import workloads
from agent.model import labels


@pytest.mark.parametrize(
    ("pod", "labelled", "expected"),
    [
        ("cart-5c8f7d-x2x4z", {"pod-template-hash": "5c8f7d"}, "cart"),
        ("cart-5c8f7d-x2x4z", {}, "cart-5c8f7d-x2x4z"),
        ("cart", {"pod-template-hash": "5c8f7d"}, "cart"),
        ("db-12", {"statefulset.kubernetes.io/pod-name": "db-12", "controller-revision-hash": "db-77"}, "db"),
        ("db-12", {"apps.kubernetes.io/pod-index": "12"}, "db"),
        ("proxy-abcde", {"controller-revision-hash": "55f", "pod-template-generation": "1"}, "proxy"),
        ("copy-2891-x2x4z", {"batch.kubernetes.io/job-name": "copy-2891"}, "copy-2891"),
        ("web-0", {"app": "web"}, "web-0"),
        ("", {}, ""),
    ],
)
def test_a_workload_is_named_where_labels_tell_its_part_of_the_pods_name(
    pod: str, labelled: dict[str, str], expected: str
) -> None:
    assert workloads.name(pod, labels.Labels(labelled)) == expected


def test_labels_of_one_pod_one_roll_out_or_one_place_are_not_stable() -> None:
    found = workloads.stable(
        labels.Labels(
            {
                "app": "web",
                "app.kubernetes.io/name": "web",
                "pod-template-hash": "5c8f7d",
                "controller-revision-hash": "a",
                "pod-template-generation": "3",
                "statefulset.kubernetes.io/pod-name": "web-0",
                "apps.kubernetes.io/pod-index": "0",
                "batch.kubernetes.io/controller-uid": "u",
                "topology.kubernetes.io/zone": "z",
                "io.cilium.k8s.policy.cluster": "c",
            }
        )
    )
    assert found == labels.Labels({"app": "web", "app.kubernetes.io/name": "web"})
