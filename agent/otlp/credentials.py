"""TLS to a collector by files, which may be replaced while the agent runs.

Without an authority the public ones count that gRPC brings; without a certificate the agent shows none. A file that
was named must be there. Those of the directory are used if they are: a collector which wants to see a certificate
refuses who shows none, so that a missing file is seen and widens nothing.
"""

from __future__ import annotations

import dataclasses
import pathlib
import ssl

import grpc

from agent import errors
from agent.hubble import tls
from agent.model import collector as collector_


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """Paths; None: not used."""

    authority: pathlib.Path | None
    certificate: pathlib.Path | None
    key: pathlib.Path | None


class Credentials:
    """Those of one collector."""

    def __init__(self, collector: collector_.Collector) -> None:
        """Look at nothing yet."""
        self._collector = collector
        self._seen: tls.Signature | None = None

    def changed(self) -> bool:
        """Tell whether the files are others than `load` found."""
        return self._collector.secure and self._signature() != self._seen

    def load(self) -> grpc.ChannelCredentials | None:
        """Return what to open a channel with; None for one without TLS. Raises InvalidInput."""
        if not self._collector.secure:
            return None
        self._seen = self._signature()
        files = self._files()
        contents = {name: _read(name, getattr(files, name)) for name in ("authority", "certificate", "key")}
        _prove(files, contents)
        return grpc.ssl_channel_credentials(
            root_certificates=contents["authority"],
            private_key=contents["key"],
            certificate_chain=contents["certificate"],
        )

    def _signature(self) -> tls.Signature:
        files = self._files()
        return tls.signature(path for path in (files.authority, files.certificate, files.key) if path is not None)

    def _files(self) -> Files:
        told, directory = self._collector, self._collector.certificates
        own = told.certificate is None and ((directory / "tls.crt").exists() or (directory / "tls.key").exists())
        authority = directory / "ca.crt"
        return Files(
            authority=told.authority or (authority if authority.exists() else None),
            certificate=directory / "tls.crt" if own else told.certificate,
            key=directory / "tls.key" if own else told.key,
        )


def _read(name: str, path: pathlib.Path | None) -> bytes | None:
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        remedy = f"it cannot be read: {error}"
        raise errors.InvalidInput(field=f"OTLP {name}", value=str(path), remedy=remedy) from error


def _prove(files: Files, contents: dict[str, bytes | None]) -> None:
    """Load what was read as a client would: gRPC itself says nothing of what is wrong with it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority, certificate, key = (contents[name] for name in ("authority", "certificate", "key"))
    try:
        if authority is not None:
            context.load_verify_locations(cadata=authority.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        remedy = f"give certificates of authorities, in PEM ({error})"
        raise errors.InvalidInput(field="OTLP authority", value=str(files.authority), remedy=remedy) from error
    if certificate is None or key is None:
        return
    try:
        with tls.in_memory(certificate) as chain, tls.in_memory(key) as private:
            context.load_cert_chain(chain, private, password=lambda: "")  # an encrypted key fails, and asks nobody
    except (ssl.SSLError, ValueError) as error:
        remedy = f"give a chain and its unencrypted key, in PEM ({error})"
        raise errors.InvalidInput(field="OTLP certificate", value=str(files.certificate), remedy=remedy) from error
