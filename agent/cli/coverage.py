"""How much a recording can tell, in words: whatever is made of flows is worth no more than they are."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from agent.cli import output
from agent.flows import talks

SECOND_NS = 1_000_000_000


def lines(told: talks.Coverage) -> Iterator[str]:
    """Yield what was seen, where and when, and what is known to be missing; escaped."""
    if not told.records:
        yield "coverage: no verdict at all"
    else:
        nodes = ", ".join(map(output.escape, told.nodes))
        took = (told.last_ns - told.first_ns) // SECOND_NS
        yield (
            f"coverage: {count(told.records, 'verdict')} of {count(len(told.nodes), 'node')} ({nodes}), "
            f"{moment(told.first_ns)} to {moment(told.last_ns)} ({dt.timedelta(seconds=took)})"
        )
    for number, what in (
        (told.kept_back, "of them are a number that the next of their kind tells: pods of one identity count together"),
        (told.lost, "verdicts were lost, and with them maybe flows of which nothing is known here"),
        (told.malformed, "lines could not be read"),
        (told.others, "lines hold no verdict of a policy"),
        (told.replies, "were replies, which no policy judges"),
        (told.not_by_policy, "were dropped for other reasons than a policy's"),
    ):
        if number:
            yield f"  {number} {what}"


def document(told: talks.Coverage) -> dict[str, object]:
    """Return the same as JSON says it."""
    return {
        "verdicts": told.records,
        "kept_back": told.kept_back,
        "nodes": list(told.nodes),
        "first_seen": moment(told.first_ns) if told.records else None,
        "last_seen": moment(told.last_ns) if told.records else None,
        "lost": told.lost,
        "malformed_lines": told.malformed,
        "other_lines": told.others,
        "replies": told.replies,
        "not_by_policy": told.not_by_policy,
    }


def moment(time_ns: int) -> str:
    """Return a moment (nanoseconds since 1970) in UTC, to the second."""
    return dt.datetime.fromtimestamp(time_ns // SECOND_NS, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def count(number: int, what: str) -> str:
    """Return a number and its noun, in the plural where it needs one."""
    return f"{number} {what}{'' if number == 1 else 's'}"
