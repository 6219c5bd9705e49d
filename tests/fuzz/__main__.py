"""`python -m tests.fuzz [--rounds N] [--first N]`: goes on where the last one stopped, unless told where to begin."""

from __future__ import annotations

import argparse
import pathlib
import sys
import tempfile
import time

from tests.fuzz import campaign

PLACE = pathlib.Path("build/fuzz.next")
"""The number of the round to go on with; `make clean` begins anew."""
TELL_S = 10.0


def main() -> None:
    """Run a campaign and print what it did."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--rounds", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=None, help="number of the first round")
    given = parser.parse_args()
    first = given.first
    if first is None:
        first = int(PLACE.read_text()) if PLACE.exists() else 0
    told = time.monotonic()

    def tell(done: int, rate: float) -> None:
        nonlocal told
        if time.monotonic() - told < TELL_S:
            return
        told = time.monotonic()
        if given.first is None:
            PLACE.write_text(str(first + done))
        print(f"fuzz: {done:,} of {given.rounds:,}, {rate:,.0f}/s", file=sys.stderr, flush=True)

    PLACE.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        socket = pathlib.Path(directory) / "state" / "hubble.sock"
        socket.parent.mkdir(mode=0o700)
        found = campaign.run(socket, first=first, rounds=given.rounds, tell=tell)
    if given.first is None:
        PLACE.write_text(str(first + given.rounds))
    for name, count in sorted(found.rounds.items()):
        print(f"{count:>9,}  {name}")
    print(
        f"rounds {first:,} to {first + given.rounds - 1:,} in {found.seconds:.1f} s, {found.cpu_s:.1f} s of a core"
        f" ({given.rounds / found.cpu_s:,.0f} a second of it); slowest: {found.slowest_s * 1000:.0f} ms,"
        f" round {found.slowest:,}"
    )


main()
