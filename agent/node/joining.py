"""Which interface speaks for a network namespace, out of all that the CNI cache and the runtime say: pure.

The cache is believed first: it is complete before anything runs in the pod. What only the runtime knows fills the gaps,
and a sandbox that the runtime says is gone keeps nothing that could be another's by now.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable

from agent.model import resources
from agent.node import cni_cache


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeView:
    """What the container runtime adds to the CNI cache."""

    attachments: tuple[cni_cache.Attachment, ...] = ()
    """Of sandboxes of which the cache says no address."""
    gone: frozenset[str] = frozenset()
    """Sandboxes of the cache that the runtime does not know any more, by id."""
    problems: tuple[resources.Problem, ...] = ()
    """What the two disagree about."""


def by_namespace(
    cached: Iterable[cni_cache.Attachment], runtime: RuntimeView
) -> dict[pathlib.Path, cni_cache.Attachment]:
    """Choose one interface for each network namespace: the first of the pod's own (`eth0`), else its loopback."""
    chosen: dict[pathlib.Path, cni_cache.Attachment] = {}
    for attachment in cached:
        _take(chosen, attachment)
    names = {path.name for path, attachment in chosen.items() if not attachment.is_loopback}
    for attachment in runtime.attachments:
        if attachment.netns.name not in names:  # the two spell the directory as they like: /run, /var/run
            spelled = next((path for path in chosen if path.name == attachment.netns.name), attachment.netns)
            _take(chosen, dataclasses.replace(attachment, netns=spelled))
    return {path: _without_gone(attachment, runtime.gone) for path, attachment in chosen.items()}


def _take(chosen: dict[pathlib.Path, cni_cache.Attachment], attachment: cni_cache.Attachment) -> None:
    other = chosen.get(attachment.netns)
    if other is None or _rank(attachment) < _rank(other):
        chosen[attachment.netns] = attachment


def _rank(attachment: cni_cache.Attachment) -> tuple[bool, str]:
    return attachment.is_loopback, attachment.interface


def _without_gone(attachment: cni_cache.Attachment, gone: frozenset[str]) -> cni_cache.Attachment:
    if attachment.container not in gone:
        return attachment
    return dataclasses.replace(attachment, interface=cni_cache.LOOPBACK, host_interfaces=(), addresses=())
