"""What the agent was told at its start: parsed once, checked once, never changed.

Every flag is checked here, so that a wrong one is one line on stderr before anything is touched. The node's name
becomes a directory below bpffs, the state directory holds a unix socket: both are checked for that use.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import ipaddress
import pathlib
import re
import types
from collections.abc import Mapping, Sequence

from agent import errors, flags
from agent.datapath import engines
from agent.fqdn import history
from agent.model import audit as audit_
from agent.model import collector as collector_
from agent.model import endpoint, fqdn, net

NODE_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
"""A DNS-1123 subdomain, as Kubernetes has it for nodes (and no `..`, see `_node`)."""
SOCKET_PATH_MAX = 107
"""sun_path holds 108 bytes, a NUL among them (unix(7))."""
HEALTH_ADDRESS = "127.0.0.1:9879"
"""Reached by kubelet, which shares the node's network with the agent, and by nobody outside."""
METRICS_ADDRESS = "127.0.0.1:9880"
NOWHERE = flags.NOWHERE
VERDICT_RATE = 10
VERDICT_RATE_MOST = 1_000_000
CRI_SOCKETS = (pathlib.Path("/run/containerd/containerd.sock"), pathlib.Path("/run/crio/crio.sock"))
NO_VARIABLES: Mapping[str, str] = types.MappingProxyType({})
KUBERNETES = "kubernetes"
"""What `--source` takes for the API server; a directory of that name is written `./kubernetes`."""


class Command(enum.Enum):
    """What the process is to do."""

    RUN = "run"
    UNINSTALL = "uninstall"


@dataclasses.dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen."""

    address: net.Address
    port: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """How to reach the API server."""

    kubeconfig: pathlib.Path | None
    """None: by the service account that a pod has."""
    server: str
    """Goes before the address found there; "" for that one."""
    server_name: str
    """The name to verify, where the certificate does not have that address; "" for that one."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting of one agent."""

    command: Command
    node: str
    state_dir: pathlib.Path
    source: pathlib.Path | None
    """A directory of manifests; None: the API server, or nothing, to uninstall."""
    cluster: Cluster | None
    """The API server; None: a directory of manifests, or nothing, to uninstall."""
    bpffs: pathlib.Path
    cgroup_root: pathlib.Path | None
    """Where cgroup v2 is, or is mounted below; None: anywhere, if an engine wants it."""
    cni_results: pathlib.Path
    netns_dir: pathlib.Path
    cri_socket: pathlib.Path | None
    """None: no runtime is asked."""
    deny_mode: endpoint.DenyMode
    hold_mode: endpoint.HoldMode
    engine: engines.Engine
    iptables: engines.Iptables
    health_address: Listen | None
    """Where /livez and /readyz are answered; None: nowhere."""
    metrics_address: Listen | None
    hubble_address: Listen | None
    """Where Hubble's API is answered with mutual TLS; None: on the socket alone."""
    hubble_certificates: pathlib.Path
    """Holds tls.crt, tls.key and ca.crt; looked at only with an address."""
    verdict_rate: int
    """Verdicts of one kind that are told in a second, once a burst of ten seconds' worth is spent; 0: all."""
    log_level: str
    audit: audit_.Audit = audit_.NOTHING
    collector: collector_.Collector | None = None
    """Where flow logs are sent; None: nowhere."""
    resolvers: frozenset[net.Address] = frozenset()
    """Whose DNS answers are believed besides the cluster's own."""
    lifetimes: history.Lifetimes = dataclasses.field(default_factory=history.Lifetimes)
    """How long DNS answers are good for."""
    reject: fqdn.Reject = fqdn.Reject.REFUSED
    """What a pod gets that asks for a name which its policies do not let it ask for."""

    @property
    def socket(self) -> pathlib.Path:
        """Where the agent answers."""
        return self.state_dir / "agent.sock"

    @property
    def hubble_socket(self) -> pathlib.Path:
        """Where Hubble's API is answered."""
        return self.state_dir / "hubble.sock"

    @property
    def home(self) -> engines.Home:
        """Where engines have their things."""
        return engines.Home(
            node=self.node,
            bpffs=self.bpffs,
            cgroup_root=self.cgroup_root,
            verdict_rate=self.verdict_rate,
            lifetimes=self.lifetimes,
            reject=self.reject,
        )

    @property
    def lock(self) -> pathlib.Path:
        """Who holds a lock on it is the one agent of this state directory."""
        return self.state_dir / "agent.lock"


