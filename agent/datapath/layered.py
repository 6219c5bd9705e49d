"""Two datapaths as one: sockets judged by the one, packets by the other.

The problem: one state has to reach two engines, and no call writes both at once. The rule follows from what both
together do: a flow passes where both let it, so between the two writes nothing is open that the old policy or the new
one closes. What is reported is what both enforce: `apply` returns when the second has taken the state as well.

The packet layer comes first. It holds alone, so that a flow that is no longer allowed is cut at the earliest; what is
newly allowed is still answered at connect(), with an errno, until the path behind it is open, and nobody waits for a
packet that is dropped on the way; and it is the one that others can keep from being written, in which case the socket
layer keeps the last policy with it.

Where the second write fails, the layers differ until an apply succeeds: each denies by its own policy and nothing is
wider than either. The error says so.

Names that DNS teaches are learned by the socket layer's datapath, and the packet layer asks that for what they open. So
a name that the old policy allows goes on being open to packets, as to sockets, until the second write.

One number names a state: the socket layer's generation, which its events carry whole. The packet layer's generation
is told to go by that number (`tell`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

from agent import desired as desired_
from agent import errors
from agent.datapath import base, tracing
from agent.model import endpoint, fqdn


class LayeredDatapath(base.Datapath):
    """Keeps `base.Datapath` with two datapaths that keep it."""

    def __init__(
        self,
        *,
        socket: base.Datapath,
        packet: base.Datapath,
        tell: Callable[[int, int], object],
        join: Callable[[], object],
    ) -> None:
        """`tell` takes a generation of `packet` and the number reported for it.

        `join` has `packet` ask for what `socket` learns, both being open; it raises DatapathError where it cannot.
        """
        self._socket = socket
        self._packet = packet
        self._tell = tell
        self._join = join

    def open(self) -> base.EngineReport:
        """Open both, the packet layer first: it needs no compiler. Raises what either does, with neither open."""
        with contextlib.ExitStack() as undo:
            undo.callback(self._packet.close)
            packet = self._packet.open()
            undo.callback(self._socket.close)
            socket = self._socket.open()
            unlearned = self._join_names(socket)
            undo.pop_all()
        return dataclasses.replace(
            packet,
            mode=f"{socket.mode}+{packet.mode}",
            reasons=(*socket.reasons, *unlearned, *packet.reasons),
            proved=(*socket.proved, *packet.proved),
            unproved=(*socket.unproved, *packet.unproved),
            learns_names=socket.learns_names and not unlearned,
            filters_queries=socket.filters_queries and not unlearned,
        )

    def _join_names(self, socket: base.EngineReport) -> tuple[str, ...]:
        """Return why the packet layer does not know what is learned; empty: it does, or there is nothing to know."""
        if not socket.learns_names:
            return ()
        try:
            self._join()
        except errors.DatapathError as error:
            return (f"addresses that are learned by their names are not open to packets: {error}",)
        return ()

    def apply(self, desired: desired_.DesiredState) -> base.Applied:
        """Write both. Raises what the packet layer raises, with nothing changed, or ApplyFailed."""
        packet = self._packet.apply(desired)
        try:
            socket = self._socket.apply(desired)
        except errors.DatapathError as error:
            raise errors.ApplyFailed(
                "the packet layer enforces the new policy and the socket layer still the last one, "
                f"so that what either denies is denied: {error}"
            ) from error
        self._tell(packet.generation, socket.generation)
        return base.Applied(
            generation=socket.generation,
            written=packet.written + socket.written,
            flipped=max(packet.flipped, socket.flipped),
            seconds=packet.seconds + socket.seconds,
        )

    def learn_names(self, desired: desired_.DesiredState) -> frozenset[int]:
        """Have the socket layer's datapath learn."""
        return self._socket.learn_names(desired)

    def replay(self, learned: fqdn.LearnedAddresses) -> int:
        """Have it learn these."""
        return self._socket.replay(learned)

    def known(self) -> fqdn.Known:
        """Read what it has learned."""
        return self._socket.known()

    def settle(self) -> None:
        """Settle both, the second also where the first fails."""
        self._both(self._packet.settle, self._socket.settle)

    def attach_links(self, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        """Let the packet layer check sources at the veths, and the socket layer's datapath learn names there."""
        self._packet.attach_links(sandboxes)
        self._socket.attach_links(sandboxes)

    def repair(self) -> Sequence[str]:
        """Repair both."""
        return (*self._packet.repair(), *self._socket.repair())

    def counters(self) -> Mapping[str, int]:
        """Add up what both count."""
        packet, socket = self._packet.counters(), self._socket.counters()
        return {name: packet.get(name, 0) + socket.get(name, 0) for name in {**packet, **socket}}

    def usage(self) -> Mapping[str, base.Usage]:
        """Return what both use."""
        return {**self._packet.usage(), **self._socket.usage()}

    def missing(self) -> Sequence[str]:
        """Return what either lacks."""
        return (*self._packet.missing(), *self._socket.missing())

    def loaded(self) -> tracing.Loaded:
        """Read what both have. Raises DatapathError."""
        packet = self._packet.loaded()
        try:
            return _Loaded(socket=self._socket.loaded(), packet=packet)
        except errors.DatapathError:
            packet.close()
            raise

    def close(self) -> None:
        """Close both."""
        self._both(self._packet.close, self._socket.close)

    def uninstall(self) -> None:
        """Remove both."""
        self._both(self._packet.uninstall, self._socket.uninstall)

    @staticmethod
    def _both(first: Callable[[], None], second: Callable[[], None]) -> None:
        with contextlib.ExitStack() as calls:
            calls.callback(second)
            calls.callback(first)


class _Loaded(tracing.Loaded):
    """Both layers' contents, told one after the other."""

    def __init__(self, *, socket: tracing.Loaded, packet: tracing.Loaded) -> None:
        self._socket, self._packet = socket, packet

    @property
    def generation(self) -> int | None:
        return self._socket.generation

    def trace(self, question: tracing.Question, state: desired_.DesiredState) -> tuple[tracing.Layer, ...]:
        return (*self._socket.trace(question, state), *self._packet.trace(question, state))

    def inventory(self) -> tracing.Inventory:
        socket, packet = self._socket.inventory(), self._packet.inventory()
        return tracing.Inventory(programs=(*socket.programs, *packet.programs), tables=(*socket.tables, *packet.tables))

    def rows(self, table: str, wanted: tracing.Wanted, state: desired_.DesiredState) -> Iterator[tracing.Row]:
        of_sockets = any(one.name == table for one in self._socket.inventory().tables)
        return (self._socket if of_sockets else self._packet).rows(table, wanted, state)

    def close(self) -> None:
        with contextlib.ExitStack() as calls:
            calls.callback(self._socket.close)
            calls.callback(self._packet.close)
