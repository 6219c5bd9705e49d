"""Attaching programs so that no packet meets a gap: adopt, replace, remove.

The problem: an agent that starts finds what an earlier one left, possibly of another version, possibly
dead, possibly half replaced. The rules: what enforces is replaced by attaching the new beside it before
the old goes; cgroup and tcx links take a new program in place; netfilter links cannot, and no two may
share a priority, so the new one takes the next free one. A pin proves nothing: a netfilter link whose
network namespace is gone looks as before, so its priority is tried, and EBUSY means alive.

While a link is replaced two pins exist, NAME and NAME_next; finding both means that it did not end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import pathlib
from collections.abc import Iterator

from agent import errors
from agent.datapath.bpf import syscalls

NEXT = "_next"
PRIORITIES_TRIED = 8
NFPROTO_IPV4 = 2
NFPROTO_IPV6 = 10
PRE_ROUTING = 0
LOCAL_IN = 1
FORWARD = 2
DEFRAGMENTATION = -400
"""NF_IP_PRI_CONNTRACK_DEFRAG: only behind it may a link ask for whole packets."""
BEFORE_DEFRAGMENTATION = -450
"""Before conntrack, where a forged packet would open an entry, and before fragments are put together: a forged one
would end up in the datagram of the pod whose address it carries, and that pod's own last fragment would vouch for it.
"""
AFTER_FILTER = 10
"""After iptables and kube-proxy (0), so that their REJECT of a Service without endpoints comes first; never equal."""


@dataclasses.dataclass(frozen=True, slots=True)
class Hook:
    """Where a netfilter program belongs; the priority may be up to PRIORITIES_TRIED higher."""

    program: str
    family: int
    number: int
    priority: int


HOOKS = (
    Hook("nw_source4", NFPROTO_IPV4, PRE_ROUTING, BEFORE_DEFRAGMENTATION),
    Hook("nw_source6", NFPROTO_IPV6, PRE_ROUTING, BEFORE_DEFRAGMENTATION),
    Hook("nw_forward4", NFPROTO_IPV4, FORWARD, AFTER_FILTER),
    Hook("nw_forward6", NFPROTO_IPV6, FORWARD, AFTER_FILTER),
    Hook("nw_local4", NFPROTO_IPV4, LOCAL_IN, AFTER_FILTER),
    Hook("nw_local6", NFPROTO_IPV6, LOCAL_IN, AFTER_FILTER),
)


class Links:
    """The pinned links of one node; used inside the node's network namespace."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Use the pins in `directory`, on a bpffs."""
        self._directory = directory

    def attach_cgroup(self, name: str, program: int, cgroup: pathlib.Path, attach: syscalls.AttachType) -> None:
        """Have `program` at the cgroup directory `cgroup`, below the pin `name`. Raises DatapathError."""
        with self._explained(f"attaching {name} to {cgroup}"), _directory(cgroup) as target:
            wanted = os.fstat(target).st_ino  # the cgroup's id (Linux 5.5)
            with self._existing(name) as found:
                if found is not None and syscalls.link_info(found).cgroup_id == wanted:
                    self._update(found, program)
                    return
            with syscalls.owned(syscalls.link_cgroup(program, target, attach)) as link:
                self._replace(name, link)

    def attach_tc(
        self, name: str, program: int, ifindex: int, attach: syscalls.AttachType = syscalls.AttachType.TCX_INGRESS
    ) -> None:
        """Have `program` at tc ingress or egress of the interface; one that has just gone is no error.

        Raises NotSupported before Linux 6.6, DatapathError.
        """
        with self._explained(f"attaching {name} to interface {ifindex}"), _unless_gone():
            with self._existing(name) as found:
                if found is not None and syscalls.link_info(found).ifindex == ifindex:
                    self._update(found, program)
                    return
            with syscalls.owned(_link_tcx(program, ifindex, attach)) as link:
                self._replace(name, link)

    def try_tc(self, program: int, ifindex: int) -> None:
        """Attach at tc ingress and let go at once. Raises NotSupported before Linux 6.6, DatapathError."""
        with (
            self._explained(f"trying tcx on interface {ifindex}"),
            syscalls.owned(_link_tcx(program, ifindex, syscalls.AttachType.TCX_INGRESS)),
        ):
            pass

    def attach_netfilter(self, hook: Hook, program: int) -> None:
        """Have `program` at `hook` in this network namespace. Raises NotSupported before Linux 6.4, DatapathError."""
        name = hook.program
        with self._explained(f"attaching {name} to netfilter"):
            with self._existing(name) as found:
                if found is not None and self._serves(found, program, hook):
                    return
            with syscalls.owned(_link_free(program, hook)) as link:
                self._replace(name, link)

    def _serves(self, link: int, program: int, hook: Hook) -> bool:
        """Tell whether a pinned link runs `program` and lives; a dead one is replaced on the spot."""
        info = syscalls.link_info(link)
        if info.program_id != syscalls.program_info(program).id:
            return False
        at = dataclasses.replace(hook, priority=_signed(info.detail[2]))
        try:
            fresh = _link_at(program, at)
        except OSError as error:
            if error.errno == errno.EBUSY:
                return True
            raise
        with syscalls.owned(fresh):
            self._replace(hook.program, fresh)
        return True

    @staticmethod
    def _update(link: int, program: int) -> None:
        if syscalls.link_info(link).program_id != syscalls.program_info(program).id:
            syscalls.link_update(link, program)

    @contextlib.contextmanager
    def _existing(self, name: str) -> Iterator[int | None]:
        """Open the pinned link, ending a replacement that was cut short; None where there is none."""
        path, following = self._directory / name, self._directory / (name + NEXT)
        if following.exists():
            if path.exists():
                following.unlink()
            else:
                following.rename(path)
        if not path.exists():
            yield None
            return
        with syscalls.owned(syscalls.open_pin(path)) as link:
            yield link

    def _replace(self, name: str, link: int) -> None:
        """Pin `link` as `name`, letting go of what was pinned there only afterwards."""
        path, following = self._directory / name, self._directory / (name + NEXT)
        syscalls.pin(link, following)
        path.unlink(missing_ok=True)
        following.rename(path)

    def names(self, prefix: str) -> frozenset[str]:
        """Return the links whose name begins with `prefix`."""
        pins = (path.name for path in self._directory.iterdir() if path.name.startswith(prefix))
        return frozenset(name.removesuffix(NEXT) for name in pins)

    def interface_of(self, name: str) -> int:
        """Return the interface that a pinned tcx link is at; 0: at none any more, or there is no such pin.

        Changes nothing; any thread may ask. Raises DatapathError.
        """
        with self._explained(f"asking where {name} is"):
            for pin in (self._directory / name, self._directory / (name + NEXT)):
                with contextlib.suppress(FileNotFoundError), syscalls.owned(syscalls.open_pin(pin)) as link:
                    return syscalls.link_info(link).ifindex
        return 0

    def detach(self, name: str) -> None:
        """Detach and unpin one link; one that is gone is no error."""
        for pin in (name, name + NEXT):
            remove(self._directory / pin)

    @staticmethod
    @contextlib.contextmanager
    def _explained(doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise errors.DatapathError(f"{doing}: {error.strerror}") from error


def remove(path: pathlib.Path) -> None:
    """Detach what is pinned at `path` if it is a link, even while somebody holds it open, and unpin it."""
    with contextlib.suppress(FileNotFoundError):
        with contextlib.suppress(OSError), syscalls.owned(syscalls.open_pin(path)) as pinned:
            syscalls.link_detach(pinned)
        path.unlink()


def _link_free(program: int, hook: Hook) -> int:
    """Attach at the first free priority from the hook's own upwards."""
    for offset in range(PRIORITIES_TRIED - 1):
        try:
            return _link_at(program, dataclasses.replace(hook, priority=hook.priority + offset))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
    return _link_at(program, dataclasses.replace(hook, priority=hook.priority + PRIORITIES_TRIED - 1))


def _link_at(program: int, hook: Hook) -> int:
    defrag = hook.priority > DEFRAGMENTATION
    where = syscalls.NetfilterHook(family=hook.family, number=hook.number, priority=hook.priority, defrag=defrag)
    try:
        return syscalls.link_netfilter(program, where)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise errors.NotSupported(feature="BPF netfilter links", needs="Linux 6.4") from error
        if error.errno not in {errno.EOPNOTSUPP, errno.ENOENT}:
            raise
        # Before Linux 6.6, or without its module, there is no such flag; conntrack puts fragments together too.
        return syscalls.link_netfilter(program, dataclasses.replace(where, defrag=False))


def _link_tcx(program: int, ifindex: int, attach: syscalls.AttachType) -> int:
    try:
        return syscalls.link_tcx(program, ifindex, attach)
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise errors.NotSupported(feature="a tcx link", needs="Linux 6.6") from error
        raise


@contextlib.contextmanager
def _unless_gone() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


@contextlib.contextmanager
def _directory(path: pathlib.Path) -> Iterator[int]:
    with syscalls.owned(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as descriptor:
        yield descriptor


def _signed(word: int) -> int:
    return word - (1 << 32) if word & (1 << 31) else word
