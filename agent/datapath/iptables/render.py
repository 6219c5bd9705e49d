"""From a DesiredState to the chains, rules and sets of one family.

A packet at FORWARD or INPUT is judged as its connection: egress by the client's address, then ingress by the server's
(`desired`), in a reply with source and destination changed over. What both allow leaves with the mark MARK_JUDGED, and
what comes to the security table without it and concerns an enforced endpoint is dropped. So nothing passes unjudged
when others empty our chains or accept before us: from a chain that was emptied a packet returns without the mark.

Egress is a call that comes back marked, and not a chain that goes on to ingress: nf_tables of the kernels this engine
is for follows every path through the chains at each commit (`nft_chain_validate`), and two stages in a row would
multiply theirs.

Nothing here accepts: after us the rest of FORWARD is others' business. This module must not know versions of sets,
what the kernel holds or which variant of iptables runs.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from agent import desired
from agent.datapath.iptables import by_name as by_name_
from agent.datapath.iptables import discovery, dispatch, members, policy, prefix, quoted, ruleset, source, ways
from agent.model import endpoint, net

MARK_JUDGED = "0x1000/0x1000"
"""One bit that neither kube-proxy, portmap, Calico, Cilium nor AWS uses."""
MARK_CLEAR = "0x0/0x1000"
LOG_BYTES = 128
"""Of each logged packet: IPv6 with some extension headers, and ports."""

_FORWARD, _INPUT, _REPLY = "NW-FORWARD", "NW-INPUT", "NW-REPLY"
_ERRORS, _BLAME, _DISCOVERY = "NW-ERRORS", "NW-BLAME", "NW-DISCOVERY"
_REPORT, _LOG = "NW-REPORT", "NW-LOG"
_BACKSTOP, _BACKSTOP_IN = "NW-BACKSTOP", "NW-BACKSTOP-IN"
_UNMARKED, _UNMARKED_IN, _UNJUDGED = "NW-UNMARKED", "NW-UNMARKED-IN", "NW-UNJUDGED"

JUMPS: Mapping[ruleset.Table, tuple[ruleset.Jump, ...]] = {
    ruleset.Table.RAW: (ruleset.Jump("PREROUTING", source.SOURCE),),
    ruleset.Table.FILTER: (ruleset.Jump("FORWARD", _FORWARD), ruleset.Jump("INPUT", _INPUT)),
    ruleset.Table.SECURITY: (ruleset.Jump("FORWARD", _BACKSTOP), ruleset.Jump("INPUT", _BACKSTOP_IN)),
}

_MARK = ruleset.Rule(("-j", "MARK", "--set-xmark", MARK_JUDGED))
_UNMARK = ruleset.Rule(("-j", "MARK", "--set-xmark", MARK_CLEAR))
_DROP = ruleset.Rule(("-j", "DROP"))
_IF_MARKED = ("-m", "mark", "--mark", MARK_JUDGED)
_UNLESS_MARKED = ("-m", "mark", "!", "--mark", MARK_JUDGED)
_IF_NEW = ("-m", "conntrack", "--ctstate", "NEW")
_IF_FIRST = (*_IF_NEW, "!", "--ctstatus", "CONFIRMED")
"""A connection is confirmed when its first packet leaves; NEW is every packet until there is an answer."""


class Cache:
    """What one render leaves to the next, so that it costs what changed; holds no decision, only finished parts."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.writers: dict[net.Family, tuple[members.Book, policy.Writer]] = {}


