"""What is at the host side of pods' veths: source checks on bridges, and the DNS learner.

Neither is what enforces: where a kernel has no way to be there, or refuses a program, the layers go on without, and say
what does not hold for it. Where iptables judges packets, it checks sources, too, and asks programs of ours for what is
learned (`names_filter`): without them nothing is learned.
"""

from __future__ import annotations

import pathlib
import socket
from collections.abc import Iterable, Mapping, Sequence

from agent import desired as desired_
from agent import errors
from agent.datapath.bpf import dns_loader, links, names_filter, syscalls, tc
from agent.datapath.bpf import learner as learner_
from agent.fqdn import history
from agent.model import endpoint, fqdn

SOURCE_CHECK = "nw_tc_source"
PROGRAMS: Mapping[tc.Hook, str] = {tc.SOURCE: SOURCE_CHECK, **learner_.HOOKS}
"""Which program belongs to a hook."""


class Veths:
    """The programs at the veths of one node; `open` comes first. One caller."""

    def __init__(
        self,
        pins: pathlib.Path,
        links: links.Links,
        lifetimes: history.Lifetimes,
        reject: fqdn.Reject,
        *,
        judges_packets: bool,
    ) -> None:
        """Use the pins below `pins`; nothing is touched yet. `judges_packets`: or else iptables does."""
        self._pins = pins
        self._judges_packets = judges_packets
        self._links = links
        self._found = learner_.Learner(pins, lifetimes, reject)
        self._attachments: tc.Attachments | None = None
        self._programs = pathlib.Path()
        self.learner: learner_.Learner | None = None
        """None where nothing is learned."""

    def open(self, programs: pathlib.Path) -> tuple[str, ...]:
        """Find a way to be there, and have what an earlier agent attached run these programs.

        Returns what does not hold here, one line each. Raises DatapathError.
        """
        self._programs, self.learner, self._attachments = programs, None, None
        return self._open_checks() if self._judges_packets else self._learn()

    def _open_checks(self) -> tuple[str, ...]:
        try:
            with syscalls.owned(syscalls.open_pin(self._programs / SOURCE_CHECK)) as program:
                self._attachments = _way(self._links, program)
                for ifindex in self._attachments.attached(tc.SOURCE):
                    self._attachments.attach(tc.SOURCE, program, ifindex)
        except errors.NotSupported as error:
            self._attachments = None
            return (
                f"sources of pods on a bridge are not checked: {error}",
                f"addresses are not learned by their names: {error}",
            )
        return self._learn()

    def _learn(self) -> tuple[str, ...]:
        try:
            loaded = self._found.open(self._programs)
            if not self._judges_packets:
                names_filter.load(map_pins=self._pins, program_pins=self._programs)
            if self._attachments is None:
                with syscalls.owned(syscalls.open_pin(self._programs / dns_loader.QUERY)) as program:
                    self._attachments = _way(self._links, program)
        except errors.DatapathError as error:
            self._found.close()
            return (f"addresses are not learned by their names: {_line(error)}",)
        self._found.use(self._attachments, self._programs)
        self.learner = self._found
        if loaded is not None and loaded.refused:
            return (f"the DNS learner runs with {loaded.variant.value}: {_line(loaded.refused)}",)
        return ()

    def attach(self, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        """Be at the veth of each pod, and let go of veths that are gone. Raises DatapathError."""
        if self.learner is not None:
            self.learner.attach(sandboxes)
        if self._attachments is not None and self._judges_packets:
            self._check_sources(self._attachments, sandboxes)

    def _check_sources(self, attachments: tc.Attachments, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        bridged = {
            sandbox.veth_ifindex
            for sandbox in sandboxes
            if sandbox.veth_ifindex and sandbox.veth_ifindex != sandbox.ingress_ifindex
        }
        if bridged:
            with syscalls.owned(syscalls.open_pin(self._programs / SOURCE_CHECK)) as program:
                for ifindex in bridged:
                    attachments.attach(tc.SOURCE, program, ifindex)
        for ifindex in attachments.attached(tc.SOURCE) - bridged:
            attachments.detach(tc.SOURCE, ifindex)

    def repair(self) -> tuple[str, ...]:
        """Have programs back that others took away; return what was done, one line each.

        What cannot be put back yet is tried again at the next call. Raises DatapathError where that is all there is.
        """
        if self._attachments is None:
            return ()
        done: list[str] = []
        failed: errors.DatapathError | None = None
        for hook, ifindex in sorted(self._attachments.lost(), key=repr):
            try:
                with syscalls.owned(syscalls.open_pin(self._programs / PROGRAMS[hook])) as program:
                    self._attachments.attach(hook, program, ifindex)
            except errors.DatapathError as error:
                failed = error
            except OSError as error:
                failed = errors.DatapathError(f"opening the pinned {PROGRAMS[hook]}: {error.strerror}")
            else:
                done.append(f"the program {PROGRAMS[hook]} was gone from interface {ifindex}; it is back")
        if failed is not None and not done:
            raise failed
        return tuple(done)

    def reads(self, ifindex: int) -> bool:
        """Tell whether what is asked for behind a veth is read, as far as is known; any thread may ask."""
        return self.learner is not None and ifindex in self.learner.reading

    def is_attached(self, ifindex: int) -> bool:
        """Tell whether the kernel has the program there that reads it; any thread may ask. Raises DatapathError."""
        return self._attachments is not None and self._attachments.stands(tc.DNS_QUERY, ifindex)

    def unread(self, endpoints: Iterable[desired_.Endpoint]) -> frozenset[int]:
        """Return the endpoints at whose veths nobody reads what they ask for: filters of names do not hold there."""
        reading = self.learner.reading if self.learner is not None else frozenset()
        return frozenset(item.id for item in endpoints if item.veth_ifindex not in reading)

    def close(self) -> None:
        """Let go of descriptors; what is attached stays."""
        self._found.close()
        if self._attachments is not None:
            self._attachments.close()
        self.learner = None


def _way(links_: links.Links, program: int) -> tc.Attachments:
    """Find a way; at the loopback interface the programs that it is tried with let everything pass."""
    return tc.find(links_, program, socket.if_nametoindex("lo"))


def _line(text: object) -> str:
    return " ".join(str(text).split())
