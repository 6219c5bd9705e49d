"""DNS queries that a filter of names did not admit, as verdicts (rule E17).

The kernel tells of them with DNS answers, and says which set has the filter; who is at both ends, and which policies
isolate, is looked up here in the newest state. What a pod has sent is hostile: only its question is read, bounded, and
what is no host name is shown with its odd characters escaped. No I/O; the clocks are given.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from agent import clock as clock_
from agent.datapath import base
from agent.fqdn import message
from agent.model import net, verdict
from agent.observer import enrich, history, stream


class Refusals:
    """Publishes them; for one thread."""

    def __init__(self, *, node: str, history: history.History, stream: stream.Stream, clock: clock_.Clock) -> None:
        """Name what is refused from `history`, the newest state of it."""
        self._node = node
        self._history = history
        self._stream = stream
        self._clock = clock

    def tell(self, refused: Sequence[base.Answer]) -> None:
        """Publish refusals, oldest first."""
        if refused:
            offset_ns = self._clock.unix_ns() - self._clock.boot_ns()
            past = self._history.past
            self._stream.publish([event(one, node=self._node, past=past, boot_to_unix_ns=offset_ns) for one in refused])


def event(one: base.Answer, *, node: str, past: history.Past, boot_to_unix_ns: int) -> verdict.VerdictEvent:
    """Return the verdict of one refusal."""
    generation, moment = past.newest
    asker = moment.state.endpoints.get(one.endpoint)
    server = net.normalize(one.resolver)
    addresses = asker.addresses if asker is not None else ()
    nowhere = ipaddress.ip_address(bytes(len(server.packed)))
    client = next((each for each in addresses if each.version == server.version), nowhere)
    subject = enrich.subject(one.endpoint, moment)
    policy_set = past.policy_set(one.policy_set, moment) if one.policy_set else None
    return verdict.VerdictEvent(
        time_ns=one.time_ns + boot_to_unix_ns,
        node=node,
        verdict=verdict.Verdict.AUDIT if one.outcome is base.Outcome.WOULD_REFUSE else verdict.Verdict.DROPPED,
        reason=verdict.Reason.POLICY_DENIED,
        direction=net.Direction.EGRESS,
        layer=verdict.Layer.PACKET,
        protocol=one.protocol,
        source=enrich.end(client, one.client_port, 0, subject, moment),
        destination=enrich.end(server, one.resolver_port, 0, None, moment),
        generation=generation,
        isolating=policy_set.isolating if policy_set is not None else (),
        repeats=one.repeats,
        query=_query(one, past, moment),
    )


def _query(one: base.Answer, past: history.Past, moment: history.Moment) -> verdict.Query | None:
    asked = message.asked(one.message)
    if asked is None:
        return None
    rule = past.rule(one.rule, moment) if one.rule else None
    return verdict.Query(name=asked.name, type=asked.type, admitted_by=str(rule) if rule is not None else "")