def render(
    state: desired.DesiredState,
    family: net.Family,
    interfaces: Mapping[int, str],
    generation: int,
    cache: Cache | None = None,
    *,
    ports: Container[net.Family] = (),
    by_name: by_name_.ByName | None = None,
) -> ruleset.Ruleset:
    """Render what `state` says of one family; `interfaces` names the node's interfaces by index.

    `ports`: the families whose bridged packets netfilter sees with the port they came in by. `by_name` writes the rules
    of what is allowed by name; None: nothing is.

    With `cache`, sets whose members are as in the last render of this family are the very same objects. The result
    does not depend on it.
    """
    book, writer = (cache.writers.get(family) if cache else None) or (None, None)
    if book is None or not book.is_of(state):
        book = members.Book(state, family, book)
    writer = policy.Writer(family, book, writer, by_name)
    rendering = _Rendering(state, family, generation)
    for number in rendering.sets_used():
        writer.write(state.sets[number], rendering.with_egress_sets(number))
    frame = (by_name or by_name_.NotByName()).frame(family, rendering.with_egress_sets(*writer.named))
    pods = writer.pods()
    writer.finish()
    if cache:
        cache.writers[family] = book, writer
    forged = rendering.dropped(prefix.Note.FORGED)
    check = source.Check(rendering.owners, family, interfaces, forged, has_ports=family in ports)
    chains: dict[ruleset.Table, ruleset.Chains] = {
        ruleset.Table.RAW: check.chains,
        ruleset.Table.FILTER: {**rendering.filter(pods), **dict(sorted(writer.chains.items()))},
        ruleset.Table.SECURITY: rendering.security(),
    }
    return ruleset.Ruleset(
        family=family,
        chains=_framed(chains, frame),
        jumps={
            table: (*frame.jumps.get(table, ()), *JUMPS.get(table, ()))
            for table in ruleset.Table
            if table in frame.jumps or table in JUMPS
        },
        sets={**rendering.sets, **check.sets, **frame.sets, **writer.sets},
    )


def _framed(
    chains: Mapping[ruleset.Table, ruleset.Chains], frame: by_name_.Frame
) -> dict[ruleset.Table, ruleset.Chains]:
    """Add what names need."""
    framed: dict[ruleset.Table, ruleset.Chains] = {}
    for table in ruleset.Table:
        tails = frame.tails.get(table, {})
        own = {name: (*rules, *tails.get(name, ())) for name, rules in chains.get(table, {}).items()}
        if found := {**own, **frame.chains.get(table, {})}:
            framed[table] = found
    return framed


