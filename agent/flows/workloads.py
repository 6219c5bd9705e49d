"""What a pod belongs to, told from its labels and name: a record does not name its owner.

Controllers add labels that differ from one pod, one roll-out or one place to the next. A policy that selects by them
selects the pods of today only; what is left of a pod's labels is what its workload is known by.
"""

from __future__ import annotations

from agent.model import labels as labels_

TEMPLATE_HASH = "pod-template-hash"
REVISION_HASH = "controller-revision-hash"
STATEFUL_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"
JOB_INDEX = "batch.kubernetes.io/job-completion-index"
UNSTABLE = frozenset(
    {
        TEMPLATE_HASH,
        REVISION_HASH,
        "pod-template-generation",
        STATEFUL_NAME,
        POD_INDEX,
        JOB_INDEX,
        "batch.kubernetes.io/controller-uid",
        "controller-uid",
        "batch.kubernetes.io/job-name",
        "job-name",
        "rollouts-pod-template-hash",
    }
)
"""Keys whose values a controller chooses anew."""
UNSTABLE_DOMAINS = ("topology.kubernetes.io/", "topology.istio.io/", "failure-domain.beta.kubernetes.io/")
DERIVED_DOMAINS = ("io.cilium.", "io.kubernetes.pod.")


def derived(key: str) -> bool:
    """Tell whether a key is put among a pod's labels by who records, not by who made the pod."""
    return key.startswith(DERIVED_DOMAINS)


def stable(labels: labels_.Labels) -> labels_.Labels:
    """Return the labels that all pods of a workload have, now and after the next roll-out."""
    return labels_.Labels(
        {
            key: value
            for key, value in labels.items()
            if key not in UNSTABLE and not key.startswith(UNSTABLE_DOMAINS) and not derived(key)
        }
    )


def name(pod: str, labels: labels_.Labels) -> str:
    """Return the name of the pod's workload where its labels tell which part of the pod's name that is; else the pod's.

    >>> name("cart-5c8f7d-x2x4z", labels_.Labels({"pod-template-hash": "5c8f7d"}))
    'cart'
    """
    template = labels.get(TEMPLATE_HASH)
    if template:
        head, found, _ = pod.rpartition(f"-{template}-")
        return head if found and head else pod
    head, dash, tail = pod.rpartition("-")
    if not dash or not head:
        return pod
    ordinal = labels.get(STATEFUL_NAME) == pod or labels.get(POD_INDEX) == tail
    if (ordinal and tail.isdigit()) or (REVISION_HASH in labels and not ordinal):
        return head
    job = labels.get("batch.kubernetes.io/job-name") or labels.get("job-name")
    return job if job and pod.startswith(f"{job}-") else pod