def parse(arguments: Sequence[str], environment: Mapping[str, str] = NO_VARIABLES) -> Config:
    """Read the command line (without the program's name), and OpenTelemetry's variables.

    Raises InvalidInput; argparse itself prints usage and exits with 2 on flags it does not know.
    """
    command = Command.UNINSTALL if arguments[:1] == [Command.UNINSTALL.value] else Command.RUN
    given = _parser(command).parse_args(arguments[1:] if command is Command.UNINSTALL else arguments)
    state_dir = given.state_dir.absolute()
    config = Config(
        command=command,
        node=_node(given.node),
        state_dir=state_dir,
        source=None if command is Command.UNINSTALL or given.source == KUBERNETES else _directory(given.source),
        cluster=_cluster(given) if command is Command.RUN else None,
        bpffs=given.bpffs,
        cgroup_root=given.cgroup_root,
        cni_results=given.cni_results,
        netns_dir=given.netns_dir,
        cri_socket=_cri_socket(given.cri_socket) if command is Command.RUN else None,
        deny_mode=endpoint.DenyMode(given.deny_mode),
        hold_mode=endpoint.HoldMode(given.hold),
        engine=engines.Engine(given.engine),
        iptables=engines.Iptables(given.iptables),
        health_address=_listen("--health-address", given.health_address) if command is Command.RUN else None,
        metrics_address=_listen("--metrics-address", given.metrics_address) if command is Command.RUN else None,
        hubble_address=_listen("--hubble-address", given.hubble_address) if command is Command.RUN else None,
        hubble_certificates=given.hubble_certificates if command is Command.RUN else pathlib.Path(),
        verdict_rate=_rate(given.verdict_rate) if command is Command.RUN else 0,
        log_level=given.log_level,
        audit=_audit(given) if command is Command.RUN else audit_.NOTHING,
        collector=flags.collector(given, environment) if command is Command.RUN else None,
        resolvers=flags.resolvers(given.resolver) if command is Command.RUN else frozenset(),
        lifetimes=flags.lifetimes(given) if command is Command.RUN else history.Lifetimes(),
        reject=fqdn.Reject(given.dns_reject) if command is Command.RUN else fqdn.Reject.REFUSED,
    )
    if len(bytes(config.hubble_socket)) > SOCKET_PATH_MAX:
        remedy = f"a unix socket's path holds {SOCKET_PATH_MAX} bytes; choose a shorter directory"
        raise errors.InvalidInput(field="--state-dir", value=str(state_dir), remedy=remedy)
    return config


def _node(name: str) -> str:
    if NODE_NAME.fullmatch(name) is None or ".." in name:
        remedy = "write the node's Kubernetes name: lower case letters, digits, '-' and single '.'"
        raise errors.InvalidInput(field="--node", value=name, remedy=remedy)
    return name


def _audit(given: argparse.Namespace) -> audit_.Audit:
    """Read what is in audit; a list of several is one text, as a ConfigMap has it."""
    asked: set[audit_.Target] = set()
    for flag, texts, named in (
        ("--audit-namespace", given.audit_namespace, False),
        ("--audit-policy", given.audit_policy, True),
    ):
        for text in (part for several in texts for part in several.replace(",", " ").split()):
            found = audit_.target(text, field=flag)
            if bool(found.policy) is not named:
                remedy = "write NAMESPACE/NAME" if named else "write a namespace, or use --audit-policy"
                raise errors.InvalidInput(field=flag, value=text, remedy=remedy)
            asked.add(found)
    return audit_.Audit(flags=frozenset(asked), annotations=given.allow_audit_annotations == "true")


