"""This node's pods as the node itself shows them, from the moment their sandboxes exist.

The CNI result cache tells who and where, the kernel tells cookie and interfaces; every reading reads all of it again
(some ten microseconds a pod), so that no event can be missed for good. A network namespace that cannot be read yet is
tried again, sooner first; one that went away takes its sandbox with it, whatever the cache still says, as its cookie
never comes back. The API's podIP has no part in this: it is always later than the pod's first packet.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Protocol

from agent import errors
from agent.model import endpoint, net, resources
from agent.node import cni_cache, links, netns

RETRY_FIRST_S = 0.001
RETRY_MOST_S = 2.0
REPORT_AFTER = 11
"""Readings without any change, about two seconds, until a namespace that cannot be read is a problem to tell."""
QUIET_S = 0.001
SETTLE_LIMIT_S = 0.1
"""libcni writes a file in place; a writer that takes longer is read again when it closes it."""


UNCHECKED = "the source addresses of what the pod sends are not checked, and it may reach others past this node"
UNKNOWN_COOKIE = 0
"""Never a namespace's."""
OWN_NETNS = pathlib.Path("/proc/thread-self/ns/net")
"""Never a pod's: a cache file that names it is older than the process whose number it wrote down."""


class Changes(Protocol):
    """What tells that directories changed (inotify)."""

    def watch(self, directory: pathlib.Path) -> None:
        """Watch a directory; again is no error. Raises OSError."""

    async def changed(self, timeout_s: float | None = None) -> bool:
        """Wait for a change; False if `timeout_s` passed without one."""

    async def settled(self, *, quiet_s: float, limit_s: float) -> None:
        """Wait until nobody is writing."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at the node."""

    sandboxes: tuple[endpoint.Sandbox, ...] = ()
    problems: tuple[resources.Problem, ...] = ()
    waiting: tuple[cni_cache.Attachment, ...] = ()
    """Pods whose network namespace cannot be read (yet, or any more)."""
    directories: frozenset[pathlib.Path] = frozenset()
    """Where network namespaces are bound."""


class SandboxWatch:
    """The sandboxes of one node."""

    def __init__(
        self,
        results_dir: pathlib.Path,
        *,
        changes: Changes,
        dump_links: Callable[[], Mapping[str, links.Link]] = links.dump,
    ) -> None:
        """`results_dir` need not exist yet: the first CNI ADD makes it."""
        self._results_dir = results_dir
        self._changes = changes
        self._dump_links = dump_links

    def read(self) -> Reading:
        """Read the cache, and the kernel for each of its pods.

        Where the kernel tells no cookie it is 0: packets are judged without, and the engine says why sockets are not.
        """
        attachments, problems = self._attachments()
        found, waiting = [], []
        interfaces = self._dump_links() if attachments else {}
        for attachment in attachments:
            number = _cookie(attachment.netns)
            if number is None:
                waiting.append(attachment)
            elif _is_own(attachment.netns):
                problems.append(_problem(attachment, "is the node's own network namespace; no pod of that file lives"))
            else:
                found.append(_sandbox(attachment, number, interfaces))
                if not found[-1].veth_ifindex:
                    problems.append(_problem(attachment, "has no veth here that CNI told of; " + UNCHECKED))
        return Reading(
            sandboxes=tuple(sorted(found, key=lambda one: (one.namespace, one.pod, one.netns_cookie))),
            problems=tuple(problems),
            waiting=tuple(waiting),
            directories=frozenset(attachment.netns.parent for attachment in attachments),
        )

    async def watch(self) -> AsyncIterator[Reading]:
        """Yield what is there at once, then after every change."""
        told: Reading | None = None
        quiet = 0
        watched: frozenset[pathlib.Path] = frozenset()
        while True:
            complete = self._watch({self._results_dir, *watched})
            reading = await asyncio.to_thread(self.read)
            if not reading.directories <= watched:
                watched = reading.directories
                continue  # read once more: something may have changed before they were watched
            watched = reading.directories
            if quiet >= REPORT_AFTER:
                late = tuple(_unreadable(attachment) for attachment in reading.waiting)
                reading = dataclasses.replace(reading, problems=(*reading.problems, *late))
            if told is None or (reading.sandboxes, reading.problems) != (told.sandboxes, told.problems):
                told = reading
                yield reading
            retry = None if complete and not reading.waiting else min(RETRY_MOST_S, RETRY_FIRST_S * 2.0**quiet)
            if await self._changes.changed(retry):
                await self._changes.settled(quiet_s=QUIET_S, limit_s=SETTLE_LIMIT_S)
                quiet = 0
            else:
                quiet = min(quiet + 1, 2 * REPORT_AFTER)

    def _watch(self, directories: Iterable[pathlib.Path]) -> bool:
        """Watch what exists; tell whether all did."""
        complete = True
        for directory in directories:
            try:
                self._changes.watch(directory)
            except OSError:
                complete = False
        return complete

    def _attachments(self) -> tuple[list[cni_cache.Attachment], list[resources.Problem]]:
        """Read every cache file; of the interfaces of one pod only the first (`eth0`) is its pod's identity."""
        by_netns: dict[pathlib.Path, cni_cache.Attachment] = {}
        problems = []
        for name, content in self._files():
            match cni_cache.decode(content, name=name):
                case resources.Problem() as problem:
                    problems.append(problem)
                case cni_cache.Attachment() as attachment:
                    other = by_netns.get(attachment.netns)
                    if other is None or attachment.interface < other.interface:
                        by_netns[attachment.netns] = attachment
                case None:
                    pass
        return list(by_netns.values()), problems

    def _files(self) -> Iterable[tuple[str, bytes]]:
        """Yield names and contents; files that went away meanwhile, and empty ones, are passed over."""
        try:
            paths = sorted(self._results_dir.iterdir())
        except FileNotFoundError:
            return
        for path in paths:
            try:
                content = path.read_bytes()
            except (FileNotFoundError, IsADirectoryError):
                continue
            if content:
                yield path.name, content


def _cookie(path: pathlib.Path) -> int | None:
    """Return the cookie, 0 where the kernel does not tell it; None where no namespace is bound that can be read."""
    try:
        return netns.cookie(path)
    except OSError:
        return None
    except errors.NotSupported:
        return UNKNOWN_COOKIE


def _is_own(path: pathlib.Path) -> bool:
    try:
        return path.samefile(OWN_NETNS)
    except OSError:
        return False


def _sandbox(attachment: cni_cache.Attachment, cookie: int, interfaces: Mapping[str, links.Link]) -> endpoint.Sandbox:
    veth, ingress = links.pod_link(interfaces, attachment.host_interfaces)
    addresses: tuple[net.Address, ...] = attachment.addresses
    return endpoint.Sandbox(
        namespace=attachment.namespace,
        pod=attachment.pod,
        uid=attachment.uid,
        netns_cookie=cookie,
        veth_ifindex=veth,
        ingress_ifindex=ingress,
        addresses=addresses,
    )


def _unreadable(attachment: cni_cache.Attachment) -> resources.Problem:
    return _problem(attachment, "is no network namespace the agent can read; the pod is not enforced on as an endpoint")


def _problem(attachment: cni_cache.Attachment, reason: str) -> resources.Problem:
    ref = resources.ObjectRef("Pod", attachment.namespace, attachment.pod)
    return resources.Problem(ref=ref, path="", reason=f"{attachment.netns} {reason}")
