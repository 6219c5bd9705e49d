"""The attacker: reads commands as lines of JSON, answers each with one line.

    {"do": "attacks"}                                  -> {"attacks": [{"name", "families"}...]}
    {"do": "resolve", "addresses": [...]}              -> {}
    {"do": "attack", "name", "aim"}                    -> {"outcome": "sent" | "EACCES" | ...}
    {"do": "prepare", "aim"}, {"do": "use", "name", "aim"}
    {"do": "lend", "path", "aim", "kind"}              open a socket here and hand it to who listens at `path`
    {"do": "borrow", "path", "aim"}                    take a socket handed over at `path` and send by it
    {"do": "half", "aim", "first", "source"}           one half of a fragmented datagram

Run inside the pod, as `python -m tests.system.attacks.sender`.
"""

from __future__ import annotations

import array
import errno
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.system.attacks import aim as aim_
from tests.system.attacks import catalog, fragments, link, prepared, sockets

Command = Mapping[str, Any]
Answer = dict[str, object]


def outcome_of(action: Callable[[], None]) -> str:
    """Run an attempt and name what the sender saw of it."""
    try:
        action()
    except TimeoutError:
        return "time-out"
    except subprocess.CalledProcessError as error:
        return f"{error.cmd}: {error.stderr!r}"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return "sent"


class Sender:
    """Keeps sockets between commands."""

    def __init__(self) -> None:
        """Start with nothing prepared."""
        self._prepared: dict[str, prepared.Prepared] = {}
        self._attacks = {attack.name: attack for attack in catalog.ATTACKS}

    def answer(self, command: Command) -> Answer:
        """Carry out one command."""
        aim = aim_.decode(command["aim"]) if "aim" in command else None
        match command["do"], aim:
            case "attacks", None:
                known = [
                    {"name": a.name, "families": sorted(a.families), "neighbours": a.neighbours}
                    for a in self._attacks.values()
                ]
                return {"attacks": known}
            case "resolve", None:
                for address in command["addresses"]:
                    link.next_hop_mac(address)
                return {}
            case "attack", aim_.Aim():
                attack = self._attacks[command["name"]]
                return {"outcome": outcome_of(lambda: attack.run(aim))}
            case "half", aim_.Aim():
                action = lambda: fragments.half(aim, first=command["first"], source=command["source"])  # noqa: E731
                return {"outcome": outcome_of(action)}
            case _, aim_.Aim():
                return self._with_sockets(command, aim)
            case _:
                raise ValueError(f"unknown command: {command!r}")

    def _with_sockets(self, command: Command, aim: aim_.Aim) -> Answer:
        match command["do"]:
            case "prepare":
                self._prepared[aim.victim] = prepared.Prepared(aim)
                return {"names": list(self._prepared[aim.victim].names)}
            case "use":
                return {"outcome": outcome_of(lambda: self._prepared[aim.victim].use(command["name"], aim))}
            case "lend":
                return {"outcome": outcome_of(lambda: lend(command["path"], aim, command["kind"]))}
            case "borrow":
                return {"outcome": outcome_of(lambda: borrow(command["path"], aim))}
            case other:
                raise ValueError(f"unknown command: {other!r}")


def lend(path: str, aim: aim_.Aim, kind: str) -> None:
    """Open a socket in this pod and hand it over."""
    sort = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_UNIX) as carrier, sockets.opened(aim, sort) as sock:
        carrier.settimeout(sockets.PATIENCE_S * 8)
        _call(carrier, path)
        socket.send_fds(carrier, [kind.encode()], [sock.fileno()])
        carrier.recv(1)


def _call(carrier: socket.socket, path: str) -> None:
    """Connect as soon as somebody listens."""
    end = time.monotonic() + sockets.PATIENCE_S * 8
    while carrier.connect_ex(path):
        if time.monotonic() > end:
            raise TimeoutError(f"nobody listens at {path}")
        time.sleep(0.005)


def borrow(path: str, aim: aim_.Aim) -> None:
    """Take a socket from another pod and send by it."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(sockets.PATIENCE_S * 8)
        listener.bind(path)
        listener.listen(1)
        carrier, _ = listener.accept()
        with carrier:
            kind, ancillary, *_ = carrier.recvmsg(16, socket.CMSG_SPACE(4))
            descriptors = array.array("i", ancillary[0][2])
            with socket.socket(fileno=descriptors[0]) as sock:
                _use_borrowed(sock, kind.decode(), aim)
            pathlib.Path(path).unlink()


def _use_borrowed(sock: socket.socket, kind: str, aim: aim_.Aim) -> None:
    sock.settimeout(sockets.PATIENCE_S)
    if kind == "sendto":
        sock.sendto(aim.payload, (aim.victim, aim.port))
        return
    sock.connect((aim.victim, aim.port))
    sock.send(aim.payload)


def main() -> None:
    """Serve standard input until it ends."""
    sender = Sender()
    for line in sys.stdin:
        answer = sender.answer(json.loads(line))
        os.write(sys.stdout.fileno(), json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
