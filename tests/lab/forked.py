"""What a process that a nursery forked says of itself: one JSON document on standard output, then it waits."""

from __future__ import annotations

import json
import os
import pathlib
import random
import signal
import sys


def main() -> None:
    """Say it; end with status 7 after SIGTERM, as a program does that leaves by sys.exit."""
    own = pathlib.Path("/proc/self")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    said = {
        "pid": os.getpid(),
        "session": os.getsid(0),
        "arguments": sys.argv,
        "shown": (own / "cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
        "environment": dict(os.environ),
        "network": (own / "ns" / "net").readlink().name,
        "cgroup": (own / "cgroup").read_text(),
        "descriptors": sorted(int(path.name) for path in (own / "fd").iterdir()),
        "random": random.random(),
        "child_signal": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
    }
    print(json.dumps(said), flush=True)
    if "raise" in sys.argv:
        raise ValueError("as it was told to")
    while True:
        signal.pause()
