"""Enforcement by iptables and ipset on one node: the datapath contract over rendered rulesets.

The problem is the BPF engine's: an agent starts where an earlier one, perhaps killed in the middle of something, has
left a policy in force, and brings it into line with each step leaving old or new. Here a state is rendered whole, and
`writer` finds what of it the kernel lacks. Every state that differs in anything gets a generation of its own, which the
log rules carry, so that a verdict is explained by the state that judged the packet.

Runs inside the node's network namespace. It must not know which rules say what, nor how a policy becomes rules.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import pathlib
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from agent import desired as desired_
from agent import errors
from agent.datapath import base, bridges, lookups
from agent.datapath.iptables import (
    asked,
    by_name,
    commands,
    loaded,
    names_learner,
    names_queue,
    names_rules,
    netdev,
    removal,
    render,
    ruleset,
    selftest,
    stamp,
    verdicts,
    writer,
)
from agent.datapath.iptables import variant as variant_
from agent.model import endpoint, fqdn, net

MODE = "iptables"
NETDEV = ("netdev", netdev.TABLE)

_Links: TypeAlias = tuple[tuple[endpoint.Sandbox, ...], Mapping[int, str]]


class IptablesDatapath(base.Datapath):
    """Keeps `base.Datapath`. One caller; `open` comes before everything but `uninstall`."""

    def __init__(
        self,
        *,
        variant: variant_.Variant | None = None,
        learned: lookups.Ask = lookups.nothing_learned,
        reads: lookups.Reads = lookups.every_veth,
        learner: names_learner.Learner | None = None,
    ) -> None:
        """Enforce with one variant, or (None) the one the node uses; nothing is touched yet.

        `learned` knows the classes of the names for which DNS gave an endpoint an address, `reads` the veths at which
        queries are read; see `ask`. `learner` learns them where nobody else does, if this node can hold packets.
        """
        self._variant = variant
        self._learner = learner
        self._learns = False
        """The learner is open."""
        self._learned = learned if learner is None else learner.classes_of
        self._by_name: by_name.ByName | None = None
        self._reads = reads
        self.moments = verdicts.Moments(self._learned, reads)
        """Which state each of the last generations was; for whoever reads the log."""
        self._writer: writer.Writer | None = None
        self._generation = 0
        self._applied: _Inputs | None = None
        """What is in force; None before the first apply and after one that failed."""
        self._links: _Links | None = None
        """What the netdev table was rendered from."""
        self._links_listed = ""
        """The netdev table as nft showed it after it was written."""
        self._links_seen: int | None = None
        """The generation of nftables at that time."""
        self._checks_links = True
        self._matches_ports = False
        """The kernel can match the port of a bridge."""
        self._cache = render.Cache()

    def open(self) -> base.EngineReport:
        """Choose, prove, and look at what is there. Raises NotSupported or DatapathError; nothing is changed."""
        choice = variant_.Choice(self._variant, "") if self._variant else variant_.choose()
        found = selftest.run(choice.variant)
        self._checks_links = found.links
        self._matches_ports = found.ports
        self._writer = writer.Writer(choice.variant)
        self._generation = self._writer.open(found.tables) or 0
        why = (choice.why,) if choice.why else ()
        unlearned = self._open_learner(choice.variant, found.tables)
        return base.EngineReport(
            mode=MODE,
            reasons=(*why, *found.reasons, *unlearned),
            proved=found.proved,
            unproved=found.unproved,
            variant=choice.variant.value,
            learns_names=self._learns,
        )

    def _open_learner(self, variant: variant_.Variant, tables: Sequence[ruleset.Table]) -> tuple[str, ...]:
        """Hold packets of DNS from the next apply on; return why not, one line."""
        if self._learner is None:
            return ()
        try:
            if ruleset.Table.SECURITY not in tables:
                raise errors.NotSupported(feature="holding DNS answers", needs="the table security")
            selftest.require_holding(variant, names_queue.QUEUE)
            self._learner.open()
        except errors.DatapathError as error:
            return (f"what is allowed by name is denied: {error}",)
        self._learns = True
        return ()

    def ask(self, programs: pathlib.Path) -> None:
        """Have rules ask these pinned programs for what names allow, from the next apply on; after `open`.

        Raises NotSupported where rules cannot; then what is allowed by name is denied.
        """
        selftest.require_asking(self._opened().variant, programs)
        self._by_name = asked.Asked(programs)

    def apply(self, desired: desired_.DesiredState) -> base.Applied:
        """Render and write. Raises MapFull or ApplyFailed; the old state is in force then."""
        with _uncollected():
            return self._apply(desired)

    def _apply(self, desired: desired_.DesiredState) -> base.Applied:
        begun = time.perf_counter()
        self.learn_names(desired)
        inputs = _Inputs(
            state=dataclasses.replace(desired, revision=0),
            interfaces=_interfaces_of(desired),
            ports=bridges.filtered() if self._matches_ports else frozenset(),
            by_name=names_rules.of_state(desired) if self._learns else self._by_name,
        )
        if inputs == self._applied:
            return base.Applied(generation=self._generation, written=0, flipped=0, seconds=time.perf_counter() - begun)
        # A number stands for one state: also one that was in force in one family only, because the other failed.
        self._generation = generation = self._generation + 1
        self.moments.staged(generation, desired)
        rulesets = {
            family: render.render(
                desired,
                family,
                inputs.interfaces,
                generation,
                self._cache,
                ports=inputs.ports,
                by_name=inputs.by_name,
            )
            for family in net.Family
        }
        self._applied = None
        written = self._opened().apply(rulesets)
        self._applied = inputs
        self.moments.enforced(generation)
        return base.Applied(
            generation=generation,
            written=written.entries,
            flipped=len(desired.endpoints),
            seconds=time.perf_counter() - begun,
        )

    def settle(self) -> None:
        """Destroy the sets that no rule names any more. Raises ApplyFailed."""
        self._opened().settle()
        if self._learns and self._learner is not None and self._applied is not None:
            self._learner.mend(self._applied.state)

    def learn_names(self, desired: desired_.DesiredState) -> frozenset[int]:
        """Have answers learned for the names of `desired`, too, and the sets made that its rules will name."""
        self.settle()
        return self._learner.stage(desired) if self._learns and self._learner is not None else frozenset()

    def replay(self, learned: fqdn.LearnedAddresses) -> int:
        """Learn these, too."""
        return self._learner.replay(learned) if self._learns and self._learner is not None else 0

    def known(self) -> fqdn.Known:
        """Read what is learned."""
        return self._learner.known() if self._learns and self._learner is not None else fqdn.Known()

    def missing(self) -> Sequence[str]:
        """Tell where nobody reads the packets that are held; DNS goes on."""
        if self._learner is None or not self._learns or self._learner.alive:
            return ()
        return ("no names are learned any more: reading held packets has failed",)

    def attach_links(self, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        """Check sources at the veth of each pod, before anything puts fragments together. Raises DatapathError."""
        if not self._checks_links:
            return
        links = (tuple(sandboxes), _names({sandbox.veth_ifindex for sandbox in sandboxes}))
        if links != self._links:
            self._write_links(links)

    def repair(self) -> Sequence[str]:
        """Bring back what others have changed of ours. Raises DatapathError where it cannot be done now."""
        lines = self._opened().repair()
        return (*lines, *self._repair_links())

    def counters(self) -> Mapping[str, int]:
        """Return what was done, not what rules counted: those begin at 0 with each write, and reading them is dear."""
        learning = self._learner.counters() if self._learner is not None and self._learns else {}
        return {**(self._writer.counters() if self._writer is not None else {}), **learning}

    def usage(self) -> Mapping[str, base.Usage]:
        """Return how many members the sets have; each set grows by itself."""
        return {} if self._writer is None else {base.SETS: base.Usage(self._writer.members, 0)}

    def loaded(self) -> loaded.LoadedRules:
        """Read rules and sets anew, beside whatever is written. Raises DatapathError."""
        by_name = names_rules.of_state if self._learns else (lambda _: self._by_name)
        return loaded.LoadedRules(self._opened().variant, by_name, self._learned, self._reads)

    def close(self) -> None:
        """Let go of descriptors; enforcement stays."""
        if self._writer is not None:
            self._writer.close()
        if self._learner is not None:
            self._learner.close()
        self._learns = False
        self._writer = self._applied = self._links = None

    def uninstall(self) -> None:
        """Remove chains, jumps and sets of both variants and families, and the netdev table; safe to repeat."""
        self.close()
        removal.everything()

    def _write_links(self, links: _Links) -> None:
        """Replace the netdev table. Raises DatapathError."""
        rules = netdev.render(*links, self._generation)
        commands.nft(rules or netdev.removal())
        self._links, self._links_listed = links, commands.nft_table(*NETDEV)
        self._links_seen = stamp.generation()

    def _repair_links(self) -> tuple[str, ...]:
        """Put the netdev table back, if nftables has changed and that with it."""
        seen = stamp.generation()
        if self._links is None or seen == self._links_seen:
            return ()
        self._links_seen = seen
        if commands.nft_table(*NETDEV) == self._links_listed:
            return ()
        self._write_links((self._links[0], _names({sandbox.veth_ifindex for sandbox in self._links[0]})))
        return ("source checks on veths: wrote them anew",)

    def _opened(self) -> writer.Writer:
        if self._writer is None:
            raise errors.DatapathError("the iptables engine is not open")
        return self._writer


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the collector of cycles away while values are made by the hundred thousand, none of them in a cycle.

    It would walk all that the agent knows of the cluster again and again, for three quarters of the time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """All that rules are made from."""

    state: desired_.DesiredState
    interfaces: Mapping[int, str]
    ports: frozenset[net.Family]
    """See `render.render`."""
    by_name: by_name.ByName | None
    """Likewise."""


def _interfaces_of(state: desired_.DesiredState) -> Mapping[int, str]:
    """Return the names of the interfaces that endpoints are behind."""
    endpoints = state.endpoints.values()
    return _names(index for item in endpoints for index in (item.veth_ifindex, item.ingress_ifindex))


def _names(indices: Iterable[int]) -> Mapping[int, str]:
    """Return the names of those interfaces of this network namespace that are there."""
    wanted = frozenset(indices)
    return {index: name for index, name in socket.if_nameindex() if index in wanted}
