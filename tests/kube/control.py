"""A real etcd and kube-apiserver on loopback: own ports, own directory, TLS, RBAC and service accounts.

Nothing else of a control plane: no controller, scheduler or kubelet, so that objects are only what a test writes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import socket
import ssl
import subprocess
import time
from collections.abc import Mapping
from typing import Any, Self

ADMIN = "admin-of-the-test"
"""The token of system:masters."""
STARTS_S = 60.0
LISTENS_ON = "127.0.0.1"


class ControlPlane:
    """Started by `with`; whatever was started is ended by its process id."""

    def __init__(self, *, directory: pathlib.Path, assets: pathlib.Path) -> None:
        """Take an empty directory, and where the programs are."""
        self.directory = directory
        self._assets = assets
        self._etcd_port, self._peer_port, self.port = free_ports(3)
        self._etcd: subprocess.Popen[bytes] | None = None
        self._api: subprocess.Popen[bytes] | None = None
        self.ca = directory / "ca.crt"

    def __enter__(self) -> Self:
        """Start both."""
        self._certificates()
        (self.directory / "tokens.csv").write_text(f'{ADMIN},admin,admin,"system:masters"\n')
        self._etcd = self._spawn("etcd", self._etcd_flags())
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End both."""
        self.stop()

    def start(self) -> None:
        """Start the API server and wait until it is ready."""
        self._api = self._spawn("kube-apiserver", self._api_flags())
        deadline = time.monotonic() + STARTS_S
        while not self._ready():
            if time.monotonic() > deadline or self._api.poll() is not None:
                log = (self.directory / "kube-apiserver.log").read_text(errors="replace")
                raise RuntimeError(f"kube-apiserver does not start:\n{log[-3000:]}")
            time.sleep(0.1)

    def kill(self) -> None:
        """End the API server as a crash does."""
        if self._api is not None:
            self._api.kill()
            self._api.wait()
            self._api = None

    def stop(self) -> None:
        """End both."""
        self.kill()
        if self._etcd is not None:
            self._etcd.kill()
            self._etcd.wait()
            self._etcd = None

    def admin(self) -> Client:
        """Return a client that may do everything."""
        return Client(port=self.port, ca=self.ca, token=ADMIN)

    def kubeconfig(self, path: pathlib.Path, *, port: int | None = None, token: str = ADMIN) -> pathlib.Path:
        """Write a kubeconfig."""
        server = f"https://{LISTENS_ON}:{port or self.port}"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "x", "cluster": {"server": server, "certificate-authority": str(self.ca)}}],
            "users": [{"name": "x", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
            "current-context": "x",
        }
        path.write_text(json.dumps(content))
        return path

    def compact(self, revision: int) -> None:
        """Let etcd forget everything before a revision; the API's resourceVersion is etcd's revision."""
        connection = http.client.HTTPConnection(LISTENS_ON, self._etcd_port, timeout=10)
        with contextlib.closing(connection):
            body = json.dumps({"revision": str(revision), "physical": True})
            connection.request("POST", "/v3/kv/compaction", body)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != http.HTTPStatus.OK:
                raise RuntimeError(f"etcd does not compact: {content!r}")

    def _ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return bool(self.admin().get("/readyz", raw=True) == b"ok")
        return False

    def _spawn(self, name: str, flags: Mapping[str, object]) -> subprocess.Popen[bytes]:
        command = [str(self._assets / name), *(f"--{flag}={value}" for flag, value in flags.items())]
        with (self.directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.directory)

    def _etcd_flags(self) -> dict[str, object]:
        client, peer = f"http://{LISTENS_ON}:{self._etcd_port}", f"http://{LISTENS_ON}:{self._peer_port}"
        return {
            "data-dir": self.directory / "etcd",
            "unsafe-no-fsync": "true",
            "log-level": "warn",
            # Without it bookmarks of a resource that does not change carry no newer version (kubeadm: 5 s).
            "watch-progress-notify-interval": "1s",
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }

    def _api_flags(self) -> dict[str, object]:
        key = self.directory / "server.key"
        return {
            "etcd-servers": f"http://{LISTENS_ON}:{self._etcd_port}",
            "bind-address": LISTENS_ON,
            "advertise-address": LISTENS_ON,
            "secure-port": self.port,
            "tls-cert-file": self.directory / "server.crt",
            "tls-private-key-file": key,
            "token-auth-file": self.directory / "tokens.csv",
            "authorization-mode": "RBAC",
            "allow-privileged": "true",
            "service-cluster-ip-range": "10.96.0.0/16,fd00:10:96::/112",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": key,
            "service-account-signing-key-file": key,
            # No controller makes the accounts that this plugin wants pods to have.
            "disable-admission-plugins": "ServiceAccount",
            "shutdown-delay-duration": "0s",
            "endpoint-reconciler-type": "none",
            "enable-priority-and-fairness": "false",
        }

    def _certificates(self) -> None:
        request = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "rsa:2048", "-config", "/dev/null"]
        usage = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"]
        self._run([*request, "-subj", "/CN=ca-of-the-test", *usage, "-keyout", "ca.key", "-out", "ca.crt"])
        names = f"subjectAltName=IP:{LISTENS_ON},DNS:kubernetes.default.svc"
        usage = ["-addext", names, "-addext", "basicConstraints=critical,CA:FALSE"]
        usage += ["-addext", "extendedKeyUsage=serverAuth", "-CA", "ca.crt", "-CAkey", "ca.key"]
        self._run([*request, "-subj", "/CN=kube-apiserver", *usage, "-keyout", "server.key", "-out", "server.crt"])

    def _run(self, command: list[str]) -> None:
        ended = subprocess.run(command, cwd=self.directory, check=False, capture_output=True)
        if ended.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {ended.stderr.decode(errors='replace')}")


