"""A TCP proxy on loopback that a test can make slow, silent or absent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self

from tests.kube import control

_BYTES = 65536


class Proxy:
    """Passes connections on to one port; everything it does is set by attributes, at any time."""

    def __init__(self, *, target: int) -> None:
        """Take the port to pass on to; a port of its own is open at once."""
        self._target = target
        self._flows: list[socket.socket] = []
        self._lock = threading.Lock()
        self._open = True
        self._passing = threading.Event()
        self._passing.set()
        self.answering = True
        """False: connections are closed as soon as they are accepted."""
        self.trickle_bytes = 0
        """More than 0: answers come in pieces of that size, ten a second."""
        self.accepted = 0
        """Connections so far."""
        self._listener = socket.create_server((control.LISTENS_ON, 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> Self:
        """Accept connections."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close every connection."""
        self._open = False
        self._passing.set()
        with contextlib.suppress(OSError):
            # Wakes the thread that accepts.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def silence(self) -> None:
        """Pass nothing on any more; connections stay open."""
        self._passing.clear()

    def speak(self) -> None:
        """Pass on again, with what was held."""
        self._passing.set()

    def cut(self) -> None:
        """Close every connection."""
        with self._lock:
            flows, self._flows = self._flows, []
        for flow in flows:
            with contextlib.suppress(OSError):
                flow.shutdown(socket.SHUT_RDWR)
            flow.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while self._open:
                client, _ = self._listener.accept()
                self.accepted += 1
                if self.answering:
                    self._connect(client)
                else:
                    client.close()

    def _connect(self, client: socket.socket) -> None:
        try:
            server = socket.create_connection((control.LISTENS_ON, self._target), timeout=5)
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for one in (client, server):
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._flows += [client, server]
            ended = not self._open
        if ended:
            self.cut()
            return
        for source, sink, answers in ((client, server, False), (server, client, True)):
            threading.Thread(target=self._pass, args=(source, sink, answers), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:  # noqa: FBT001 - a thread's
        with contextlib.suppress(OSError):
            while True:
                slow = answers and self.trickle_bytes
                content = source.recv(self.trickle_bytes if slow else _BYTES)
                self._passing.wait()
                if slow:
                    time.sleep(0.1)
                if not content:
                    break
                sink.sendall(content)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