def _add_audit(parser: argparse.ArgumentParser) -> None:
    for flag, metavar, text in (
        ("--audit-namespace", "NAMESPACE", "have all policies of a namespace deny nothing, and tell what they would"),
        ("--audit-policy", "NAMESPACE/NAME", "have one policy deny nothing, and tell what it would"),
    ):
        help_ = f"{text}; may be repeated, or name several"
        parser.add_argument(flag, action="append", default=[], metavar=metavar, help=help_)
    parser.add_argument(
        "--allow-audit-annotations",
        nargs="?",
        choices=["true", "false"],
        const="true",
        default="false",
        help=f"let {audit_.ANNOTATION} on policies and namespaces do the same: whoever may write them can then",
    )


def _listen(flag: str, text: str) -> Listen | None:
    """Read ADDRESS:PORT, [ADDRESS]:PORT or none; a name would have to be resolved, by whom and to what."""
    if text == NOWHERE:
        return None
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        address = None
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= len(str(net.PORT_MAX)) else 0
    scoped = isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None
    if address is None or scoped or bracketed is not (address.version == net.Family.IPV6.value):
        number = 0
    if address is None or not 1 <= number <= net.PORT_MAX:
        remedy = f"write ADDRESS:PORT, such as {HEALTH_ADDRESS} or [::1]:9879 (port 1 to {net.PORT_MAX}), or {NOWHERE}"
        raise errors.InvalidInput(field=flag, value=text, remedy=remedy)
    return Listen(address, number)


def _rate(text: str) -> int:
    digits = text.isascii() and text.isdigit() and len(text) <= len(str(VERDICT_RATE_MOST))
    number = int(text) if digits else -1
    if not 0 <= number <= VERDICT_RATE_MOST:
        remedy = f"write how many a second, 1 to {VERDICT_RATE_MOST}, or 0 for no limit"
        raise errors.InvalidInput(field="--verdict-rate", value=text, remedy=remedy)
    return number


def _cri_socket(text: str) -> pathlib.Path | None:
    """Read a path or none; unless told, find the first of the known ones that is there."""
    if text == NOWHERE:
        return None
    if not text:
        return next((path for path in CRI_SOCKETS if path.is_socket()), None)
    path = pathlib.Path(text)
    if not path.is_absolute():
        remedy = f"write an absolute path, such as {CRI_SOCKETS[0]}, or {NOWHERE}"
        raise errors.InvalidInput(field="--cri-socket", value=text, remedy=remedy)
    return path


def _directory(text: str) -> pathlib.Path:
    path = pathlib.Path(text)
    if not path.is_dir():
        raise errors.InvalidInput(
            field="--source", value=text, remedy=f"name a directory that exists, or write {KUBERNETES}"
        )
    return path.absolute()


def _cluster(given: argparse.Namespace) -> Cluster | None:
    """Read how to reach the API server; flags for it are wrong with another source."""
    if given.source == KUBERNETES:
        return Cluster(kubeconfig=given.kubeconfig, server=given.api_server, server_name=given.api_server_name)
    for flag, value in (
        ("--kubeconfig", given.kubeconfig),
        ("--api-server", given.api_server),
        ("--api-server-name", given.api_server_name),
    ):
        if value:
            raise errors.InvalidInput(field=flag, value=str(value), remedy=f"give it with --source {KUBERNETES} only")
    return None


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--source",
        required=True,
        metavar=f"DIR|{KUBERNETES}",
        help="manifests to enforce, or the API server of this node's cluster",
    )
    parser.add_argument(
        "--kubeconfig", type=pathlib.Path, metavar="FILE", help="credentials; the pod's service account unless told"
    )
    parser.add_argument(
        "--api-server", default="", metavar="URL", help="instead of the Service address, which needs a kube-proxy"
    )
    parser.add_argument(
        "--api-server-name", default="", metavar="NAME", help="name to verify, where the certificate lacks the address"
    )


