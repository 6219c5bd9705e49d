"""Mutual TLS for collectors on other machines, with certificates that are replaced while connections last.

Whoever holds a certificate of the client authority reads which pods talk to whom, so there is no TCP without it. The
three files are looked at before each handshake, and taken if they changed and still fit together; else the last good
ones stay and the misfit is told once, as files are seldom replaced all at one instant. Connections that are open keep
what they began with.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import grpc

from agent import errors

Signature: TypeAlias = tuple[tuple[int, int, int, int], ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """PEM files, each a certificate chain, a private key, or authorities."""

    certificate: pathlib.Path
    key: pathlib.Path
    client_authority: pathlib.Path
    """Clients need a certificate that one of these signed."""

    @property
    def paths(self) -> tuple[pathlib.Path, ...]:
        """All of them."""
        return self.certificate, self.key, self.client_authority


def files_in(directory: pathlib.Path) -> Files:
    """Return the files of a directory that a Secret of type kubernetes.io/tls is mounted at."""
    return Files(certificate=directory / "tls.crt", key=directory / "tls.key", client_authority=directory / "ca.crt")


@dataclasses.dataclass(frozen=True, slots=True)
class Material:
    """What the files held at one moment, proved to fit together."""

    certificate: bytes
    key: bytes
    client_authority: bytes


class Certificates:
    """The files' content, read again when it changes; used by the threads gRPC makes handshakes in."""

    def __init__(self, files: Files, *, tell: Callable[[str], None]) -> None:
        """Read them; raises InvalidInput where they cannot be used. `tell` gets what is wrong with later ones."""
        self._files = files
        self._tell = tell
        self._lock = threading.Lock()
        self._seen = signature(files.paths)
        self._material = read(files)

    def credentials(self) -> grpc.ServerCredentials:
        """Return what a server secures a port with."""
        return grpc.dynamic_ssl_server_credentials(
            _configuration(self._material), self._fetch, require_client_authentication=True
        )

    def _fetch(self) -> grpc.ServerCertificateConfiguration:
        """Return what the next handshake is made with."""
        with self._lock:
            try:
                if (now := signature(self._files.paths)) != self._seen:
                    self._seen = now
                    self._material = read(self._files)
            except errors.InvalidInput as error:
                self._tell(f"{error}; the ones before stay in use")
            return _configuration(self._material)


def read(files: Files) -> Material:
    """Return what the files hold; raises InvalidInput where one cannot be read, or they do not fit together."""
    contents: dict[str, bytes] = {}
    for field in dataclasses.fields(files):
        path: pathlib.Path = getattr(files, field.name)
        try:
            contents[field.name] = path.read_bytes()
        except OSError as error:
            raise errors.InvalidInput(
                field=field.name, value=str(path), remedy=f"it cannot be read: {error}"
            ) from error
    material = Material(**contents)
    _prove(files, material)
    return material


def _prove(files: Files, material: Material) -> None:
    """Load what was read as a server would; from memory, as the files may be others by now."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        with in_memory(material.certificate) as certificate, in_memory(material.key) as key:
            context.load_cert_chain(certificate, key, password=lambda: "")  # an encrypted key fails, and asks nobody
    except (ssl.SSLError, ValueError) as error:
        remedy = f"give a chain and its unencrypted key, in PEM ({error})"
        raise errors.InvalidInput(field="certificate", value=str(files.certificate), remedy=remedy) from error
    try:
        context.load_verify_locations(cadata=material.client_authority.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        remedy = f"give certificates of authorities, in PEM ({error})"
        raise errors.InvalidInput(field="client_authority", value=str(files.client_authority), remedy=remedy) from error


@contextlib.contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """Give a path under which `content` can be read, inside the context; nothing is written to a disk."""
    file = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        os.write(file, content)
        yield f"/proc/self/fd/{file}"
    finally:
        os.close(file)


def signature(paths: Iterable[pathlib.Path]) -> Signature:
    """Return what changes when a file is written or replaced, a link on the way to it included; 0 where none is."""
    found: list[tuple[int, int, int, int]] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found.append((0, 0, 0, 0))
        else:
            found.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key, material.certificate)], root_certificates=material.client_authority
    )
