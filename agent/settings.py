"""What the agent was told and by whom, for people who ask a running one; no setting is a secret, files are named only.

Where a value came from is read off the command line: a flag that stands there was given, whatever its default is.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Callable, Iterator, Mapping

from agent import config as config_
from agent import logs
from agent.model import collector as collector_

LOG_LEVEL = "log-level"
ENDPOINT = collector_.FLAG.removeprefix("--")
USER = re.compile(r"//[^/@]*@")
"""Name and password in a URL."""


class Origin(enum.Enum):
    """Who said so; the value is what is shown."""

    COMMAND_LINE = "command line"
    DEFAULT = "default"
    FOUND = "found"
    """By looking at this machine."""
    ENVIRONMENT = "environment"
    AGENTCTL = "agentctl"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One setting."""

    name: str
    value: str
    origin: Origin
    changeable: bool = False


def _listen(where: config_.Listen | None) -> str:
    if where is None:
        return config_.NOWHERE
    return f"[{where.address}]:{where.port}" if ":" in str(where.address) else f"{where.address}:{where.port}"


def _audited(config: config_.Config, *, named: bool) -> str:
    """Return the policies, or the namespaces, that flags put into audit."""
    return ",".join(
        sorted(f"{one.namespace}/{one.policy}".rstrip("/") for one in config.audit.flags if bool(one.policy) is named)
    )


VALUES: Mapping[str, Callable[[config_.Config], object]] = {
    "node": lambda config: config.node,
    "source": lambda config: config.source or config_.KUBERNETES,
    "kubeconfig": lambda config: (config.cluster.kubeconfig if config.cluster else None) or "",
    "api-server": lambda config: config.cluster.server if config.cluster else "",
    "api-server-name": lambda config: config.cluster.server_name if config.cluster else "",
    "state-dir": lambda config: config.state_dir,
    "bpffs": lambda config: config.bpffs,
    "cgroup-root": lambda config: config.cgroup_root or "",
    "cni-results": lambda config: config.cni_results,
    "netns-dir": lambda config: config.netns_dir,
    "cri-socket": lambda config: config.cri_socket or config_.NOWHERE,
    "deny-mode": lambda config: config.deny_mode.value,
    "hold": lambda config: config.hold_mode.value,
    "engine": lambda config: config.engine.value,
    "iptables": lambda config: config.iptables.value,
    "health-address": lambda config: _listen(config.health_address),
    "metrics-address": lambda config: _listen(config.metrics_address),
    "hubble-address": lambda config: _listen(config.hubble_address),
    "hubble-certificates": lambda config: config.hubble_certificates,
    "verdict-rate": lambda config: config.verdict_rate,
    "resolver": lambda config: ",".join(map(str, sorted(config.resolvers, key=lambda one: (one.version, int(one))))),
    "dns-min-ttl": lambda config: config.lifetimes.min_ttl_s,
    "dns-grace": lambda config: config.lifetimes.grace_s,
    "dns-reject": lambda config: config.reject.value,
    "audit-namespace": lambda config: _audited(config, named=False),
    "audit-policy": lambda config: _audited(config, named=True),
    "allow-audit-annotations": lambda config: str(config.audit.annotations).lower(),
    ENDPOINT: lambda config: config.collector.url if config.collector else config_.NOWHERE,
    "otlp-flows": lambda config: config.collector.flows.value if config.collector else "",
    "otlp-certificates": lambda config: config.collector.certificates if config.collector else "",
    LOG_LEVEL: lambda config: config.log_level,
}
"""Flag without its dashes -> its value."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that one agent was told."""

    config: config_.Config
    arguments: tuple[str, ...]
    """The command line it was parsed from."""
    threshold: logs.Threshold

    def told(self) -> Iterator[Told]:
        """Yield every setting as it is now."""
        given = {argument.partition("=")[0] for argument in self.arguments}
        for name, read in VALUES.items():
            origin = Origin.COMMAND_LINE if f"--{name}" in given else Origin.DEFAULT
            value = USER.sub("//", str(read(self.config)))
            if name == "cri-socket" and origin is Origin.DEFAULT and self.config.cri_socket is not None:
                origin = Origin.FOUND
            collector = self.config.collector
            if name == ENDPOINT and collector is not None and collector.said_by != collector_.FLAG:
                origin = Origin.ENVIRONMENT
            if name == LOG_LEVEL and self.threshold.level != value:
                value, origin = self.threshold.level, Origin.AGENTCTL
            yield Told(name=name, value=value, origin=origin, changeable=name == LOG_LEVEL)