class Client:
    """A plain HTTP client for what tests write; not the code under test."""

    def __init__(self, *, port: int, ca: pathlib.Path, token: str) -> None:
        """Connect to nothing yet."""
        self._context = ssl.create_default_context(cafile=str(ca))
        self._port = port
        self._token = token
        self._connection: http.client.HTTPSConnection | None = None

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def status(self, method: str, path: str, body: object = None, *, content_type: str = "application/json") -> int:
        """Return the status of a request."""
        return self._send(method, path, body, content_type)[0]

    def get(self, path: str, *, raw: bool = False) -> Any:
        """Return the body of a GET: parsed, or as it came."""
        _, content = self._send("GET", path, None, "application/json")
        if raw:
            self.close()
            return content
        return json.loads(content)

    def post(self, path: str, body: object) -> Any:
        """Create; raises RuntimeError."""
        return self._checked("POST", path, body, "application/json")

    def patch(self, path: str, body: object) -> Any:
        """Merge."""
        return self._checked("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path: str) -> Any:
        """Delete at once."""
        return self._checked("DELETE", path, {"gracePeriodSeconds": 0}, "application/json")

    def _checked(self, method: str, path: str, body: object, content_type: str) -> Any:
        status, content = self._send(method, path, body, content_type)
        if status >= http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {status} {content!r}")
        return json.loads(content)

    def _send(self, method: str, path: str, body: object, content_type: str) -> tuple[int, bytes]:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": content_type}
        kept = self._connection is not None
        if self._connection is None:
            self._connection = http.client.HTTPSConnection(LISTENS_ON, self._port, timeout=30, context=self._context)
        try:
            self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self.close()
            if not kept:
                raise
        # The server was restarted since the last request.
        return self._send(method, path, body, content_type)


def free_ports(count: int) -> tuple[int, ...]:
    """Return ports that are free now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LISTENS_ON, 0))
        return tuple(one.getsockname()[1] for one in sockets)
