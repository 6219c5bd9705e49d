"""What stands behind the numbers in a rule: whose address, which policies' set. For people; pure.

The words after `#` are the state's, not the kernel's: a rule that nobody rendered has none.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterator

from agent import desired as desired_
from agent.datapath import walk, words
from agent.datapath.iptables import ruleset
from agent.model import net

SET_CHAIN = "NW-SET-"
_GOES = frozenset({"-j", "-g"})
_ENDS = frozenset({"-s", "-d"})


def rule(found: ruleset.Rule, state: desired_.DesiredState) -> str:
    """Return a rule's words, and behind `#` what they mean."""
    meant = ", ".join(_meant(found, state))
    text = " ".join(found.words)
    return f"{text}  # {meant}" if meant else text


def concerns(chain: str, found: ruleset.Rule, endpoint: desired_.Endpoint) -> bool:
    """Tell whether a rule names an endpoint's address, or stands in the chain of one of its policy sets."""
    number = set_number(chain)
    if number is not None:
        return number in walk.sets_of(endpoint)
    hosts = {str(net.host_network(address)) for address in endpoint.addresses}
    return not hosts.isdisjoint(found.words)


def set_number(chain: str) -> int | None:
    """Return the policy set whose chain this is; None: no set's."""
    digits = chain.removeprefix(SET_CHAIN).split("-", 1)[0]
    try:
        return int(digits, 16) if chain.startswith(SET_CHAIN) else None
    except ValueError:
        return None


def _meant(found: ruleset.Rule, state: desired_.DesiredState) -> Iterator[str]:
    says = words.Words(state)
    for option, word in itertools.pairwise(found.words):
        if option in _ENDS:
            yield from _owner(word, state)
        elif option in _GOES and (number := set_number(word)) is not None:
            yield says.policy_set(number)


def _owner(text: str, state: desired_.DesiredState) -> Iterator[str]:
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return
    for endpoint in state.endpoints.values():
        if network.prefixlen == network.max_prefixlen and network.network_address in endpoint.addresses:
            yield f"{endpoint.namespace}/{endpoint.pod}"
