"""What the evaluator says of every pair, beside what really connecting says.

A pair that disagrees is tried once more with a longer time-out before it is called a disagreement: a busy machine may
lose a packet, and only a wrong verdict comes back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from agent import errors
from agent.lab import exchange, lab
from agent.policy import reachability

SECOND_TRY = 2.5
"""The second time-out is this many times the first."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One pair, port and family."""

    expected: reachability.Reach
    measured: exchange.ProbeResult

    @property
    def agrees(self) -> bool:
        """Whether the evaluator and the connection say the same."""
        return self.expected.decision.allowed == self.measured.allowed


def compare(
    running: lab.Lab,
    *,
    ports: Collection[reachability.Port] = (),
    timeout_s: float = lab.DEFAULT_TIMEOUT_S,
) -> list[Row]:
    """Probe every pair of a lab on `ports` (all that are declared, if empty); InvalidInput for one nobody declares."""
    picture = running.plan.snapshot
    declared = reachability.declared(picture)
    for number, protocol in ports:
        if (number, protocol) not in declared:
            remedy = f"name a port that some pod declares: {', '.join(f'{n}/{p.name}' for n, p in declared)}"
            raise errors.InvalidInput(field="port", value=f"{number}/{protocol.name}", remedy=remedy)
    expected = list(reachability.reach(picture, ports or declared, running.audits()))
    measured = running.probe([_request(one) for one in expected], timeout_s)
    rows = [Row(expected=one, measured=result) for one, result in zip(expected, measured, strict=True)]
    doubtful = [index for index, row in enumerate(rows) if not row.agrees]
    again = running.probe([_request(expected[index]) for index in doubtful], timeout_s * SECOND_TRY)
    for index, result in zip(doubtful, again, strict=True):
        rows[index] = Row(expected=expected[index], measured=result)
    return rows


def disagreements(rows: Sequence[Row]) -> list[Row]:
    """Return the rows where the evaluator and the connection differ."""
    return [row for row in rows if not row.agrees]


def _request(one: reachability.Reach) -> exchange.ProbeRequest:
    number, protocol = one.port
    return exchange.ProbeRequest(
        source=one.source, destination=one.destination, port=number, protocol=protocol, family=one.family
    )
