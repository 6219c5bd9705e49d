"""The ways to enforce and the networks to do it on: which there are, what a denied caller sees, which run when.

Every system test is written once and runs with every combination. `make test` takes a selection in which any two of
socket layer, iptables variant and topology meet; what it leaves out carries the marker `matrix` and runs with
`make test-matrix`. The selection is a function of names alone, so that a failure repeats.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import hashlib
import itertools
from collections.abc import Iterable, Sequence

import pytest

from agent.datapath.bpf import features
from agent.lab import lab, plan
from agent.model import net

TIME_OUT = "time-out"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """What a denied call sees: `time-out` or an errno's name; a datagram is `sent` where nobody says otherwise."""

    connect: str
    """TCP."""
    send: frozenset[str]
    """Every other protocol."""


REJECTED = Denial(connect="ECONNREFUSED", send=frozenset({"sent", TIME_OUT, "EHOSTUNREACH", "EACCES"}))
"""By iptables: a reset, or ICMP "administratively prohibited", of which a socket learns later or never."""
SILENT = Denial(connect=TIME_OUT, send=frozenset({"sent", TIME_OUT}))
"""By a netfilter program, which can only drop."""


@functools.cache
def at_once() -> Denial:
    """Return what the socket layer says: the call fails and no packet leaves. Before Linux 5.18 it is EPERM."""
    name = errno.errorcode[features.refused_errno(sets_errno=features.sets_errno())]
    return Denial(connect=name, send=frozenset({name}))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One way to enforce."""

    mode: str
    """What `--engine` takes."""
    variant: str = "auto"
    """What `--iptables` takes."""

    @property
    def name(self) -> str:
        """How tests and figures call it."""
        return f"{self.mode}-{self.variant}" if self.iptables else self.mode

    @property
    def status(self) -> str:
        """The mode that the agent reports."""
        return self.mode if self.iptables else f"socket+{self.mode}"

    @property
    def iptables(self) -> bool:
        """Whether its packet layer is iptables."""
        return self.mode.endswith("iptables")

    @property
    def sockets(self) -> bool:
        """Whether it has a socket layer."""
        return self.status.startswith("socket+")

    @property
    def near(self) -> Denial:
        """What a caller sees whom its own egress policy forbids the call."""
        return at_once() if self.sockets else self.far

    @property
    def far(self) -> Denial:
        """What a caller sees whom the other side's ingress policy turns away."""
        return REJECTED if self.iptables else SILENT

    @property
    def judges_errors(self) -> bool:
        """Whether an ICMP error is judged as the connection it is about.

        iptables cannot match the ports that an error quotes: what comes from the connection's other end passes for as
        long as conntrack knows the connection, also after it has been forbidden.
        """
        return not self.iptables

    def lab(
        self,
        name: str,
        topology: plan.Topology = plan.Topology.ROUTED,
        *,
        families: Sequence[net.Family] = (),
        agents: bool = True,
    ) -> lab.Lab:
        """Return a lab whose agents enforce in this way."""
        return lab.Lab(
            name=name, topology=topology, families=families, engine=self.mode, iptables=self.variant, agents=agents
        )


NFBPF = Engine(mode="nfbpf")
SOCKET_LEGACY = Engine(mode="socket+iptables", variant="legacy")
SOCKET_NFT = Engine(mode="socket+iptables", variant="nft")
LEGACY = Engine(mode="iptables", variant="legacy")
NFT = Engine(mode="iptables", variant="nft")
ENGINES = (NFBPF, SOCKET_LEGACY, SOCKET_NFT, LEGACY, NFT)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """A way to enforce on a kind of network."""

    engine: Engine
    topology: plan.Topology

    @property
    def name(self) -> str:
        """The test's id."""
        return f"{self.engine.name}-{self.topology.value}"


TOPOLOGIES = (plan.Topology.ROUTED, plan.Topology.BRIDGE)
COMBINATIONS = tuple(
    Combination(engine=engine, topology=topology) for engine, topology in itertools.product(ENGINES, TOPOLOGIES)
)
NFBPF_ROUTED, NFBPF_BRIDGE = COMBINATIONS[:2]
PAIRWISE = (
    Combination(engine=SOCKET_LEGACY, topology=plan.Topology.ROUTED),
    Combination(engine=SOCKET_NFT, topology=plan.Topology.BRIDGE),
    Combination(engine=LEGACY, topology=plan.Topology.BRIDGE),
    Combination(engine=NFT, topology=plan.Topology.ROUTED),
)
"""Four combinations in which any two of socket layer, variant and topology meet."""
SELECTED = (NFBPF_ROUTED, NFBPF_BRIDGE, *PAIRWISE)
FEWER = (NFBPF_ROUTED, PAIRWISE[2])
"""For what takes long: all by BPF, and nothing by it; both topologies."""


def number(name: str, below: int) -> int:
    """Return a number that depends on `name` alone."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) % below


def marks(*, selected: bool) -> tuple[pytest.MarkDecorator, ...]:
    """Return the mark of what `make test` leaves out."""
    return () if selected else (pytest.mark.matrix,)


def by_combination(
    selected: Iterable[Combination] = SELECTED, *, among: Iterable[Combination] = COMBINATIONS
) -> list[object]:
    """Return combinations as parameters; those that are not selected carry the marker."""
    taken = set(selected)
    return [pytest.param(one, marks=marks(selected=one in taken), id=one.name) for one in among]
