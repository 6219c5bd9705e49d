"""Flags of parts that have several: DNS names, and the collector of flow logs. What they say is checked here."""

from __future__ import annotations

import argparse
import ipaddress
import pathlib
from collections.abc import Mapping, Sequence

from agent import errors
from agent.fqdn import history
from agent.model import collector as collector_
from agent.model import fqdn, net

NOWHERE = "none"
SECONDS_MOST = 7 * 24 * 3600


def collector(given: argparse.Namespace, environment: Mapping[str, str]) -> collector_.Collector | None:
    """Read where flow logs go; None: nowhere. Raises InvalidInput."""
    return collector_.collector(
        given.otlp_endpoint,
        flows=collector_.Flows(given.otlp_flows),
        certificates=given.otlp_certificates,
        environment=environment,
    )


def add_collector(parser: argparse.ArgumentParser) -> None:
    """Add what says where flow logs go."""
    parser.add_argument(
        collector_.FLAG,
        default="",
        metavar=f"HOST:PORT|URL|{NOWHERE}",
        help="OpenTelemetry collector that flow logs are sent to, over OTLP/gRPC; http://HOST:PORT for no TLS; "
        f"as OTEL_EXPORTER_OTLP_ENDPOINT says unless told, else {NOWHERE}",
    )
    parser.add_argument(
        "--otlp-flows",
        choices=[flows.value for flows in collector_.Flows],
        default=collector_.Flows.DENIED.value,
        help="which flows: those denied (or that would be, were a policy not in audit), or all",
    )
    parser.add_argument(
        "--otlp-certificates",
        type=pathlib.Path,
        default=pathlib.Path("/etc/nodewall/otlp"),
        metavar="DIR",
        help="ca.crt of the collector's authority, and tls.crt and tls.key for one that asks; each only if there",
    )


def resolvers(texts: Sequence[str]) -> frozenset[net.Address]:
    """Read addresses; a list of several is one text, as a ConfigMap has it. Raises InvalidInput."""
    found: set[net.Address] = set()
    for text in (part for several in texts for part in several.replace(",", " ").split()):
        try:
            address = net.normalize(ipaddress.ip_address(text))
        except ValueError:
            address = None
        if address is None or "%" in text:
            remedy = "write an IPv4 or IPv6 address, such as 192.0.2.53; a name would have to be resolved first"
            raise errors.InvalidInput(field="--resolver", value=text, remedy=remedy)
        found.add(address)
    return frozenset(found)


def lifetimes(given: argparse.Namespace) -> history.Lifetimes:
    """Read how long an answer is good for. Raises InvalidInput."""
    return history.Lifetimes(
        min_ttl_s=_seconds("--dns-min-ttl", given.dns_min_ttl), grace_s=_seconds("--dns-grace", given.dns_grace)
    )


def _seconds(flag: str, text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(SECONDS_MOST)) else -1
    if not 0 <= number <= SECONDS_MOST:
        raise errors.InvalidInput(field=flag, value=text, remedy=f"write seconds, 0 to {SECONDS_MOST}")
    return number


def add_names(parser: argparse.ArgumentParser) -> None:
    """Add what says whose DNS answers are believed, and for how long."""
    usual = history.Lifetimes()
    parser.add_argument(
        "--resolver",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="believe DNS answers of this resolver, too; the cluster's own and NodeLocal DNSCache are believed "
        "unasked. May be repeated, or name several",
    )
    for flag, default, text in (
        ("--dns-min-ttl", usual.min_ttl_s, "what DNS says is good for at least so long"),
        ("--dns-grace", usual.grace_s, "and for so much longer: applications keep addresses"),
    ):
        parser.add_argument(flag, default=str(default), metavar="SECONDS", help=f"{text}; {default} unless told")
    parser.add_argument(
        "--dns-reject",
        choices=[answer.value for answer in fqdn.Reject],
        default=fqdn.Reject.REFUSED.value,
        help="what a pod gets that asks for a name which its policies do not let it ask for",
    )
