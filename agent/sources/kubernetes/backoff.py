"""How long to wait before a failed request is repeated. Pure.

Thousands of agents lose one API server at the same instant, and it comes back with little to spare: each waits longer
after each failure, by a random share, so that they come back spread out, and no agent ever asks faster than this.
"""

from __future__ import annotations

FIRST_S = 0.2
MOST_S = 30.0
SPREAD = 0.5
"""A delay is up to this share shorter or longer."""
STEADY_S = 5.0
"""A watch that held for so long was no failure, whatever ended it: the next delay is the first again."""
ASKED_MOST_S = 120.0
"""The longest Retry-After that is honoured."""
ABSENT_S = 40.0
"""How often it is asked whether a resource has come that the server did not serve; found within a minute."""
ABSENT_SPREAD = 0.25


def delay_s(failures: int, *, chance: float, asked_s: float = 0.0) -> float:
    """Return the seconds to wait after `failures` (1 or more) failures in a row.

    `chance`, in 0..1, spreads the delay; `asked_s` is what the server asked for by Retry-After, 0 for nothing.
    """
    delay = min(MOST_S, FIRST_S * 2.0 ** min(failures - 1, 16)) * (1 - SPREAD + 2 * SPREAD * chance)
    # Spread upwards only: earlier than asked for would be refused again.
    return max(delay, min(asked_s, ASKED_MOST_S) * (1 + SPREAD * chance) if asked_s > 0 else 0.0)


def absent_s(*, chance: float) -> float:
    """Return the seconds to wait until it is asked again for a resource that is not served; `chance` as above."""
    return ABSENT_S * (1 - ABSENT_SPREAD + 2 * ABSENT_SPREAD * chance)
