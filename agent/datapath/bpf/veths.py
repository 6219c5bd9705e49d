"""What of the packet layer is at the host side of pods' veths: source checks on bridges, and the DNS learner.

Neither is what enforces: where a kernel has no way to be there, or refuses a program, the packet layer goes on without,
and says what does not hold for it.
"""

from __future__ import annotations

import pathlib
import socket
from collections.abc import Sequence

from agent import errors
from agent.datapath.bpf import learner as learner_
from agent.datapath.bpf import links, syscalls, tc
from agent.fqdn import history
from agent.model import endpoint

SOURCE_CHECK = "nw_tc_source"


class Veths:
    """The programs at the veths of one node; `open` comes first. One caller."""

    def __init__(self, pins: pathlib.Path, links: links.Links, lifetimes: history.Lifetimes) -> None:
        """Use the pins below `pins`; nothing is touched yet."""
        self._links = links
        self._found = learner_.Learner(pins, lifetimes)
        self._attachments: tc.Attachments | None = None
        self._programs = pathlib.Path()
        self.learner: learner_.Learner | None = None
        """None where nothing is learned."""

    def open(self, programs: pathlib.Path) -> tuple[str, ...]:
        """Find a way to be there, and have what an earlier agent attached run these programs.

        Returns what does not hold here, one line each. Raises DatapathError.
        """
        self._programs, self.learner = programs, None
        try:
            with syscalls.owned(syscalls.open_pin(programs / SOURCE_CHECK)) as program:
                # At the loopback interface this program lets everything pass.
                self._attachments = tc.find(self._links, program, socket.if_nametoindex("lo"))
                for ifindex in self._attachments.attached(tc.SOURCE):
                    self._attachments.attach(tc.SOURCE, program, ifindex)
        except errors.NotSupported as error:
            self._attachments = None
            return (
                f"sources of pods on a bridge are not checked: {error}",
                f"addresses are not learned by their names: {error}",
            )
        return self._learn(self._attachments)

    def _learn(self, attachments: tc.Attachments) -> tuple[str, ...]:
        try:
            loaded = self._found.open(self._programs)
        except errors.DatapathError as error:
            return (f"addresses are not learned by their names: {_line(error)}",)
        self._found.use(attachments, self._programs)
        self.learner = self._found
        if loaded is not None and loaded.refused:
            return (f"the DNS learner runs with {loaded.variant.value}: {_line(loaded.refused)}",)
        return ()

    def attach(self, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        """Be at the veth of each pod, and let go of veths that are gone. Raises DatapathError."""
        if self._attachments is None:
            return
        if self.learner is not None:
            self.learner.attach(sandboxes)
        bridged = {
            sandbox.veth_ifindex
            for sandbox in sandboxes
            if sandbox.veth_ifindex and sandbox.veth_ifindex != sandbox.ingress_ifindex
        }
        if bridged:
            with syscalls.owned(syscalls.open_pin(self._programs / SOURCE_CHECK)) as program:
                for ifindex in bridged:
                    self._attachments.attach(tc.SOURCE, program, ifindex)
        for ifindex in self._attachments.attached(tc.SOURCE) - bridged:
            self._attachments.detach(tc.SOURCE, ifindex)

    def close(self) -> None:
        """Let go of descriptors; what is attached stays."""
        self._found.close()
        self.learner = None


def _line(text: object) -> str:
    return " ".join(str(text).split())
