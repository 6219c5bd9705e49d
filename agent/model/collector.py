"""Where flow logs are sent, as people say it: a flag, or the variables that OpenTelemetry's exporters read.

A flag goes before OTEL_EXPORTER_OTLP_LOGS_*, which goes before OTEL_EXPORTER_OTLP_*. What goes over the wire says who
talks to whom, so it is encrypted unless `http://` or OTEL_EXPORTER_OTLP_INSECURE says otherwise. Headers hold tokens:
they come from the environment alone, and no message shows them. Nothing here may open a file or resolve a name.
"""

from __future__ import annotations

import dataclasses
import enum
import ipaddress
import pathlib
import re
import urllib.parse
from collections.abc import Mapping

from agent import errors
from agent.model import net

FLAG = "--otlp-endpoint"
NOWHERE = "none"
PORT = 4317
"""Of OTLP over gRPC."""
TIMEOUT_MS = 10_000
TIMEOUT_MS_MOST = 600_000
SERVICE_NAME = "nodewall-agent"
HOST = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?:\.(?!-)[A-Za-z0-9-]{1,63})*\.?")
HEADER = re.compile(r"[a-z0-9_.-]{1,256}")
"""A name of gRPC metadata; those of gRPC itself, and binary ones, are refused besides."""
FORM = "write HOST:PORT or https://HOST:PORT, http://HOST:PORT for no TLS"
PREFIX = "OTEL_EXPORTER_OTLP_"


class Flows(enum.Enum):
    """Which verdicts are sent."""

    DENIED = "denied"
    """DROPPED, ERROR, and AUDIT: what would be denied."""
    ALL = "all"


