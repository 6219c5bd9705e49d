"""A process that connects, and says what it was told and how long that took.

Commands are lines of JSON:

{"do": "connect", "address", "port", "count", "timeout_s"} -> {"errors": {name: n}, "nanoseconds": [...]}
{"do": "who"}                                              -> {"pid", "command"}
"""

from __future__ import annotations

import collections
import ctypes
import errno
import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any

from tests.system.attacks import wire

PR_SET_NAME = 15
COMMAND = "denied caller"


def connect(address: str, port: int, count: int, timeout_s: float) -> dict[str, Any]:
    """Connect `count` times; only the call itself is timed."""
    domain = socket.AF_INET if wire.version(address) == 4 else socket.AF_INET6
    errors: collections.Counter[str] = collections.Counter()
    took = []
    for _ in range(count):
        with socket.socket(domain, socket.SOCK_STREAM) as sock:
            sock.settimeout(timeout_s)
            begin = time.perf_counter_ns()
            try:
                sock.connect((address, port))
                outcome = "connected"
            except TimeoutError:
                outcome = "time-out"
            except OSError as error:
                outcome = errno.errorcode[error.errno or 0]
            took.append(time.perf_counter_ns() - begin)
        errors[outcome] += 1
    return {"errors": errors, "nanoseconds": took}


def answer(command: Mapping[str, Any]) -> dict[str, Any]:
    """Carry out one command."""
    if command["do"] == "who":
        return {"pid": os.getpid(), "command": COMMAND}
    return connect(command["address"], command["port"], command["count"], command["timeout_s"])


def main() -> None:
    """Serve standard input until it ends."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, COMMAND.encode(), 0, 0, 0)
    for line in sys.stdin:
        os.write(sys.stdout.fileno(), json.dumps(answer(json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    main()
