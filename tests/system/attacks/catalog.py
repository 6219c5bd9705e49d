"""Every attack that one pod can run alone, in the order of the table."""

from __future__ import annotations

from tests.system.attacks import aim, errors, fragments, frames, headers, pods, raw, sockets, spoofing, uring

ATTACKS: tuple[aim.Attack, ...] = (
    *sockets.ATTACKS,
    *uring.ATTACKS,
    *raw.ATTACKS,
    *frames.ATTACKS,
    *spoofing.ATTACKS,
    *fragments.ATTACKS,
    *headers.ATTACKS,
    *errors.ATTACKS,
    *pods.ATTACKS,
)
