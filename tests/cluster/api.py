"""The API server, asked by a test itself: kubectl takes longer to start than what is measured takes to happen.

Connections are opened in the control plane's network namespace, by a thread that ends with that. Not for several
threads: each takes an Api of its own.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import pathlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

from agent.lab import kernel
from tests.cluster import fabric, settings

Document = dict[str, Any]
NETNS = pathlib.Path("/run/netns")
ANSWERS_S = 60.0
MERGE = "application/merge-patch+json"
APPLY = "application/apply-patch+yaml"
JSON = "application/json"
PLURALS = {
    "Job": "jobs",
    "Namespace": "namespaces",
    "NetworkPolicy": "networkpolicies",
    "Pod": "pods",
    "Service": "services",
    "ServiceAccount": "serviceaccounts",
}


class Refused(RuntimeError):  # noqa: N818 - reads as what it is
    """The API server said no."""

    def __init__(self, *, request: str, status: int, content: bytes) -> None:
        """Keep the status; the message has what was asked."""
        super().__init__(f"{request}: {status} {content[:500].decode(errors='replace')}")
        self.status = status


class Api:
    """One connection, as administrator; a context manager."""

    def __init__(self, shape: settings.Shape, *, address: str = settings.API_ADDRESS) -> None:
        """Take a cluster whose API server runs; nothing is opened before the first request."""
        kubeconfig = json.loads(shape.kubeconfig.read_text())
        self._headers = {"Authorization": f"Bearer {kubeconfig['users'][0]['user']['token']}"}
        context = ssl.create_default_context(cafile=str(shape.state / "pki" / "ca.crt"))
        self._connection = _Connection(NETNS / shape.netns(fabric.CONTROL), address, context)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self._connection.close()

    def get(self, path: str) -> Document:
        """Return an object, or a list of them. Raises Refused."""
        return dict(json.loads(self.send("GET", path)))

    def text(self, path: str) -> str:
        """Return what is no JSON: metrics, logs."""
        return self.send("GET", path).decode(errors="replace")

    def create(self, *documents: Mapping[str, Any]) -> None:
        """Create objects in their order; one that is there already is left as it is."""
        for document in documents:
            try:
                self.send("POST", of(document).rpartition("/")[0], document)
            except Refused as error:
                if error.status != http.HTTPStatus.CONFLICT:
                    raise

    def apply(self, document: Mapping[str, Any]) -> None:
        """Create an object, or make it what the document says, in one request."""
        self.send("PATCH", f"{of(document)}?fieldManager=test&force=true", document, APPLY)

    def merge(self, path: str, change: object) -> None:
        """Change what the change speaks of; null removes."""
        self.send("PATCH", path, change, MERGE)

    def delete(self, path: str, *, at_once: bool = False) -> None:
        """Delete an object, or everything that a list at this path holds; what is not there is deleted."""
        try:
            self.send("DELETE", path, {"gracePeriodSeconds": 0} if at_once else None)
        except Refused as error:
            if error.status != http.HTTPStatus.NOT_FOUND:
                raise

    def send(self, method: str, path: str, body: object = None, kind: str = JSON) -> bytes:
        """Send a request and return the body of the answer. Raises Refused, OSError."""
        content = None if body is None else json.dumps(body)
        headers = self._headers | ({} if content is None else {"Content-Type": kind})
        try:
            status, received = self._exchange(method, path, content, headers)
        except (OSError, http.client.HTTPException):
            # A connection that was idle may have been closed; nothing here is harmed by being asked for twice.
            self._connection.close()
            status, received = self._exchange(method, path, content, headers)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise Refused(request=f"{method} {path}", status=status, content=received)
        return received

    def _exchange(self, method: str, path: str, content: str | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self._connection.request(method, path, content, headers)
        answer = self._connection.getresponse()
        return answer.status, answer.read()


class _Connection(http.client.HTTPSConnection):
    """A connection that begins in another network namespace."""

    def __init__(self, netns: pathlib.Path, address: str, context: ssl.SSLContext) -> None:
        super().__init__(address, settings.API_PORT, timeout=ANSWERS_S, context=context)
        self._netns = netns
        self._ours = context

    def connect(self) -> None:
        """Connect there; the socket stays of that namespace, whoever uses it."""
        with concurrent.futures.ThreadPoolExecutor(max_workers=1) as pool:
            plain = pool.submit(self._inside).result()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = self._ours.wrap_socket(plain, server_hostname=self.host)

    def _inside(self) -> socket.socket:
        kernel.enter_network(self._netns)
        return socket.create_connection((self.host, self.port), ANSWERS_S)


def of(document: Mapping[str, Any]) -> str:
    """Return the path of a document's object."""
    version, metadata = document["apiVersion"], document["metadata"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    where = f"/namespaces/{metadata['namespace']}" if "namespace" in metadata else ""
    return f"{root}{where}/{PLURALS[document['kind']]}/{metadata['name']}"


def policies(where: str) -> str:
    """Return the path of a namespace's policies."""
    return f"/apis/networking.k8s.io/v1/namespaces/{where}/networkpolicies"


def pods(where: str) -> str:
    """Return the path of a namespace's pods."""
    return f"/api/v1/namespaces/{where}/pods"


def in_parallel(shape: settings.Shape, jobs: Iterable[Callable[[Api], None]], *, connections: int = 4) -> None:
    """Do many things on a few connections; raises what the first of them raised."""
    waiting = iter(jobs)
    lock = threading.Lock()

    def work() -> None:
        with Api(shape) as each, contextlib.suppress(StopIteration):
            while True:
                with lock:
                    job = next(waiting)
                job(each)

    with concurrent.futures.ThreadPoolExecutor(connections) as pool:
        for ended in [pool.submit(work) for _ in range(connections)]:
            ended.result()