class Compression(enum.Enum):
    """How requests are packed."""

    NONE = "none"
    GZIP = "gzip"


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """A text, and the flag or variable that it is the value of."""

    by: str
    value: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """One collector, and how to send to it."""

    said_by: str
    """The flag or the variable that named it."""
    host: str
    """A name, or an address without brackets."""
    port: int
    secure: bool
    flows: Flows
    certificates: pathlib.Path
    """Holds ca.crt, tls.crt and tls.key, each only if there; files that are named go before it."""
    authority: pathlib.Path | None
    certificate: pathlib.Path | None
    key: pathlib.Path | None
    headers: Mapping[str, str] = dataclasses.field(repr=False)
    compression: Compression
    timeout_ms: int
    resource: Mapping[str, str]
    """Attributes that say whose logs these are, besides the agent's own."""

    @property
    def target(self) -> str:
        """HOST:PORT, or [ADDRESS]:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """With the scheme, for people."""
        return f"{'https' if self.secure else 'http'}://{self.target}"


def collector(
    endpoint: str, *, flows: Flows, certificates: pathlib.Path, environment: Mapping[str, str]
) -> Collector | None:
    """Return the collector that the flag `endpoint`, else `environment` names; None for `none`, or where neither does.

    Raises InvalidInput, also for a variable that is not understood; without a collector no variable is looked at.
    """
    found = Said(FLAG, endpoint) if endpoint else _variable("ENDPOINT", environment)
    if found is None or found.value == NOWHERE:
        return None
    protocol = _variable("PROTOCOL", environment)
    if protocol is not None and protocol.value != "grpc":
        raise errors.InvalidInput(field=protocol.by, value=protocol.value, remedy="only grpc is spoken here")
    host, port, secure = _endpoint(found, insecure=_insecure(environment))
    names = [_variable(name, environment) for name in ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")]
    authority, certificate, key = (pathlib.Path(one.value) if one is not None else None for one in names)
    if (certificate is None) is not (key is None):
        said = next(one for one in names[1:] if one is not None)
        remedy = f"give both, {PREFIX}CLIENT_CERTIFICATE and {PREFIX}CLIENT_KEY"
        raise errors.InvalidInput(field=said.by, value=said.value, remedy=remedy)
    return Collector(
        said_by=found.by,
        host=host,
        port=port,
        secure=secure,
        flows=flows,
        certificates=certificates,
        authority=authority,
        certificate=certificate,
        key=key,
        headers=_headers(_variable("HEADERS", environment)),
        compression=_compression(_variable("COMPRESSION", environment)),
        timeout_ms=_timeout(_variable("TIMEOUT", environment)),
        resource=_resource(environment),
    )


def _variable(name: str, environment: Mapping[str, str]) -> Said | None:
    """Return what is said for logs, else for every signal; an empty variable counts as none."""
    for by in (f"{PREFIX}LOGS_{name}", f"{PREFIX}{name}"):
        if value := environment.get(by, "").strip():
            return Said(by, value)
    return None


def _insecure(environment: Mapping[str, str]) -> bool:
    said = _variable("INSECURE", environment)
    if said is not None and said.value.lower() not in {"true", "false"}:
        raise errors.InvalidInput(field=said.by, value=said.value, remedy="write true or false")
    return said is not None and said.value.lower() == "true"


def _endpoint(said: Said, *, insecure: bool) -> tuple[str, int, bool]:
    """Return host, port, and whether it is to be encrypted, which the scheme says before anything else."""
    schemed = "://" in said.value
    try:
        parts = urllib.parse.urlsplit(said.value if schemed else f"//{said.value}")
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise errors.InvalidInput(field=said.by, value=_unsigned(said.value), remedy=FORM) from None
    if parts.username is not None:
        remedy = f"leave name and password out; {PREFIX}HEADERS is the place for a token"
        raise errors.InvalidInput(field=said.by, value=_unsigned(said.value), remedy=remedy)
    known = parts.scheme in {"http", "https"} if schemed else port is not None
    if not known or port == 0 or not _is_host(host):
        raise errors.InvalidInput(field=said.by, value=said.value, remedy=FORM)
    if parts.path not in {"", "/"} or parts.query or parts.fragment:
        remedy = f"leave out what follows the port: this is gRPC, for which collectors listen on {PORT}"
        raise errors.InvalidInput(field=said.by, value=said.value, remedy=remedy)
    return host, port or PORT, parts.scheme == "https" if schemed else not insecure


def _unsigned(url: str) -> str:
    """Return it without what stands before an @."""
    return re.sub(r"[^/]*@", "...@", url)


def _is_host(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A name that ends in a number is an address that somebody got wrong.
        last = host.rstrip(".").rpartition(".")[2]
        return len(host) <= 253 and HOST.fullmatch(host) is not None and not last.isdigit()  # noqa: PLR2004 - RFC 1035
    return address.version == net.Family.IPV4.value or "%" not in host


def _headers(said: Said | None) -> Mapping[str, str]:
    """Read `name=value,name=value`, values percent-encoded. A complaint names the header, never what it holds."""
    found: dict[str, str] = {}
    if said is None:
        return found
    for name, value in _pairs(said, shown=False):
        lower = name.lower()
        reserved = lower.startswith("grpc-") or lower.endswith("-bin")
        if HEADER.fullmatch(lower) is None or reserved or not (value.isascii() and value.isprintable()):
            remedy = "write NAME=VALUE,NAME=VALUE of letters, digits, '-', '_' and '.', values percent-encoded ASCII"
            raise errors.InvalidInput(field=said.by, value=name, remedy=remedy)
        found[lower] = value
    return found


def _resource(environment: Mapping[str, str]) -> Mapping[str, str]:
    """Read OTEL_RESOURCE_ATTRIBUTES, and OTEL_SERVICE_NAME, which goes before it."""
    variable = "OTEL_RESOURCE_ATTRIBUTES"
    found = {"service.name": SERVICE_NAME}
    found |= dict(_pairs(Said(variable, environment.get(variable, "").strip()), shown=True))
    if name := environment.get("OTEL_SERVICE_NAME", "").strip():
        found["service.name"] = name
    return found


def _pairs(said: Said, *, shown: bool) -> list[tuple[str, str]]:
    """Split `a=b,c=d`; what is wrong is `shown`, or only its place."""
    found: list[tuple[str, str]] = []
    texts = [text.strip() for text in said.value.split(",")]
    for place, text in enumerate(texts, start=1):
        name, equals, value = (one.strip() for one in text.partition("="))
        if not text:
            continue
        if not (name and equals):
            value = text if shown else f"entry {place}"
            raise errors.InvalidInput(field=said.by, value=value, remedy="write NAME=VALUE,NAME=VALUE")
        found.append((urllib.parse.unquote(name), urllib.parse.unquote(value)))
    return found


def _compression(said: Said | None) -> Compression:
    if said is None:
        return Compression.NONE
    try:
        return Compression(said.value)
    except ValueError:
        raise errors.InvalidInput(field=said.by, value=said.value, remedy="write gzip or none") from None


def _timeout(said: Said | None) -> int:
    if said is None:
        return TIMEOUT_MS
    digits = said.value.isascii() and said.value.isdigit() and len(said.value) <= len(str(TIMEOUT_MS_MOST))
    number = int(said.value) if digits else 0
    if not 1 <= number <= TIMEOUT_MS_MOST:
        remedy = f"write milliseconds, 1 to {TIMEOUT_MS_MOST}"
        raise errors.InvalidInput(field=said.by, value=said.value, remedy=remedy)
    return number
