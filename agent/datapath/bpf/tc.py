"""Programs at the host side of a pod's veth: tcx links, and before Linux 6.6 filters of the clsact qdisc.

The problem: links are pinned, belong to whoever pins them and take a new program in place; filters have none of that,
and others may have theirs on the same qdisc. The rules for filters: ours have a handle nobody else uses and a name that
says whose they are, each hook has its own priority, a new program replaces the old one in one request, and whoever
starts looks at what is there. Both go with the interface. What else is on an interface stays, its qdisc too as long as
anything is on it.

Others may take ours away, with the whole qdisc if they like: `lost` tells. Of filters the kernel says so (RTNLGRP_TC),
so that only interfaces where something changed are looked at; of links it says nothing, and all are looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import errno
import pathlib
import socket
from collections.abc import Iterator
from typing import Any, Protocol

from agent import errors
from agent.datapath import rtnetlink
from agent.datapath.bpf import links as links_
from agent.datapath.bpf import syscalls

CLSACT = "clsact"
BPF = "bpf"
OWN = "nodewall:"
"""What the names of our filters begin with."""
HANDLE = 0x4E57
FIRST_PRIORITY = 2
"""Early, for whoever lets a packet pass for good ends the chain; the very first place is most asked for."""
LOOK_EACH = 10
"""Asking every link takes some milliseconds on a node with many pods; asked every second, that is every ten seconds."""
TAKEN = frozenset({errno.EEXIST})
GONE = frozenset({errno.ENODEV, errno.ENOENT, errno.EINVAL})
"""The interface or its qdisc went away meanwhile; a qdisc that is not there is EINVAL."""


class Side(enum.Enum):
    """Which way packets go, as the host's side of the veth sees them; the value is the parent of clsact's filters."""

    INGRESS = 0xFFFFFFF2
    """From the pod."""
    EGRESS = 0xFFFFFFF3
    """Towards the pod."""


ATTACH_TYPES = {Side.INGRESS: syscalls.AttachType.TCX_INGRESS, Side.EGRESS: syscalls.AttachType.TCX_EGRESS}


@dataclasses.dataclass(frozen=True, slots=True)
class Hook:
    """Where a program of ours belongs."""

    prefix: str
    """Of the names of its pins and filters; the number of the interface follows."""
    side: Side
    order: int
    """Among those of one side."""


SOURCE = Hook("tc_", Side.INGRESS, 0)
"""Checks sources, where the pod hangs on a bridge."""
DNS_QUERY = Hook("dns_query_", Side.INGRESS, 1)
DNS_ANSWER = Hook("dns_answer_", Side.EGRESS, 0)
HOOKS = (SOURCE, DNS_QUERY, DNS_ANSWER)


class Attachments(Protocol):
    """What is attached on one node; interfaces go by their numbers."""

    def attach(self, hook: Hook, program: int, ifindex: int) -> None:
        """Have `program` there and no other of ours; an interface that has just gone is no error.

        Raises NotSupported, DatapathError.
        """

    def attached(self, hook: Hook) -> frozenset[int]:
        """Return the interfaces that have a program there. Raises DatapathError."""

    def detach(self, hook: Hook, ifindex: int) -> None:
        """Take the program away; one that is gone is no error. Raises DatapathError."""

    def stands(self, hook: Hook, ifindex: int) -> bool:
        """Tell whether the kernel has a program there; any thread may ask. Raises DatapathError."""

    def lost(self) -> frozenset[tuple[Hook, int]]:
        """Return where a program was attached that others took away since, as far as that has been noticed.

        To be asked every second or so; until it is attached anew, it is told of once at least. Raises DatapathError.
        """

    def close(self) -> None:
        """Let go of what was opened to notice that; what is attached stays."""


class Tcx:
    """By links; keeps `Attachments`."""

    def __init__(self, links: links_.Links) -> None:
        """Pin where the other links are pinned."""
        self._links = links
        self._looks = 0
        """How often it was asked what is lost."""
        self._wanted: set[tuple[Hook, int]] = set()
        """Where something was attached, and not taken away by us."""

    def attach(self, hook: Hook, program: int, ifindex: int) -> None:
        """Attach or update the pinned link."""
        self._links.attach_tc(f"{hook.prefix}{ifindex}", program, ifindex, ATTACH_TYPES[hook.side])
        self._wanted.add((hook, ifindex))

    def attached(self, hook: Hook) -> frozenset[int]:
        """Return what the pins say."""
        return frozenset(int(name.removeprefix(hook.prefix)) for name in self._links.names(hook.prefix))

    def detach(self, hook: Hook, ifindex: int) -> None:
        """Detach and unpin."""
        self._links.detach(f"{hook.prefix}{ifindex}")
        self._wanted.discard((hook, ifindex))

    def stands(self, hook: Hook, ifindex: int) -> bool:
        """Ask the pinned link where it is; one that was detached is nowhere."""
        return self._links.interface_of(f"{hook.prefix}{ifindex}") == ifindex

    def lost(self) -> frozenset[tuple[Hook, int]]:
        """Look for the pins each time, and at every LOOK_EACH_th at the links themselves."""
        closely, self._looks = self._looks % LOOK_EACH == 0, self._looks + 1
        pinned = self._links.names("")
        return frozenset(
            (hook, ifindex)
            for hook, ifindex in self._wanted
            if (f"{hook.prefix}{ifindex}" not in pinned or (closely and not self.stands(hook, ifindex)))
            and _is_there(ifindex)
        )

    def close(self) -> None:
        """Do nothing: nothing was opened."""


class Clsact:
    """By filters, in the caller's network namespace; keeps `Attachments`. One caller."""

    def __init__(self) -> None:
        """Touch nothing yet."""
        self._programs: dict[tuple[Hook, int], int] | None = None
        """The program at each interface, by its number; 0: one that an agent before this one attached."""
        self._heard: rtnetlink.Changes | None = None
        self._lost: set[tuple[Hook, int]] = set()
        """Where others took it away, and it is not there again yet."""

    def attach(self, hook: Hook, program: int, ifindex: int) -> None:
        """Add or replace the filter."""
        number = syscalls.program_info(program).id
        known = self._known()
        if known.get((hook, ifindex)) == number:
            return
        with _explained(f"attaching {hook.prefix}{ifindex} to clsact"), rtnetlink.connection() as netlink:
            if not _add_qdisc(netlink, ifindex):
                return
            with rtnetlink.explained():
                netlink.tc(
                    "replace-filter",
                    BPF,
                    ifindex,
                    HANDLE,
                    parent=hook.side.value,
                    prio=FIRST_PRIORITY + hook.order,
                    fd=program,
                    name=f"{OWN}{hook.prefix}{ifindex}",
                    direct_action=True,
                )
        known[hook, ifindex] = number
        self._lost.discard((hook, ifindex))

    def attached(self, hook: Hook) -> frozenset[int]:
        """Return what was found at first, and what has come and gone since."""
        return frozenset(ifindex for at, ifindex in self._known() if at == hook)

    def detach(self, hook: Hook, ifindex: int) -> None:
        """Delete the filter."""
        self._known().pop((hook, ifindex), None)
        self._lost.discard((hook, ifindex))
        with (
            _explained(f"detaching {hook.prefix}{ifindex} from clsact"),
            rtnetlink.connection() as netlink,
            _unless(GONE),
            rtnetlink.explained(),
        ):
            _delete(netlink, hook, ifindex)

    def stands(self, hook: Hook, ifindex: int) -> bool:
        """Ask for the filters of that side."""
        with _explained(f"looking for {hook.prefix}{ifindex}"), rtnetlink.connection() as netlink:
            return _stands(netlink, hook, ifindex)

    def lost(self) -> frozenset[tuple[Hook, int]]:
        """Look where the kernel has told of changes; the first time, and where it has told of too many, everywhere."""
        known = self._known()
        with _explained("looking for filters of clsact that others took away"):
            changed = self._changed()
            wanted = [place for place in known if changed is None or place[1] in changed]
            if wanted:
                with rtnetlink.connection() as netlink:
                    self._lost.update(place for place in wanted if not _stands(netlink, *place))
        for place in self._lost:
            known[place] = 0  # whatever is attached next is new there
        return frozenset(place for place in self._lost if _is_there(place[1]))

    def _changed(self) -> frozenset[int] | None:
        """Return the interfaces to look at; None: all of them."""
        if self._heard is None:
            self._heard = rtnetlink.Changes(rtnetlink.TRAFFIC_CONTROL)
            return None
        return self._heard.interfaces()

    def close(self) -> None:
        """Hear of no changes any more."""
        if self._heard is not None:
            self._heard.close()
            self._heard = None

    def try_out(self, hook: Hook, program: int, ifindex: int) -> None:
        """Attach and detach at once, and leave nothing. Raises NotSupported, DatapathError."""
        try:
            self.attach(hook, program, ifindex)
        except errors.DatapathError as error:
            raise errors.NotSupported(
                feature="programs at the pods' veths", needs=f"tcx (Linux 6.6), or sch_clsact and cls_bpf ({error})"
            ) from error
        self.detach(hook, ifindex)
        with rtnetlink.connection() as netlink:
            _delete_empty_qdisc(netlink, ifindex)

    def _known(self) -> dict[tuple[Hook, int], int]:
        if self._programs is None:
            with _explained("looking for filters of clsact"), rtnetlink.connection() as netlink:
                self._programs = dict.fromkeys(_found(netlink), 0)
        return self._programs


