"""An HTTP server on loopback that answers as a test says; it knows nothing of the API."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib import parse

from agent.sources.kubernetes import access


class Request(http.server.BaseHTTPRequestHandler):
    """One connection; `answer` writes to it."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Note the request and let the test answer it."""
        self.server.noted(self)
        try:
            self.server.answer(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet."""

    @property
    def query(self) -> dict[str, str]:
        return dict(parse.parse_qsl(parse.urlsplit(self.path).query))

    def say(self, content: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer at once."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def begin(self) -> None:
        """Begin an answer in chunks."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, content: bytes) -> None:
        """Send one; an empty one is the end."""
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()


class Server(http.server.ThreadingHTTPServer):
    """Runs while it is a context."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, answer: Callable[[Request], None]) -> None:
        """Take who answers; it may be replaced at any time."""
        super().__init__(("127.0.0.1", 0), Request)
        self.answer = answer
        self.requests: list[tuple[str, dict[str, str]]] = []
        """Paths with query, and headers."""
        self.clients: set[tuple[str, int]] = set()
        self.released = threading.Event()
        """Set at the end; answers that hang wait for it."""

    def __enter__(self) -> Self:
        """Serve."""
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.released.set()
        self.shutdown()
        self.server_close()

    def noted(self, request: Request) -> None:
        self.requests.append((request.path, {name.lower(): value for name, value in request.headers.items()}))
        self.clients.add(request.client_address)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Plain(access.Access):
    """Access without TLS to a server of a test, with a token that can be replaced."""

    def __init__(self, url: str) -> None:
        """Take the address."""
        self._modules = access._lean()
        self.url = url
        self.token = "first"
        self.read = 0
        """How often the credentials were read."""

    def configuration(self) -> Any:
        """Return a configuration of the client."""
        made = self._modules.configuration.Configuration(host=self.url)
        made.api_key["BearerToken"] = f"bearer {self.token}"
        made.retries = False
        self.read += 1
        return made
