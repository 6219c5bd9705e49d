"""Regular expressions of clients, matched in time that neither pattern nor text can blow up.

The problem: Hubble takes regular expressions from clients, and a pod writes what they are held against; Python's engine
tries alternatives one by one, exponentially many in the worst case. The rule: RE2, whose syntax Hubble's clients write
anyway, within a bound of memory; its time is linear in the text. It is imported with the first expression, for it is
3 MiB that most agents never need.
"""

from __future__ import annotations

from collections.abc import Callable

LENGTH_MOST = 512
"""Characters of one expression."""
MEMORY_BYTES = 1 << 18
"""Of one expression, its program and what RE2 remembers of texts; one that takes more is refused."""


class ExpressionError(ValueError):
    """No expression of RE2's, or too big a one; the message says why."""


def compiled(pattern: str) -> Callable[[str], bool]:
    """Return what tells whether any part of a text matches. Raises ExpressionError."""
    import re2  # noqa: PLC0415 - see above

    if len(pattern) > LENGTH_MOST:
        raise ExpressionError(f"it has {len(pattern)} characters, and {LENGTH_MOST} are most")
    options = re2.Options()
    options.max_mem = MEMORY_BYTES
    options.log_errors = False
    try:
        expression = re2.compile(pattern, options)
    except re2.error as error:
        (why,) = error.args
        said = why.decode(errors="replace") if isinstance(why, bytes) else str(why)
        raise ExpressionError(said.partition(": ")[0]) from error  # behind it is what the client wrote
    return lambda text: expression.search(text) is not None