def find(links: links_.Links, program: int, ifindex: int) -> Attachments:
    """Return what this kernel has, tried out with `program`, which lets everything pass at `ifindex`.

    Raises NotSupported with what both lack, DatapathError.
    """
    try:
        links.try_tc(program, ifindex)
    except errors.NotSupported:
        filters = Clsact()
        filters.try_out(DNS_QUERY, program, ifindex)
        return filters
    return Tcx(links)


def remove_filters(*hooks: Hook) -> bool:
    """Delete our filters at these hooks of all interfaces; tell whether there were any. Raises DatapathError."""
    with _explained("removing filters of clsact"), rtnetlink.connection() as netlink:
        found = [place for place in _found(netlink) if place[0] in hooks]
        for hook, ifindex in found:
            with _unless(GONE), rtnetlink.explained():
                _delete(netlink, hook, ifindex)
        for ifindex in {ifindex for _, ifindex in found}:
            _delete_empty_qdisc(netlink, ifindex)
    return bool(found)


def _is_there(ifindex: int) -> bool:
    """Tell whether there is such an interface; programs go with it."""
    try:
        socket.if_indextoname(ifindex)
    except OSError:
        return False
    return True


def _delete(netlink: Any, hook: Hook, ifindex: int) -> None:
    netlink.tc("del-filter", BPF, ifindex, HANDLE, parent=hook.side.value, prio=FIRST_PRIORITY + hook.order)


