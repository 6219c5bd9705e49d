"""Names by asking BPF programs (`bpf/names_filter.bpf.c`) from rules, with xt_bpf.

The problem: what an endpoint has learned is in a BPF map, with its expiry, ranks and all; and in iptables-legacy a rule
that names a pinned program is looked up anew by whoever writes to its table, in that one's own mount namespace: in the
table filter it would keep kube-proxy and every CNI plugin in a container from writing. The rule: the programs are asked
in mangle, where hardly anybody writes, and a mark carries the answer the few rules to filter, where the chain of the
set looks at it first. Only packets of endpoints whose set has names are asked about. Which programs there are, and how
long, is not known here.
"""

from __future__ import annotations

import dataclasses
import pathlib

from agent import desired
from agent.datapath.iptables import by_name, members, policy, ruleset, text, ways
from agent.model import net

MARK_NAMED = "0x20/0x20"
"""Set by us between mangle and filter; see `render.MARK_JUDGED`."""
MARK_CLEAR = "0x0/0x20"
PROGRAMS = ("nw_names_new", "nw_names_open", "nw_names_reply")
"""For packets of the connection's direction, before conntrack has seen both and after; and for those of the other."""

_ASK, _FROM, _OPEN, _REPLY = "NW-NAMES", "NW-NAMES-FROM", "NW-NAMES-OPEN", "NW-NAMES-R"
_ALLOWED = "NW-NAMED"
_TRIAL = "NW-PROBE-NAMES"
_NAMED = ("-j", "MARK", "--set-xmark", MARK_NAMED)
_CLEAR = ruleset.Rule(("-j", "MARK", "--set-xmark", MARK_CLEAR))


@dataclasses.dataclass(frozen=True, slots=True)
class Asked(by_name.ByName):
    """Asks programs that are pinned in one directory."""

    programs: pathlib.Path

    def head(self, policy_set: desired.PolicySet, way: ways.Way, *_: object) -> by_name.Head:  # noqa: ARG002 - the programs know
        """Look at the mark."""
        chain = _ALLOWED + way.mark
        return by_name.Head(
            rules=(ruleset.Rule(("-m", "mark", "--mark", MARK_NAMED, "-g", chain)),),
            chains={chain: (_CLEAR, ruleset.Rule(("-g", policy.allowed_target(way))))},
        )

    def frame(self, family: net.Family, owners: by_name.Owners) -> by_name.Frame:
        """Ask before filter, and mark what a name allows."""
        if not owners:
            return by_name.Frame()
        name = f"NW{family.value}-NAMED"
        new, open_, reply = (("-m", "bpf", "--object-pinned", str(self.programs / one)) for one in PROGRAMS)
        chains = {
            _ASK: (
                _CLEAR,
                ruleset.Rule(("-m", "conntrack", "--ctdir", "REPLY", "-g", _REPLY)),
                ruleset.Rule((*policy.matching_set(name, "src"), "-g", _FROM), (name,)),
            ),
            _FROM: (
                ruleset.Rule(("-m", "conntrack", "--ctstate", "ESTABLISHED", "-g", _OPEN)),
                ruleset.Rule((*new, *_NAMED)),
            ),
            _OPEN: (ruleset.Rule((*open_, *_NAMED)),),
            _REPLY: (ruleset.Rule((*policy.matching_set(name, "dst"), *reply, *_NAMED), (name,)),),
        }
        found = members.of_networks(map(net.host_network, owners))
        return by_name.Frame(
            chains={ruleset.Table.MANGLE: chains},
            jumps={ruleset.Table.MANGLE: (ruleset.Jump("FORWARD", _ASK), ruleset.Jump("INPUT", _ASK))},
            sets={name: ruleset.SetContent(kind=ruleset.SetKind.NETS, members=found)},
        )


def trial(programs: pathlib.Path) -> tuple[text.TableChange, text.TableChange]:
    """Return what writes such rules where no packet comes by, and what removes them, to the table mangle."""
    rules = tuple(
        text.rule_text(ruleset.Rule(("-m", "bpf", "--object-pinned", str(programs / one), *_NAMED)), {})
        for one in PROGRAMS
    )
    return text.TableChange(write={_TRIAL: rules}), text.TableChange(remove=(_TRIAL,))
