"""What the kernel's rules and sets say at this moment, read by iptables-save and netlink, not remembered.

The problem is that of `bpf/loaded`: what was written is what is in doubt. Rules are read back whole and followed for
the flow's first packet, beside the rules the state renders to; sets are read when a rule on its way asks one. It must
not use the writer's socket, which is one thread's, nor write, nor wait for the xtables lock.
"""

from __future__ import annotations

import dataclasses
import errno
import socket
from collections.abc import Callable, Iterator

from agent import desired as desired_
from agent import errors
from agent.datapath import judge, lookups, tracing, words
from agent.datapath.iptables import by_name as by_name_
from agent.datapath.iptables import (
    commands,
    compared,
    explained,
    interpreter,
    names_pairs,
    names_sets,
    readback,
    recovered,
    render,
    ruleset,
    sets,
    text,
)
from agent.model import identity, net


class _Local:
    """The node's own addresses: those that a socket can be bound to."""

    def __contains__(self, address: object) -> bool:
        six = getattr(address, "version", 4) == net.Family.IPV6.value
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind((str(address), 0))
            except OSError as error:
                return error.errno not in {errno.EADDRNOTAVAIL, errno.EINVAL}
        return True


def _nothing(_: desired_.DesiredState) -> None:
    """Allow nothing by name."""


