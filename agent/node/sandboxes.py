"""This node's pods as the node itself shows them, from the moment their sandboxes exist.

The CNI result cache tells who and where, the kernel tells cookie and interfaces; every reading reads all of it again
(some ten microseconds a pod), so that no event can be missed for good. A network namespace that cannot be read yet is
tried again, sooner first; one that went away takes its sandbox with it, whatever the cache still says, as its cookie
never comes back. The API's podIP has no part in this: it is always later than the pod's first packet.

The directory in which runtimes bind namespaces is watched too: one that the cache does not explain yet is known by its
cookie alone and held (`holds`). Where a runtime answers, it fills what the cache leaves out (`joining`, `cri`).
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Protocol

from agent import clock as clock_
from agent.model import endpoint, resources
from agent.node import cni_cache, holds, joining, links, namespaces

RETRY_FIRST_S = 0.001
RETRY_MOST_S = 2.0
REPORT_AFTER = 11
"""Readings without any change, about two seconds, until a namespace that cannot be read is a problem to tell."""
QUIET_S = 0.001
SETTLE_LIMIT_S = 0.1
"""libcni writes a file in place; a writer that takes longer is read again when it closes it."""


UNCHECKED = "the source addresses of what the pod sends are not checked, and it may reach others past this node"
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


class Runtime(Protocol):
    """What cross-checks the cache (CRI)."""

    def view(self, cached: Sequence[cni_cache.Attachment]) -> joining.RuntimeView:
        """Take what the cache says now; return what the runtime adds to it, as of its last answer. In any thread."""

    def expect(self) -> None:
        """Take it that a sandbox is about to come or go."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at the node."""

    sandboxes: tuple[endpoint.Sandbox, ...] = ()
    problems: tuple[resources.Problem, ...] = ()
    waiting: tuple[cni_cache.Attachment, ...] = ()
    """Pods whose network namespace cannot be read (yet, or any more)."""
    directories: frozenset[pathlib.Path] = frozenset()
    """Where network namespaces are bound."""
    look: holds.Look = dataclasses.field(default_factory=holds.Look)
    missing: frozenset[pathlib.Path] = frozenset()
    """Directories that cannot be watched (yet)."""


