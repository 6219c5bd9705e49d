"""A certificate authority for a test; openssl makes the certificates."""

from __future__ import annotations

import pathlib
import subprocess

from agent.hubble import tls

REQUEST = (
    "openssl",
    "req",
    "-x509",
    "-nodes",
    "-days",
    "2",
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
)
SERVER_NAME = "n1.default.hubble-grpc.cilium.io"


class Authority:
    """Signs what it is asked to, into a directory."""

    def __init__(self, directory: pathlib.Path) -> None:
        """Make the authority's own certificate."""
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate, self._key = directory / "ca.crt", directory / "ca.key"
        usage = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        _openssl(*usage, "-subj", f"/CN={directory.name}", "-keyout", str(self._key), "-out", str(self.certificate))

    def sign(
        self, directory: pathlib.Path, *, name: str = SERVER_NAME, authority: pathlib.Path | None = None
    ) -> tls.Files:
        """Write a certificate and key for `name`, for both ends of a connection."""
        directory.mkdir(parents=True, exist_ok=True)
        certificate, key = directory / "tls.crt", directory / "tls.key"
        _openssl(
            *("-CA", str(self.certificate), "-CAkey", str(self._key), "-subj", f"/CN={name}"),
            *("-addext", f"subjectAltName=DNS:{name},IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth", "-keyout", str(key), "-out", str(certificate)),
        )
        return tls.Files(certificate=certificate, key=key, client_authority=authority or self.certificate)


def _openssl(*words: str) -> None:
    subprocess.run([*REQUEST, "-config", "/dev/null", *words], check=True, capture_output=True)
