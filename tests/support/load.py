"""A connect load: runs inside a pod until its standard input closes, then prints what it saw as JSON.

Standard library only: it is given to a bare interpreter, `python3 -I -S load.py TARGET...`, a target being
`name=address:port`. Each target is tried over and over. An allowed connection that takes longer than SLOW_S lost its
SYN on the way, which is a wrong denial; a denied one is given up after PATIENCE_S.
"""

from __future__ import annotations

import errno
import json
import selectors
import socket
import sys
import time
from collections import Counter

SLOW_S = 0.8
PATIENCE_S = 3.0
GIVE_UP_S = 0.1
RESET = b"\1\0\0\0\0\0\0\0"
"""struct linger: close with a reset, so that no port stays in TIME_WAIT."""


def attempt(address: str, port: int, *, patience_s: float) -> str:
    """Connect once; `ok`, `slow`, `timeout` or the errno's name."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as each:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        each.settimeout(patience_s)
        begin = time.monotonic()
        try:
            each.connect((address, port))
        except TimeoutError:
            return "timeout"
        except OSError as error:
            return errno.errorcode.get(error.errno or 0, str(error))
        return "ok" if time.monotonic() - begin < SLOW_S else "slow"


def main(targets: list[str]) -> None:
    """Try the targets in turn until standard input ends."""
    parsed = []
    for target in targets:
        name, _, where = target.partition("=")
        address, _, number = where.rpartition(":")
        parsed.append((name, address, int(number)))
    seen: dict[str, Counter[str]] = {name: Counter() for name, _, _ in parsed}
    ends = selectors.DefaultSelector()
    ends.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    while not ends.select(0):
        for name, address, port in parsed:
            patience_s = GIVE_UP_S if name.startswith("silent") else PATIENCE_S
            seen[name][attempt(address, port, patience_s=patience_s)] += 1
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