class LoadedRules(tracing.Loaded):
    """The rules and sets of this network namespace."""

    def __init__(
        self,
        variant: commands.Variant,
        by_name: Callable[[desired_.DesiredState], by_name_.ByName | None] = _nothing,
        learned: lookups.Ask = lookups.nothing_learned,
        reads: lookups.Reads = lookups.every_veth,
    ) -> None:
        """Open a socket of its own; the others are as the datapath has them. Raises NotSupported without ipset."""
        self._variant = variant
        self._by_name, self._learned, self._reads = by_name, learned, reads
        self._sets = sets.Sets()
        self._saved: dict[tuple[net.Family, ruleset.Table], str] = {}

    @property
    def generation(self) -> int | None:
        """Not told: log rules carry this engine's own number."""
        return None

    def close(self) -> None:
        """Let go of the socket."""
        self._sets.close()

    def trace(self, question: tracing.Question, state: desired_.DesiredState) -> tuple[tracing.Layer, ...]:
        """Follow the flow's first packet. Raises DatapathError."""
        family = net.family_of(question.flow.server)
        read = self._rules(family)
        generation = readback.parse(self._text(family, ruleset.Table.FILTER)).generation or 0
        rendered = render.render(state, family, {}, generation, by_name=self._by_name(state))
        rendered = dataclasses.replace(rendered, sets={**rendered.sets, **self._of_names(question.flow, state)})
        local = _Local()
        models = [interpreter.Model(rules, local) for rules in (rendered, read)]
        where = lookups.InState(state, self._learned, self._reads)
        judged = judge.Judge(where).packet(question.flow, question.hook or judge.Hook.FORWARD)
        reason = tracing.UNREAD if judged.unread else judged.reason.name.lower()
        compiled = tracing.Answer(allowed=judged.allowed, reason=reason, why=words.Words(state).judgement(judged))
        named = _is_named(where, question.flow)
        found = compared.layer(models[0], models[1], (rendered, read), question, compiled, named=named)
        return (found,) if found is not None else ()

    def inventory(self) -> tracing.Inventory:
        """List our chains and sets."""
        chains = [
            tracing.TableUse(
                kind=tracing.Kind.CHAIN, name=chain, type=table.value, family=family.value, entries=len(rules)
            )
            for family in net.Family
            for table, found in self._rules(family).chains.items()
            for chain, rules in sorted(found.items())
        ]
        used = [
            tracing.TableUse(
                kind=tracing.Kind.SET,
                name=name,
                type=header.kind,
                family=header.family.value if header.family is not None else 0,
                entries=header.elements,
                capacity=sets.CAPACITY,
            )
            for name, header in sorted(self._sets.headers(ruleset.SET_PREFIX).items())
        ]
        return tracing.Inventory(tables=(*chains, *used))

    def rows(self, table: str, wanted: tracing.Wanted, state: desired_.DesiredState) -> Iterator[tracing.Row]:
        """Yield the rules of a chain ("": all), of every family and table that has it, or the members of a set.

        A set may be named with its version or, as rules name it here, without: then those in force are meant.
        """
        if wanted.policy_set:
            remedy = "rules of iptables are of no numbered set; name a chain, or a pod"
            raise errors.InvalidInput(field="--set", value=wanted.policy_set, remedy=remedy)
        headers = self._sets.headers(ruleset.SET_PREFIX)
        in_force = [name for name in (table + letter for letter in text.VERSIONS) if name in headers]
        in_force = [name for name in in_force if headers[name].references]
        if table in headers or in_force:
            for name in (table,) if table in headers else in_force:
                yield from self._members(name, wanted, state)
            return
        known = False
        for family in net.Family:
            for where, chains in self._rules(family).chains.items():
                for chain in (table,) if table else sorted(chains):
                    known = known or chain in chains
                    place = f"IPv{family.value} {where.value} {chain}"
                    yield from _rules(place, chain, chains.get(chain, ()), wanted, state)
        if not known:
            raise errors.InvalidInput(field="CHAIN", value=table, remedy="name a chain or set that `ipt show` lists")

    def _members(self, name: str, wanted: tracing.Wanted, state: desired_.DesiredState) -> Iterator[tracing.Row]:
        content = self._sets.read(name)
        says, where = words.Words(state), lookups.InState(state)
        addresses = wanted.endpoint.addresses if wanted.endpoint is not None else ()
        for member, matches in content.members.items() if content is not None else ():
            network = member.network
            if addresses and not any(one.version == network.version and one in network for one in addresses):
                continue
            who = says.identity(where.identity_of(network.network_address))
            yield tracing.Row(ruleset.describe(member), who if matches else f"a hole (nomatch), {who}")

    def _rules(self, family: net.Family) -> ruleset.Ruleset:
        saved = {table: content for table in ruleset.Table if (content := self._text(family, table))}
        jumps = {
            table: tuple(placed.jump for placed in readback.parse(content).state.jumps)
            for table, content in saved.items()
        }
        return recovered.rules(saved, jumps, family, self._read)

    def _read(self, name: str) -> ruleset.SetContent | None:
        return names_sets.content(name) if names_pairs.pair_of(name) else self._sets.read(name)

    def _of_names(self, flow: judge.Flow, state: desired_.DesiredState) -> dict[str, ruleset.SetContent]:
        """Return the sets of what the client of a flow has learned, which no state has."""
        client = lookups.InState(state).endpoint_of_address(flow.client)
        named = {name for pair in names_pairs.pairs_of(state) if pair.endpoint == client for name in pair.names}
        return {name: content for name in named if (content := names_sets.content(name)) is not None}

    def _text(self, family: net.Family, table: ruleset.Table) -> str:
        """Return a table as text, read once; "" where the kernel lacks it."""
        if (family, table) not in self._saved:
            try:
                content = commands.save(family, self._variant, table)
            except errors.NotSupported:
                content = ""
            self._saved[family, table] = content
        return self._saved[family, table]


def _rules(
    place: str, chain: str, found: tuple[ruleset.Rule, ...], wanted: tracing.Wanted, state: desired_.DesiredState
) -> Iterator[tracing.Row]:
    for number, rule in enumerate(found, 1):
        if wanted.endpoint is None or explained.concerns(chain, rule, wanted.endpoint):
            yield tracing.Row(f"{place} {number}", explained.rule(rule, state))


def _is_named(where: lookups.InState, flow: judge.Flow) -> bool:
    """Tell whether a name, or a row with a filter, allows a flow's egress: what the programs say that rules ask."""
    egress = net.Direction.EGRESS
    with_names, without = (judge.Judge(one).end(flow, egress) for one in (where, lookups.InState(where.state)))
    if not with_names.allowed or not without.allowed:
        return with_names.allowed
    asked = (with_names.set, where.identity_of(flow.server)), (with_names.set, identity.ANY)
    rows = (where.row(number, who, egress, flow.protocol, flow.port) for number, who in asked)
    deciding = next((row for row in rows if row is not None), None)
    return deciding is not None and bool(deciding.asks)
