"""What to ask a container runtime next, and what its answers say beside the CNI cache: pure.

The cache is believed. It is complete before anything of a pod runs, while containerd lists a sandbox only once its
pause container runs, so a sandbox that the list lacks is the rule at a pod's start and proves nothing. Hence:

1. Listed, and the cache says no address of it: its status is asked, once, and stands in for the cache. A pod on the
   node's own network is none of ours. One without a network namespace to be found is a Problem.
2. In the cache, but missing from so many lists in a row (`MISSED_AFTER_LISTED` of one that was listed before,
   `MISSED_NEVER_LISTED` of one that never was): its status is asked. Only if the runtime answers that there is no such
   sandbox, the entry is stale: it loses its addresses and interfaces, which another pod may have by now, keeps its
   policy by cookie as long as its namespace lives, and is a Problem. A sandbox that is only not ready (its pause
   container died) keeps everything: its other processes may run on.
3. Listed under another pod than the cache says: a Problem; the cache counts.

Lists that failed count for nothing, so a runtime that is away changes nothing.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping

from agent.model import resources
from agent.node import cni_cache, joining
from agent.node.cri import messages

INTERFACE = "eth0"
"""Kubernetes' name for a pod's own; the runtime tells addresses, not where they are."""
MISSED_AFTER_LISTED = 10
MISSED_NEVER_LISTED = 120
_NEVER_LISTED = MISSED_AFTER_LISTED - MISSED_NEVER_LISTED
"""Where the count of one that never was listed begins."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """All that a runtime has said, as far as it still counts; empty before its first answer."""

    lists: int = 0
    """Counts the lists."""
    listed: Mapping[str, messages.Listed] = dataclasses.field(default_factory=dict)
    """The sandboxes that were ready in the last list, by id."""
    statuses: Mapping[str, messages.Status] = dataclasses.field(default_factory=dict)
    """Of listed ones."""
    missed: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Of sandboxes of the cache: how many lists in a row lacked it, from below zero for one that never was listed."""
    asked: Mapping[str, int] = dataclasses.field(default_factory=dict)
    """Of listed sandboxes and those of the cache: after which list its status was asked last."""
    gone: frozenset[str] = frozenset()
    """Sandboxes of the cache that the runtime said it does not know."""
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Of listed sandboxes whose status could not be had, why."""


def heard_list(known: Known, answer: Iterable[messages.Listed], cached: Iterable[cni_cache.Attachment]) -> Known:
    """Take a list; what is known of sandboxes that neither it nor the cache has is forgotten."""
    listed = {one.id: one for one in answer}
    ids = {one.container for one in cached if one.container}
    return Known(
        lists=known.lists + 1,
        listed=listed,
        statuses={key: status for key, status in known.statuses.items() if key in listed},
        missed={key: 0 if key in listed else known.missed.get(key, _NEVER_LISTED) + 1 for key in ids},
        asked={key: number for key, number in known.asked.items() if key in listed or key in ids},
        gone=(known.gone & ids) - listed.keys(),
        failed={key: why for key, why in known.failed.items() if key in listed},
    )


def question(known: Known, cached: Iterable[cni_cache.Attachment]) -> str | None:
    """Return the id of the sandbox whose status to ask now, if any: who was asked longest ago first, once a list."""
    explained = {one.container for one in cached if not one.is_loopback}
    unexplained = known.listed.keys() - explained - known.statuses.keys()
    doubtful = {key for key, missed in known.missed.items() if missed >= MISSED_AFTER_LISTED} - known.gone
    candidates = [key for key in unexplained | doubtful if known.asked.get(key, 0) < known.lists]
    return min(candidates, key=lambda key: (known.asked.get(key, 0), key), default=None)


def heard_status(known: Known, sandbox: str, status: messages.Status | None) -> Known:
    """Take an answer to `question`; None: there is no such sandbox."""
    failed = {key: why for key, why in known.failed.items() if key != sandbox}
    known = dataclasses.replace(known, asked={**known.asked, sandbox: known.lists}, failed=failed)
    if status is None:
        return dataclasses.replace(known, gone=known.gone | ({sandbox} & known.missed.keys()))
    if sandbox in known.listed:
        return dataclasses.replace(known, statuses={**known.statuses, sandbox: status})
    return dataclasses.replace(known, missed={**known.missed, sandbox: 0})  # not ready, but there


def heard_nothing(known: Known, sandbox: str, why: str) -> Known:
    """Take it that `question` was not answered, or not so that it could be read."""
    failed = {**known.failed, sandbox: why} if sandbox in known.listed else known.failed
    return dataclasses.replace(known, asked={**known.asked, sandbox: known.lists}, failed=failed)


def view(known: Known, cached: Iterable[cni_cache.Attachment]) -> joining.RuntimeView:
    """Return what the runtime adds to the cache, and what the two disagree about."""
    cached = tuple(cached)
    own = {one.container: one for one in cached if not one.is_loopback}
    attachments, problems = [], []
    for key, status in sorted(known.statuses.items()):
        if key in own or status.host_network:
            continue
        if status.netns is None:
            problems.append(_nowhere(status.sandbox))
        else:
            attachments.append(_attachment(status, status.netns))
    problems += [_unread(known.listed[key], why) for key, why in sorted(known.failed.items()) if key not in own]
    for key, attachment in sorted(own.items()):
        other = known.listed.get(key)
        if key in known.gone:
            problems.append(_stale(attachment))
        elif other is not None and not _agree(attachment, other):
            problems.append(_disagreement(attachment, other))
    return joining.RuntimeView(attachments=tuple(attachments), gone=known.gone & own.keys(), problems=tuple(problems))


def _attachment(status: messages.Status, netns: pathlib.Path) -> cni_cache.Attachment:
    return cni_cache.Attachment(
        namespace=status.sandbox.namespace,
        pod=status.sandbox.pod,
        uid=status.sandbox.uid,
        container=status.sandbox.id,
        interface=INTERFACE,
        netns=netns,
        host_interfaces=status.host_interfaces,
        addresses=status.addresses,
    )


def _agree(attachment: cni_cache.Attachment, other: messages.Listed) -> bool:
    same_uid = not (attachment.uid and other.uid) or attachment.uid == other.uid
    return same_uid and (attachment.namespace, attachment.pod) == (other.namespace, other.pod)


def _nowhere(sandbox: messages.Listed) -> resources.Problem:
    reason = "neither the CNI result cache nor the runtime says where its network namespace is; it is not enforced on"
    return _problem(sandbox.namespace, sandbox.pod, reason)


def _unread(sandbox: messages.Listed, why: str) -> resources.Problem:
    reason = f"the CNI result cache does not know it, and what the runtime says of it cannot be had: {why}"
    return _problem(sandbox.namespace, sandbox.pod, reason)


def _stale(attachment: cni_cache.Attachment) -> resources.Problem:
    reason = (
        f"the runtime has no sandbox {attachment.container!r} any more, but the CNI result cache has: its addresses "
        "are given up, its policy stays while its network namespace lives; remove the file from the cache"
    )
    return _problem(attachment.namespace, attachment.pod, reason)


def _disagreement(attachment: cni_cache.Attachment, other: messages.Listed) -> resources.Problem:
    reason = (
        f"the runtime says that sandbox {other.id!r} is of Pod {other.namespace}/{other.pod} with UID {other.uid!r}, "
        f"the CNI result cache that it is of this one with UID {attachment.uid!r}; it is judged as the cache says"
    )
    return _problem(attachment.namespace, attachment.pod, reason)


def _problem(namespace: str, pod: str, reason: str) -> resources.Problem:
    return resources.Problem(ref=resources.ObjectRef("Pod", namespace, pod), path="", reason=reason)
