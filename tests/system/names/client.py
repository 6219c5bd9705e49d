"""What an application in a pod does with names: resolves, connects at once, holds connections, sends datagrams.

Runs in a pod and obeys one JSON line at a time (`tests.support.traffic`). It judges nothing: it says what it saw.
"""

from __future__ import annotations

import collections
import dataclasses
import errno
import itertools
import json
import random
import socket
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.support import load
from tests.system.names import dns, forging, slicing, zones

CONNECT_S = 0.9
"""Shorter than until TCP sends a lost SYN again: a packet that was dropped is not made up for."""
GREETING_S = 10.0
ECHO_S = 1.5
REFUSED = "refused"
"""By one's own side; every server that tests go to is there."""
TOLD = 5
"""Of the failures of many connections, so many are named."""


def reach(address: str, port: int) -> str:
    """Connect, wait until the server has taken it, and reset it; `ok`, `refused`, `time-out` or an errno's name.

    Without the wait a server that others keep from running finds its queue full, and drops what policy lets pass.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, load.RESET)
        one.settimeout(CONNECT_S)
        try:
            one.connect((address, port))
            one.settimeout(GREETING_S)
            one.recv(1)
        except TimeoutError:
            return "time-out"
        except OSError as error:
            return _named(error)
    return "ok"


def _named(error: OSError) -> str:
    """Name what went wrong; the sockets' refusal is EACCES, before Linux 5.18 EPERM, that of iptables a reset."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.ECONNREFUSED):
        return REFUSED
    return errno.errorcode.get(error.errno or 0, str(error))