def _add_qdisc(netlink: Any, ifindex: int) -> bool:
    """Have clsact there; False: the interface is gone. An ingress qdisc in its place has no other side (EEXIST)."""
    try:
        with rtnetlink.explained():
            netlink.tc("add", CLSACT, ifindex)
    except OSError as error:
        if error.errno == errno.ENODEV:
            return False
        if error.errno not in TAKEN or ifindex not in _qdiscs(netlink):
            raise
    return True


def _qdiscs(netlink: Any) -> list[int]:
    """Return the interfaces that have a clsact qdisc."""
    with rtnetlink.explained():
        return [message["index"] for message in netlink.tc("dump") if message.get_attr("TCA_KIND") == CLSACT]


def _found(netlink: Any) -> Iterator[tuple[Hook, int]]:
    """Yield where filters of ours are."""
    for ifindex in _qdiscs(netlink):
        for hook in HOOKS:
            if _stands(netlink, hook, ifindex):
                yield hook, ifindex


def _stands(netlink: Any, hook: Hook, ifindex: int) -> bool:
    return f"{OWN}{hook.prefix}{ifindex}" in _names(netlink, hook.side, ifindex)


def _names(netlink: Any, side: Side, ifindex: int) -> list[str]:
    """Return the names of all BPF filters of one side, "" for what has none."""
    found: list[str] = []
    with _unless(GONE), rtnetlink.explained():
        for message in netlink.get_filters(index=ifindex, parent=side.value):
            options = message.get_attr("TCA_OPTIONS") if message.get_attr("TCA_KIND") == BPF else None
            found.append((options.get_attr("TCA_BPF_NAME") if options is not None else None) or "")
    return found


def _delete_empty_qdisc(netlink: Any, ifindex: int) -> None:
    if ifindex in _qdiscs(netlink) and not any(_names(netlink, side, ifindex) for side in Side):
        with _unless(GONE), rtnetlink.explained():
            netlink.tc("del", CLSACT, ifindex)


@contextlib.contextmanager
def _unless(codes: frozenset[int]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in codes:
            raise


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.DatapathError(f"{doing}: {error.strerror}") from error


def hook_of(pin: pathlib.Path) -> Hook | None:
    """Return the hook that a link's pin belongs to; None: no hook of an interface."""
    name = pin.name.removesuffix(links_.NEXT)
    return next((hook for hook in HOOKS if name.startswith(hook.prefix)), None)