class _Rendering:
    """Everything of one family but the source check and the policy sets."""

    def __init__(self, state: desired.DesiredState, family: net.Family, generation: int) -> None:
        self._state = state
        self._family = family
        self._generation = generation
        self._six = family is net.Family.IPV6
        endpoints = sorted(state.endpoints.values(), key=lambda item: item.id)
        self.owners = {
            address: item for item in endpoints for address in item.addresses if address.version == family.value
        }
        """Address -> endpoint; of two that claim one, the one with the greater number, as in `plan`."""
        held = sorted(network for network in state.held_ranges if network.version == family.value)
        enforced = [address for address, item in self.owners.items() if _is_enforced(item)]
        free = [address for address, item in self.owners.items() if not _is_enforced(item)] if held else []
        self._endpoints, self._held, self._enforced = (
            f"NW{family.value}-{name}" for name in ("ENDPOINTS", "HELD", "ENFORCED")
        )
        contents = {
            self._endpoints: members.of_networks(map(net.host_network, self.owners)),
            self._held: members.of_networks(held),
            self._enforced: members.of_networks((*held, *map(net.host_network, enforced)), map(net.host_network, free)),
        }
        self.sets = {
            name: ruleset.SetContent(kind=ruleset.SetKind.NETS, members=found)
            for name, found in contents.items()
            if found
        }

    def sets_used(self) -> list[int]:
        """Return the policy sets that packets of this family can meet."""
        judged = [item for item in self.owners.values() if not item.held]
        numbers = {number for item in judged for number in (item.ingress_set, item.egress_set)}
        return sorted(numbers & self._state.sets.keys())

    def with_egress_sets(self, *numbers: int) -> by_name_.Owners:
        """Return the endpoints of this family that have one of these egress sets, by their addresses."""
        return {address: item for address, item in self.owners.items() if item.egress_set in numbers and not item.held}

    def dropped(self, note: prefix.Note) -> tuple[ruleset.Rule, ...]:
        """Return the rules that report a packet and drop it."""
        return self._log(note), _DROP

    def filter(self, pods: str) -> policy.Chains:
        """Return the chains of the filter table, policy sets left out; `pods` is the set of all pods, or empty."""
        chains: policy.Chains = {
            _FORWARD: tuple(self._forward()),
            _INPUT: tuple(self._input()),
            _REPLY: tuple(self._stages(*(way for way in ways.WAYS if way.reply))),
            policy.QUIET: (_MARK,),
            policy.PASS: tuple(self._pass()),
            policy.DENY: tuple(self._deny()),
            policy.DENY + "-R": self.dropped(prefix.Note.REPLY_DENIED),
            _ERRORS: tuple(self._errors(pods)),
            _BLAME: self.dropped(prefix.Note.ERROR_FORGED),
        }
        if self._six:
            chains[_DISCOVERY] = tuple(discovery.rules(("-g", policy.QUIET)))
        if self._endpoints in self.sets:
            chains[_REPORT] = tuple(
                ruleset.Rule((*policy.matching_set(self._endpoints, end), "-g", _LOG), (self._endpoints,))
                for end in ("src", "dst")
            )
            chains[_LOG] = (self._log(prefix.Note.ALLOWED),)
        for way in ways.WAYS:
            chains |= self._dispatch(way)
        return chains

    def security(self) -> policy.Chains:
        """Return the chains that drop what was not judged."""
        chains: policy.Chains = {
            _BACKSTOP: (ruleset.Rule((*_UNLESS_MARKED, "-g", _UNMARKED)), _UNMARK),
            _BACKSTOP_IN: (ruleset.Rule((*_UNLESS_MARKED, "-g", _UNMARKED_IN)), _UNMARK),
            _UNMARKED: (),
            _UNMARKED_IN: (),
            _UNJUDGED: self.dropped(prefix.Note.UNJUDGED),
        }
        if self._enforced in self.sets:
            source_, destination = (
                ruleset.Rule((*policy.matching_set(self._enforced, end), "-g", _UNJUDGED), (self._enforced,))
                for end in ("src", "dst")
            )
            chains[_UNMARKED] = source_, destination
            # INPUT lets these pass unseen, so the node's own flows outlive a foreign accept before ours.
            established = ("-m", "conntrack", "--ctstate", "ESTABLISHED", "--ctdir", "REPLY")
            chains[_UNMARKED_IN] = (
                ruleset.Rule(("-i", "lo", "-j", "RETURN")),
                ruleset.Rule((*established, "-j", "RETURN")),
                source_,
            )
        return chains

    def _forward(self) -> Iterator[ruleset.Rule]:
        yield _UNMARK
        if self._six:
            yield from _DISCOVERED
        yield self._to_errors()
        yield ruleset.Rule(("-m", "conntrack", "--ctdir", "REPLY", "-g", _REPLY))
        yield from self._stages(*(way for way in ways.WAYS if not way.reply))

    def _stages(self, *found: ways.Way) -> Iterator[ruleset.Rule]:
        """Judge egress, which comes back marked or not at all, then ingress."""
        egress, ingress = sorted(found, key=lambda way: way.direction is net.Direction.INGRESS)
        yield ruleset.Rule(("-j", _root(egress)))
        yield ruleset.Rule((*_UNLESS_MARKED, "-j", "RETURN"))
        yield _UNMARK
        yield ruleset.Rule(("-g", _root(ingress)))

    def _input(self) -> Iterator[ruleset.Rule]:
        """Judge what pods send to their node; the node's own flows pass by position (rules A18, A37)."""
        yield _UNMARK
        yield ruleset.Rule(("-i", "lo", "-g", policy.QUIET))
        if self._six:
            yield from _DISCOVERED
        yield self._to_errors()
        yield ruleset.Rule(("-m", "conntrack", "--ctdir", "REPLY", "-g", policy.QUIET))
        egress = next(way for way in ways.WAYS if way.direction is net.Direction.EGRESS and not way.reply)
        yield ruleset.Rule(("-j", _root(egress)))
        yield ruleset.Rule((*_IF_MARKED, "-g", policy.PASS))

    def _to_errors(self) -> ruleset.Rule:
        number = net.Protocol.ICMPV6 if self._six else net.Protocol.ICMP
        words = (*policy.protocol_words(number.value), "-m", "conntrack", "--ctstate", "RELATED")
        return ruleset.Rule((*words, "-g", _ERRORS))

    def _errors(self, pods: str) -> Iterator[ruleset.Rule]:
        """Stop errors from a pod about a packet that was not for it; routers may complain of any."""
        yield ruleset.Rule((*quoted.words(self._family), "-g", policy.QUIET))
        for name in (self._endpoints if self._endpoints in self.sets else "", pods):
            if name:
                yield ruleset.Rule((*policy.matching_set(name, "src"), "-g", _BLAME), (name,))
        yield ruleset.Rule(("-g", policy.QUIET))

    def _pass(self) -> Iterator[ruleset.Rule]:
        if self._endpoints in self.sets:
            yield ruleset.Rule((*_IF_FIRST, "-j", _REPORT))
        yield _MARK

    def _deny(self) -> Iterator[ruleset.Rule]:
        """Report, and refuse what would open a connection; what was open falls silent (rule A39)."""
        yield self._log(prefix.Note.DENIED)
        if self._state.deny_mode is endpoint.DenyMode.REJECT:
            other = "icmp6-adm-prohibited" if self._six else "icmp-admin-prohibited"
            yield ruleset.Rule(("-p", "tcp", *_IF_NEW, "-j", "REJECT", "--reject-with", "tcp-reset"))
            yield ruleset.Rule((*_IF_NEW, "-j", "REJECT", "--reject-with", other))
        yield _DROP

    def _dispatch(self, way: ways.Way) -> policy.Chains:
        """Find the endpoint at one end; then ranges where unknown pods are held; what is neither is nothing to us."""
        allowed, denied = policy.allowed_target(way), policy.denied_target(way)
        has_held = self._held in self.sets
        leaves: dict[str, tuple[str, str]] = {}
        for address, item in self.owners.items():
            number = item.ingress_set if way.direction is net.Direction.INGRESS else item.egress_set
            if item.held or (number != desired.NOT_ISOLATED and number not in self._state.sets):
                leaves[dispatch.address_key(address)] = "-g", denied
            elif number != desired.NOT_ISOLATED:
                leaves[dispatch.address_key(address)] = "-g", policy.set_chain(number, way)
            elif has_held:
                leaves[dispatch.address_key(address)] = "-g", allowed
        rest = f"{_root(way)}-REST"
        end = ruleset.Rule(("-g", rest if has_held else allowed))
        chains = dispatch.tree(_root(way), dispatch.ByAddress(way.subject_option, self._family), leaves, (end,))
        if has_held:
            chains[rest] = self._hold(way), ruleset.Rule(("-g", allowed))
        return chains

    def _hold(self, way: ways.Way) -> ruleset.Rule:
        """Deny what an unknown pod sends or gets; the node's addresses may lie in its pod ranges (its gateway)."""
        local = ("-m", "addrtype", "!", f"--{way.subject}-type", "LOCAL")
        but = local if way.direction is net.Direction.INGRESS else ()
        words = (*policy.matching_set(self._held, way.subject), *but, "-g", policy.denied_target(way))
        return ruleset.Rule(words, (self._held,))

    def _log(self, note: prefix.Note) -> ruleset.Rule:
        text = str(prefix.Prefix(self._generation, note))
        return ruleset.Rule(
            ("-j", "NFLOG", "--nflog-prefix", text, "--nflog-group", str(prefix.GROUP), "--nflog-size", str(LOG_BYTES))
        )


_DISCOVERED = (
    ruleset.Rule((*discovery.ICMPV6, "-j", _DISCOVERY)),
    ruleset.Rule((*_IF_MARKED, "-j", "RETURN")),
)


def _root(way: ways.Way) -> str:
    return f"NW-{way.direction.name}{way.mark}"


def _is_enforced(item: desired.Endpoint) -> bool:
    return item.held or item.ingress_set != desired.NOT_ISOLATED or item.egress_set != desired.NOT_ISOLATED