def _parser(command: Command) -> argparse.ArgumentParser:
    run = command is Command.RUN
    parser = argparse.ArgumentParser(
        prog="nodewall-agent" if run else "nodewall-agent uninstall",
        description="Enforce the network policies of one node."
        if run
        else "Remove every program, map, pin and rule of this node's agent; after it nothing is enforced.",
        epilog="'nodewall-agent uninstall' removes what an agent left in the kernel." if run else None,
        allow_abbrev=False,
    )
    parser.add_argument("--node", required=True, metavar="NAME", help="this node's name in Kubernetes")
    parser.add_argument("--state-dir", required=True, type=pathlib.Path, metavar="DIR", help="socket and lock file")
    if run:
        _add_source(parser)
    paths = {
        "--bpffs": (pathlib.Path("/sys/fs/bpf"), "bpffs that holds the pins"),
        "--cgroup-root": (None, "cgroup v2 above all pods of this node, or what it is mounted below; / unless told"),
        "--cni-results": (pathlib.Path("/var/lib/cni/results"), "CNI result cache: where pods are learned from"),
        "--netns-dir": (pathlib.Path("/run/netns"), "where the runtime binds network namespaces of pods"),
    }
    for flag, (default, text) in paths.items():
        parser.add_argument(flag, type=pathlib.Path, default=default, metavar="DIR", help=text)
    if run:
        known = " or ".join(map(str, CRI_SOCKETS))
        help_ = f"container runtime that cross-checks the CNI result cache; {known} unless told, if there"
        parser.add_argument("--cri-socket", default="", metavar=f"PATH|{NOWHERE}", help=help_)
    choices = {
        "--deny-mode": (endpoint.DenyMode, endpoint.DenyMode.REJECT, "how a denial shows to the application"),
        "--hold": (endpoint.HoldMode, endpoint.HoldMode.AUTO, "what happens to pods not programmed yet"),
    }
    for flag, (kind, default_mode, text) in choices.items():
        values = [mode.value for mode in kind]
        parser.add_argument(flag, choices=values, default=default_mode.value, help=text)
    parser.add_argument(
        "--engine",
        choices=[engine.value for engine in engines.Engine],
        default=engines.Engine.AUTO.value,
        metavar="|".join(engine.value for engine in engines.Engine if engine is not engines.Engine.MEMORY),
        help="what enforces; auto takes the best that proves itself here, and status says why no better one",
    )
    parser.add_argument(
        "--iptables",
        choices=[variant.value for variant in engines.Iptables],
        default=engines.Iptables.AUTO.value,
        help="which iptables such an engine uses; auto takes the one this node's kube-proxy uses",
    )
    if run:
        for flag, default_address, text in (
            ("--health-address", HEALTH_ADDRESS, "where /livez and /readyz are answered, over plain HTTP"),
            ("--metrics-address", METRICS_ADDRESS, "where Prometheus finds /metrics, over plain HTTP"),
        ):
            help_ = f"{text}; {default_address} unless told"
            parser.add_argument(flag, default=default_address, metavar=f"ADDRESS:PORT|{NOWHERE}", help=help_)
    if run:
        help_ = f"where Hubble's API is answered to other machines, over mutual TLS; {NOWHERE} unless told"
        parser.add_argument("--hubble-address", default=NOWHERE, metavar=f"ADDRESS:PORT|{NOWHERE}", help=help_)
        parser.add_argument(
            "--hubble-certificates",
            type=pathlib.Path,
            default=pathlib.Path("/etc/nodewall/hubble"),
            metavar="DIR",
            help="tls.crt, tls.key and ca.crt, whose clients are let in; replaced ones are taken without a restart",
        )
        _add_audit(parser)
        flags.add_collector(parser)
        flags.add_names(parser)
    if run:
        parser.add_argument(
            "--verdict-rate",
            default=str(VERDICT_RATE),
            metavar="N",
            help="verdicts told a second of one kind (pod, peer, port, outcome), after ten seconds' worth at once; "
            f"the others are counted; {VERDICT_RATE} unless told, 0: all",
        )
    parser.add_argument("--log-level", choices=["debug", "info", "warning", "error"], default="info")
    return parser
