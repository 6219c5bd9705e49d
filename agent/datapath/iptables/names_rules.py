"""The rules of names: what sets of learned addresses allow, and which packets are held to be learned from.

A pod with names has a chain of its own, for what it learned is its own (requirement F9). It is called from the head
of the egress chain of the pod's policy set and comes back marked where a name allows, or as it went. A new connection
needs an address in the class's `fresh` set; of one that has begun, which is what conntrack says of its packets
(CONFIRMED), the `kept` set is asked, too: it goes on when the name has expired, and ends when no rule has the name
(F17, F27). A flow of datagrams goes on as long as conntrack remembers it (F18).

DNS is held in the security table, behind our own judgement: questions as well as answers, in the order in which they
pass, and of pods with names alone. Who does not use names pays nothing, and the agent is no part of their DNS.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from agent import desired
from agent.datapath.iptables import (
    by_name,
    members,
    names_pairs,
    names_queue,
    names_reader,
    names_regions,
    policy,
    regions,
    render,
    ruleset,
    text,
    ways,
)
from agent.model import identity, net

MARKED = ("-m", "mark", "--mark", render.MARK_JUDGED)
"""What has been allowed."""
BEGUN = ("-m", "conntrack", "--ctstatus", "CONFIRMED")
"""It is not the first packet of its connection."""
DNS, DNS_OUT = "NW-DNS", "NW-DNS-OUT"
_TRIAL = "NW-PROBE-HOLD"
BACKSTOPS = ("NW-BACKSTOP", "NW-BACKSTOP-IN")
"""Of `render`: all that is forwarded, and all that comes to the node."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Queued(by_name.ByName):
    """Allows by name what a `names_learner.Learner` has learned."""

    default_identity: Mapping[net.Family, int]
    """What an address has that nothing is known of."""
    resolvers: frozenset[net.Address]
    """Whose answers are held."""
    queue: int = names_queue.QUEUE

    def head(
        self, policy_set: desired.PolicySet, way: ways.Way, owners: by_name.Owners, nets: by_name.Nets
    ) -> by_name.Head:
        """Call the chain of each pod, and end where it has allowed."""
        chains: policy.Chains = {}
        rules: list[ruleset.Rule] = []
        for address, endpoint in sorted(owners.items()):
            family = net.family_of(address)
            found = names_regions.of_set(policy_set, self.default_identity[family])
            chain = f"NW-NM-{endpoint.id:08x}{way.mark}"
            chains.update(_Writer(endpoint.id, family, way, chain).chains(found, nets))
            rules.append(ruleset.Rule((way.subject_option, f"{address}/{address.max_prefixlen}", "-j", chain)))
        if rules:
            rules.append(ruleset.Rule((*MARKED, "-j", "RETURN")))
        return by_name.Head(rules=tuple(rules), chains=chains)

    def frame(self, family: net.Family, owners: by_name.Owners) -> by_name.Frame:
        """Hold the DNS packets of `owners`, wherever they pass."""
        trusted = [one for one in self.resolvers if net.family_of(one) is family]
        if not owners or not trusted:
            return by_name.Frame()
        asking, resolving = f"NW{family.value}-ASKING", f"NW{family.value}-RESOLVERS"
        contents = {
            name: ruleset.SetContent(
                kind=ruleset.SetKind.NETS, members=members.of_networks(map(net.host_network, sorted(addresses)))
            )
            for name, addresses in ((asking, list(owners)), (resolving, trusted))
        }
        call = ruleset.Rule(("-j", DNS))
        security = ruleset.Table.SECURITY
        return by_name.Frame(
            chains={security: {DNS: tuple(self._held(asking, resolving)), DNS_OUT: (call,)}},
            jumps={security: (ruleset.Jump("OUTPUT", DNS_OUT),)},
            sets=contents,
            tails={security: dict.fromkeys(BACKSTOPS, (call,))},
        )

    def _held(self, asking: str, resolving: str) -> Iterator[ruleset.Rule]:
        hold = _hold(self.queue)
        port = str(names_reader.PORT)
        for protocol in ("udp", "tcp"):
            for option, pod, resolver, direction in (
                ("--dport", "src", "dst", "ORIGINAL"),
                ("--sport", "dst", "src", "REPLY"),
            ):
                yield ruleset.Rule(
                    (
                        *("-p", protocol, "-m", protocol, option, port),
                        *policy.matching_set(asking, pod),
                        *policy.matching_set(resolving, resolver),
                        *("-m", "conntrack", "--ctdir", direction),
                        *hold,
                    ),
                    (asking, resolving),
                )


