"""`python -m tests.bench.verdicts_writer RING WAKE RATE SECONDS`: offer so many verdicts a second, evenly."""

from __future__ import annotations

import pathlib
import sys
import time

from tests.bench import verdicts_ring

SLICE_S = 0.005


def main(ring: pathlib.Path, wake: int, rate: int, seconds: float) -> None:
    """Write until the time is over; what a slow machine could not write in time is offered later, not left out."""
    writer = verdicts_ring.SharedWriter(ring, wake)
    begin = time.monotonic()
    written, total = 0, int(rate * seconds)
    while written < total:
        due = min(total, int((time.monotonic() - begin + SLICE_S) * rate)) - written
        while due > 0:
            writer.put(min(due, 4 * verdicts_ring.FLOWS))
            written += min(due, 4 * verdicts_ring.FLOWS)
            due -= 4 * verdicts_ring.FLOWS
        time.sleep(SLICE_S)


main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]))