class SandboxWatch:
    """The sandboxes of one node."""

    def __init__(
        self,
        results_dir: pathlib.Path,
        *,
        changes: Changes,
        clock: clock_.Clock,
        netns_dir: pathlib.Path | None = None,
        runtime: Runtime | None = None,
        dump_links: Callable[[], Mapping[str, links.Link]] = links.dump,
    ) -> None:
        """Neither directory need exist yet: the first pod makes them. Without `netns_dir` nothing is held by name."""
        self._results_dir = results_dir
        self._netns_dir = netns_dir
        self._changes = changes
        self._clock = clock
        self._runtime = runtime
        self._dump_links = dump_links
        self._kicked = asyncio.Event()
        self._insisted = False

    def kick(self) -> None:
        """Have `watch` read again; on the event loop only."""
        self._kicked.set()

    def insist(self) -> None:
        """Have `watch` read again and yield, whether or not something changed; on the event loop only."""
        self._insisted = True
        self.kick()

    def read(self) -> Reading:
        """Read the cache, and the kernel for each of its pods.

        Where the kernel tells no cookie it is 0: packets are judged without, and the engine says why sockets are not.
        """
        cached, problems = self._attachments()
        view = self._runtime.view(cached) if self._runtime is not None else joining.RuntimeView()
        problems += view.problems
        attachments = joining.by_namespace(cached, view).values()
        found, waiting, explained = [], [], {}
        interfaces = self._dump_links() if attachments else {}
        for attachment in attachments:
            number = namespaces.cookie(attachment.netns)
            if number is None:
                waiting.append(attachment)
            elif _is_own(attachment.netns):
                problems.append(_problem(attachment, "is the node's own network namespace; no pod of that file lives"))
            else:
                found.append(_sandbox(attachment, number, interfaces))
                explained[attachment.netns.name] = found[-1]
                if found[-1].attached and not found[-1].veth_ifindex:
                    problems.append(_problem(attachment, "has no veth here that CNI told of; " + UNCHECKED))
        present = namespaces.look(self._netns_dir, explained) if self._netns_dir is not None else {}
        return Reading(
            sandboxes=_sorted(found),
            problems=tuple(problems),
            waiting=tuple(waiting),
            directories=frozenset(attachment.netns.parent for attachment in attachments),
            look=holds.Look(present=present, explained=explained),
        )

    async def watch(self) -> AsyncIterator[Reading]:
        """Yield what is there at once, then after every change."""
        told: Reading | None = None
        quiet = 0
        watched: frozenset[pathlib.Path] = frozenset()
        ledger = holds.Ledger()
        while True:
            missing = self._watch({self._results_dir, *watched, *([self._netns_dir] if self._netns_dir else [])})
            self._kicked.clear()
            reading = await asyncio.to_thread(self.read)
            if not reading.directories <= watched:
                watched = reading.directories
                continue  # read once more: something may have changed before they were watched
            watched = reading.directories
            followed = holds.follow(ledger, reading.look, now_ns=self._clock.monotonic_ns())
            ledger = followed.ledger
            reading = _with(reading, followed, missing, late=quiet >= REPORT_AFTER)
            if told is None or self._insisted or _gist(reading) != _gist(told):
                told, self._insisted = reading, False
                yield reading
            again = missing or reading.waiting or followed.unbound
            retry = min(RETRY_MOST_S, RETRY_FIRST_S * 2.0**quiet) if again else None
            if await self._changed(self._earlier(retry, followed.due_ns)):
                await self._changes.settled(quiet_s=QUIET_S, limit_s=SETTLE_LIMIT_S)
                quiet = 0
            else:
                quiet = min(quiet + 1, 2 * REPORT_AFTER)

    def _earlier(self, retry_s: float | None, due_ns: int | None) -> float | None:
        """Return the seconds until the earlier of the two."""
        if due_ns is None:
            return retry_s
        due_s = max(0.0, (due_ns - self._clock.monotonic_ns()) / 1e9)
        return due_s if retry_s is None else min(retry_s, due_s)

    async def _changed(self, timeout_s: float | None) -> bool:
        """Wait for a change of a directory, or a kick; False if `timeout_s` passed without either."""
        ways = (
            asyncio.ensure_future(self._changes.changed(timeout_s)),
            asyncio.ensure_future(self._kicked.wait()),
        )
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        changed, kicked = (way.done() and not way.cancelled() and way.result() for way in ways)
        if changed and self._runtime is not None:
            self._runtime.expect()
        return changed or kicked

    def _watch(self, directories: Iterable[pathlib.Path]) -> frozenset[pathlib.Path]:
        """Watch what exists; return what does not."""
        missing = set()
        for directory in directories:
            try:
                self._changes.watch(directory)
            except OSError:
                missing.add(directory)
        return frozenset(missing)

    def _attachments(self) -> tuple[list[cni_cache.Attachment], list[resources.Problem]]:
        """Read every cache file."""
        attachments, problems = [], []
        for name, content in self._files():
            match cni_cache.decode(content, name=name):
                case resources.Problem() as problem:
                    problems.append(problem)
                case cni_cache.Attachment() as attachment:
                    attachments.append(attachment)
                case None:
                    pass
        return attachments, problems

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


def _with(reading: Reading, followed: holds.Followed, missing: frozenset[pathlib.Path], *, late: bool) -> Reading:
    """Add what follows from unexplained namespaces, and pods whose namespace is `late` to be readable."""
    unreadable = tuple(_unreadable(attachment) for attachment in reading.waiting) if late else ()
    return dataclasses.replace(
        reading,
        sandboxes=_sorted((*reading.sandboxes, *followed.sandboxes)),
        problems=(*reading.problems, *followed.problems, *unreadable),
        missing=missing,
    )


def _gist(reading: Reading) -> tuple[object, ...]:
    """Return what others act on."""
    return reading.sandboxes, reading.problems, reading.missing


def _sorted(found: Iterable[endpoint.Sandbox]) -> tuple[endpoint.Sandbox, ...]:
    return tuple(sorted(found, key=lambda one: (one.namespace, one.pod, one.netns_cookie)))


def _is_own(path: pathlib.Path) -> bool:
    try:
        return path.samefile(OWN_NETNS)
    except OSError:
        return False


def _sandbox(attachment: cni_cache.Attachment, cookie: int, interfaces: Mapping[str, links.Link]) -> endpoint.Sandbox:
    veth, ingress = links.pod_link(interfaces, attachment.host_interfaces)
    return endpoint.Sandbox(
        namespace=attachment.namespace,
        pod=attachment.pod,
        uid=attachment.uid,
        netns_cookie=cookie,
        veth_ifindex=veth,
        ingress_ifindex=ingress,
        addresses=attachment.addresses,
        attached=not attachment.is_loopback,
    )


def _unreadable(attachment: cni_cache.Attachment) -> resources.Problem:
    return _problem(attachment, "is no network namespace the agent can read; the pod is not enforced on as an endpoint")


def _problem(attachment: cni_cache.Attachment, reason: str) -> resources.Problem:
    ref = resources.ObjectRef("Pod", attachment.namespace, attachment.pod)
    return resources.Problem(ref=ref, path="", reason=f"{attachment.netns} {reason}")