class Application:
    """Keeps what is open between commands."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._open: dict[str, socket.socket] = {}

    def ask(self, resolver: str, name: str, type: int = dns.A, **how: Any) -> dict[str, Any]:  # noqa: A002 - DNS's word
        """Resolve a name; `failed` is the errno's name where there was no answer."""
        try:
            answer = dns.ask(resolver, name, type, dns.Asking(**how))
        except TimeoutError:
            return {"failed": "time-out"}
        except OSError as error:
            return {"failed": _named(error)}
        return {"failed": "", **dataclasses.asdict(answer)}

    def connect(self, address: str, port: int) -> dict[str, Any]:
        """Connect by TCP and hang up."""
        begin = dns.now_ns()
        outcome = reach(address, port)
        return {"outcome": outcome, "began_ns": begin, "took_ns": dns.now_ns() - begin}

    def connect_until_refused(self, address: str, port: int, longest_s: float) -> dict[str, Any]:
        """Connect over and over until that is refused; return when the last success and the first refusal began."""
        last_ns, times = 0, 0
        while (now := self.connect(address, port))["outcome"] == "ok":
            last_ns, times = now["began_ns"], times + 1
            if times > longest_s * 1e5 or now["began_ns"] > last_ns + longest_s * 1e9:
                break
            time.sleep(0.0005)
        return {"last_ns": last_ns, "times": times, **now}

    def fresh(
        self, resolver: str, first: int, count: int, port: int, rest_s: float = 0.0, **how: Any
    ) -> dict[str, Any]:
        """Resolve so many names of an address of its own, and connect to each at once; then rest."""
        outcomes: collections.Counter[str] = collections.Counter()
        failed = []
        begin = time.monotonic()
        for index in range(first, first + count):
            answer = dns.ask(resolver, zones.fresh(index), dns.A, dns.Asking(**how))
            (address,) = answer.addresses
            outcome = reach(address, port)
            outcomes[outcome] += 1
            if outcome != "ok":
                failed.append(f"{address}: {outcome}")
            time.sleep(rest_s)
        return {"outcomes": outcomes, "failed": failed[:TOLD], "seconds": time.monotonic() - begin}

    def sliced(self, resolver: str, first: int, count: int, port: int) -> dict[str, Any]:
        """Resolve so many names over TCP in pieces, each in another way, and connect to what they have at once."""
        outcomes: collections.Counter[str] = collections.Counter()
        failed = []
        ways = itertools.cycle(slicing.WAYS)
        for index in range(first, first + 2 * count, 2):
            way = next(ways)
            for address in slicing.ask(resolver, way, index):
                outcome = reach(address, port)
                outcomes[f"{way} {outcome}"] += 1
                if outcome != "ok":
                    failed.append(f"{way}: {address}: {outcome}")
        return {"outcomes": outcomes, "failed": failed[:TOLD]}

    def browse(self, resolver: str, port: int, seconds: float, per_second: int, seed: int) -> dict[str, Any]:
        """Ask for names that change, connect at once, and once more to an address whose TTL has not ended."""
        chance = random.Random(seed)
        names = [name for several in zones.cdn_names().values() for name in several]
        outcomes: collections.Counter[str] = collections.Counter()
        known: list[tuple[int, str]] = []
        begin, turns = time.monotonic(), 0
        while (late := time.monotonic() - begin) < seconds:
            time.sleep(max(0.0, turns / per_second - late))
            turns += 1
            answer = dns.ask(resolver, chance.choice(names))
            if not answer.addresses:
                outcomes["no address"] += 1
                continue
            outcomes[reach(chance.choice(answer.addresses), port)] += 1
            # from when the query was sent on: the kernel counts from when it saw the answer, later
            known += [(answer.sent_ns + answer.ttl_s * 1_000_000_000, each) for each in answer.addresses]
            known = [one for one in known if one[0] > dns.now_ns() + 50_000_000]
            if known:
                outcomes[f"again {reach(chance.choice(known)[1], port)}"] += 1
        return {"outcomes": outcomes, "turns": turns, "seconds": time.monotonic() - begin}

    def open(self, key: str, address: str, port: int, kind: str) -> dict[str, Any]:
        """Open a connection, or a socket for datagrams to that address that is not connected."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        one = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
        one.settimeout(ECHO_S)
        self._open[key] = one
        if kind == "tcp":
            one.connect((address, port))
            one.recv(4096)
        return {}

    def talk(self, key: str, address: str, port: int, kind: str) -> dict[str, Any]:
        """Send something over what is open and wait for its echo."""
        one = self._open[key]
        word = random.randbytes(8)
        try:
            if kind == "tcp":
                one.sendall(word)
            else:
                one.sendto(word, (address, port))
            while word not in one.recv(4096):
                pass
        except TimeoutError:
            return {"outcome": "time-out"}
        except OSError as error:
            return {"outcome": _named(error)}
        return {"outcome": "ok"}

    def forge(self, way: str, **given: Any) -> dict[str, Any]:
        """Ask what nobody answers, forge an answer, and say whether it came."""
        return {"came": forging.WAYS[way](forging.Forgery(**given))}

    def wait_for(self, resolver: str, name: str, port: int, number: int) -> dict[str, Any]:
        """Ask from that port with that number, and keep the socket open for `received`."""
        family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
        one = self._open["question"] = socket.socket(family, socket.SOCK_DGRAM)
        one.settimeout(ECHO_S)
        one.bind(("", port))
        one.sendto(dns.query(name, dns.A, number=number), (resolver, dns.PORT))
        return {}

    def received(self) -> dict[str, Any]:
        """Say which addresses came to the socket of `wait_for` so far; close it."""
        found: list[str] = []
        with self._open.pop("question") as one:
            one.settimeout(0.1)
            while True:
                try:
                    found += dns.read(one.recv(4096)).addresses
                except TimeoutError:
                    return {"addresses": found}

    def send(self, resolver: str, message: str) -> dict[str, Any]:
        """Send a datagram, in hexadecimal; `reply` is what came back, or `time-out`."""
        with socket.socket(socket.AF_INET6 if ":" in resolver else socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.settimeout(ECHO_S)
            one.sendto(bytes.fromhex(message), (resolver, dns.PORT))
            try:
                return {"reply": one.recv(4096).hex()}
            except TimeoutError:
                return {"reply": "time-out"}

    def hang_up(self) -> dict[str, Any]:
        """Close what is open."""
        for one in self._open.values():
            one.close()
        self._open.clear()
        return {}


def main() -> None:
    """Obey until standard input ends."""
    application = Application()
    for line in sys.stdin:
        command = json.loads(line)
        action: Callable[..., dict[str, Any]] = getattr(application, command.pop("do"))
        print(json.dumps(action(**command)), flush=True)
    application.hang_up()


if __name__ == "__main__":
    main()
