"""Which pods are one workload: what their controller's labels say, else those of one namespace with equal labels.

A manifest or a record of a pod need not name its owner. The labels a controller adds tell which part of a pod's name
is the owner's; pods without such labels that agree in every stable label are taken for one workload, too, and a pod
that shares its labels with nobody stands for itself.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Mapping

from agent.flows import workloads
from agent.graph import model
from agent.model import labels as labels_
from agent.model import resources

PodName = tuple[str, str]
NAMING = ("app.kubernetes.io/name", "app.kubernetes.io/instance", "app", "k8s-app", "name", "run", "component")
"""Labels that name a workload, best first."""


def group(pods: Iterable[resources.Pod], *, expand: bool) -> Mapping[PodName, model.Key]:
    """Return the node each pod belongs to; with `expand` each its own."""
    every = sorted(pods, key=lambda pod: (pod.namespace, pod.name))
    if expand:
        return {(pod.namespace, pod.name): model.Key(pod.namespace, pod.name, model.Kind.POD.value) for pod in every}
    found: dict[PodName, model.Key] = {}
    alike: dict[tuple[str, labels_.Labels], list[resources.Pod]] = collections.defaultdict(list)
    for pod in every:
        owner = workloads.name(pod.name, pod.labels)
        stable = workloads.stable(pod.labels)
        if owner != pod.name or not stable:
            found[pod.namespace, pod.name] = model.Key(pod.namespace, owner)
        else:
            alike[pod.namespace, stable].append(pod)
    taken = set(found.values())
    for (namespace, stable), several in alike.items():
        key = model.Key(namespace, _name(several, stable))
        if key in taken:
            key = model.Key(namespace, several[0].name)
        taken.add(key)
        found.update({(pod.namespace, pod.name): key for pod in several})
    return found


def _name(pods: list[resources.Pod], stable: labels_.Labels) -> str:
    if len(pods) == 1:
        return pods[0].name
    shared = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*(pod.name for pod in pods), strict=False))
    prefix = "".join(letters[0] for letters in shared).rstrip("-.0123456789")
    return prefix or next((stable[key] for key in NAMING if stable.get(key)), pods[0].name)
