"""A connect load: runs inside a pod until its standard input closes, then prints what it saw as JSON.

Standard library only: it is given to a bare interpreter, `python3 -I -S load.py PATIENCE_S TARGET...`, a target being
`name=address:port`. All are tried in turn, over and over, at a pace at which no server's queue overflows. An allowed
connection that takes longer than SLOW_S lost its SYN on the way, which is a wrong denial; it is given up after
PATIENCE_S, one to a target called silent sooner.

Printed is, by target, a list of [outcome, times in a row, begin of the first, end of the last], in seconds of the
monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import sys
import time

PACE_S = 0.01
SLOW_S = 0.8
GIVE_UP_S = 0.1
RESET = b"\1\0\0\0\0\0\0\0"
"""struct linger: close with a reset, so that no port stays in TIME_WAIT."""


def attempt(address: str, port: int, *, patience_s: float) -> str:
    """Connect once; `ok`, `slow`, `time-out` or the errno's name."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        each.settimeout(patience_s)
        begin = time.monotonic()
        try:
            each.connect((address, port))
        except TimeoutError:
            return "time-out"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
        return "ok" if time.monotonic() - begin < SLOW_S else "slow"


def main(patience: str, targets: list[str]) -> None:
    """Try the targets in turn until standard input ends."""
    parsed = []
    for target in targets:
        name, _, where = target.partition("=")
        address, _, number = where.rpartition(":")
        patience_s = GIVE_UP_S if name.startswith("silent") else float(patience)
        parsed.append((name, address, int(number), patience_s))
    seen: dict[str, list[tuple[str, int, float, float]]] = {name: [] for name, *_ in parsed}
    ends = selectors.DefaultSelector()
    ends.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    while not ends.select(PACE_S):
        for name, address, port, patience_s in parsed:
            begin, runs = time.monotonic(), seen[name]
            outcome = attempt(address, port, patience_s=patience_s)
            _, times, since, _ = runs.pop() if runs and runs[-1][0] == outcome else ("", 0, begin, begin)
            runs.append((outcome, times + 1, since, time.monotonic()))
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
