"""A DNS server for TCP that cuts its answers in every way a stream allows, and a client that cuts its questions.

`WAY-NUMBER.sliced.test` has the address of that number, and says how the answer is to come. Standard library only: it
runs in pods and on nodes. As a program it serves one address and says so once it listens, when told anything.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import sys
import threading
from collections.abc import Iterator

from tests.system.names import dns, zones

ZONE = "sliced.test"
FIRST = 50_000
"""Number of the first address, beyond those of all other names."""
EVERY, PREFIX, HALVES, PAIR = "every", "prefix", "halves", "pair"
WAYS = (EVERY, PREFIX, HALVES, PAIR)
"""Every byte by itself; the length and then the message; cut in its middle; two answers in one piece."""
TTL_S = 60
PATIENCE_S = 5.0
POINTER = 0xC00C


def address(index: int) -> str:
    """Return the address of the name with that number."""
    return str(zones.ipv4(FIRST + index))


def ask(resolver: str, way: str, index: int) -> list[str]:
    """Ask for one name over a connection of its own, of a pair for the next one, too; return their addresses."""
    names = [f"{way}-{index + more}.{ZONE}" for more in range(2 if way == PAIR else 1)]
    queries = [_prefixed(dns.query(name, dns.A, number=number)) for number, name in enumerate(names)]
    with socket.create_connection((resolver, dns.PORT), PATIENCE_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in _cut(way, b"".join(queries)):
            client.sendall(piece)
        answers = [dns.read(message) for message in _messages(client, len(names))]
    return [one for answer in answers for one in answer.addresses]


def _prefixed(message: bytes) -> bytes:
    return struct.pack(">H", len(message)) + message


def _cut(way: str, stream: bytes) -> Iterator[bytes]:
    """Yield what is to be sent at a time."""
    size = {EVERY: 1, PREFIX: 2, HALVES: len(stream) // 2, PAIR: len(stream)}[way]
    if way == EVERY:
        yield from (stream[at : at + 1] for at in range(len(stream)))
        return
    yield stream[:size]
    if stream[size:]:
        yield stream[size:]


def _messages(connection: socket.socket, count: int) -> Iterator[bytes]:
    """Yield so many messages, or fewer where the other side hangs up."""
    with connection.makefile("rb") as stream:
        for _ in range(count):
            length = stream.read(2)
            if len(length) < 2:
                return
            yield stream.read(struct.unpack(">H", length)[0])


def _answered(query: bytes) -> tuple[str, bytes]:
    """Return in which way the answer to a query is to come, and the answer."""
    label = query[13 : 13 + query[12]].decode()
    way, _, number = label.partition("-")
    end = query.index(0, 12) + 5
    header = query[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0)
    record = struct.pack(">HHHIH", POINTER, dns.A, dns.IN, TTL_S, 4) + socket.inet_aton(address(int(number)))
    return way, header + query[12:end] + record


def _serve(connection: socket.socket) -> None:
    """Answer until the client hangs up; of a pair both at once."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    waiting = b""
    with connection, contextlib.suppress(OSError):
        for query in _messages(connection, sys.maxsize):
            way, answer = _answered(query)
            if way == PAIR and not waiting:
                waiting = _prefixed(answer)
                continue
            for piece in _cut(way, waiting + _prefixed(answer)):
                connection.sendall(piece)
            waiting = b""


def main() -> None:
    """Serve until standard input ends."""
    listener = socket.create_server((sys.argv[1], dns.PORT), backlog=128)

    def accept() -> None:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    for _ in sys.stdin:
        print(json.dumps({"listens": True}), flush=True)


if __name__ == "__main__":
    main()
