"""Whether what a collector did not take is sent again, as the OTLP specification says; pure.

What is refused for good is dropped: sent again it would be refused again, and hold up all that comes after it. An
exhausted collector is asked again only if it says when.
"""

from __future__ import annotations

AGAIN = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"},
)
"""Codes of gRPC after which the same is sent again."""
IF_SAID_WHEN = "RESOURCE_EXHAUSTED"


def again(code: str, asked_s: float | None) -> bool:
    """Tell whether to send again after status `code`; `asked_s`: the server's RetryInfo, None without one."""
    return code in AGAIN or (code == IF_SAID_WHEN and asked_s is not None)