@dataclasses.dataclass(frozen=True, slots=True)
class _Writer:
    """Writes the chains of one pod, one way."""

    endpoint: int
    family: net.Family
    way: ways.Way
    chain: str

    def chains(self, found: names_regions.NameRegions, nets: by_name.Nets) -> policy.Chains:
        """Write what some addresses may, each kind in a chain of its own, then what all others may."""
        chains: policy.Chains = {}
        rules: list[ruleset.Rule] = []
        for place, (peers, by_class) in enumerate(found.others):
            name = nets(peers)
            if name:
                other = f"NW-NM-{self.endpoint:08x}-{place}{self.way.mark}"
                chains[other] = tuple(self._rules(by_class, chains))
                rules.append(ruleset.Rule((*policy.matching_set(name, self.way.peer), "-g", other), (name,)))
        chains[self.chain] = (*rules, *self._rules(found.default, chains))
        return chains

    def _rules(self, by_class: names_regions.ByClass, chains: policy.Chains) -> Iterator[ruleset.Rule]:
        for class_number, region in sorted(by_class.items()):
            pair = names_pairs.Pair(self.endpoint, class_number, self.family)
            target = self._target(region, chains)
            asked: tuple[tuple[tuple[str, ...], str], ...] = (((), pair.fresh), (BEGUN, pair.kept))
            for words in _ports(region, self.way):
                for begun, name in asked[self.way.reply :]:
                    yield ruleset.Rule((*words, *begun, *policy.matching_set(name, self.way.peer), *target))

    def _target(self, region: regions.Region, chains: policy.Chains) -> tuple[str, str]:
        """Return where a match goes; what is all but some ports has a chain that leaves these out."""
        if not region.base or not region.protocols:
            return "-g", policy.allowed_target(self.way)
        chain = f"NW-NR-{policy.digest(repr(region).encode(), 5)}{self.way.mark}"
        rules: list[ruleset.Rule] = []
        for protocol, _ in region.protocols:
            rules += [
                ruleset.Rule((*words, "-g", policy.allowed_target(self.way)))
                for words in policy.port_words(protocol, region.spans(protocol), self.way)
            ]
            rules.append(ruleset.Rule((*policy.protocol_words(protocol), "-j", "RETURN")))
        chains[chain] = (*rules, ruleset.Rule(("-g", policy.allowed_target(self.way))))
        return "-j", chain


def of_state(state: desired.DesiredState, queue: int = names_queue.QUEUE) -> Queued:
    """Return what writes the rules of a state."""
    default = {
        family: next(
            (
                number
                for network, number in state.cidrs.items()
                if not network.prefixlen and net.family_of(network) is family
            ),
            identity.WORLD,
        )
        for family in net.Family
    }
    return Queued(default_identity=default, resolvers=state.resolvers, queue=queue)


def trial(queue: int) -> tuple[text.TableChange, text.TableChange]:
    """Return what writes such a rule where no packet comes by, and what removes it, to the table security."""
    rule = text.rule_text(ruleset.Rule(("-p", "udp", *_hold(queue))), {})
    return text.TableChange(write={_TRIAL: (rule,)}), text.TableChange(remove=(_TRIAL,))


def _hold(queue: int) -> tuple[str, ...]:
    return "-j", "NFQUEUE", "--queue-num", str(queue), "--queue-bypass"


def _ports(region: regions.Region, way: ways.Way) -> Iterator[tuple[str, ...]]:
    if region.base:
        yield ()
        return
    for protocol, spans in region.protocols:
        yield from policy.port_words(protocol, spans, way)
