"""How nodes are networked, who translates Services, and what enforces: eight ways, one a cluster.

`python -m tests.cluster.combinations` prints their names. Two of them run upstream's whole suite: the network and the
proxy that most clusters have with the engine that `auto` takes, and all that is different from it. The others run ten
specs of it. Every other test runs with each.
"""

from __future__ import annotations

import dataclasses
import itertools
import os

from tests.cluster import settings

ENVIRONMENT = "NODEWALL_CLUSTER_COMBINATION"
NFBPF = "nfbpf"
IPTABLES = "iptables"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """One way."""

    cni: settings.Cni
    proxy: settings.Proxy
    engine: str
    """`nfbpf`, or what the agent's `--engine` takes."""

    @property
    def name(self) -> str:
        """As users of this write it."""
        return f"{self.cni.value}-{self.proxy.value}-{self.engine}"

    @property
    def flag(self) -> str:
        """What the agent is told: BPF is what it takes by itself, as users let it."""
        return "auto" if self.engine == NFBPF else self.engine

    @property
    def mode(self) -> str:
        """What the agent is to say that it enforces by."""
        return f"socket+{NFBPF}" if self.engine == NFBPF else self.engine

    @property
    def whole_suite(self) -> bool:
        """Whether upstream's whole suite runs with it."""
        return self in FULL


ALL = tuple(
    Combination(cni=cni, proxy=proxy, engine=engine)
    for cni, proxy, engine in itertools.product(settings.Cni, settings.Proxy, (NFBPF, IPTABLES))
)
FULL = (ALL[0], ALL[-1])
DEFAULT = ALL[0]


def parse(name: str) -> Combination:
    """Return the combination of that name; an engine may also be one that is none of the eight. Raises ValueError."""
    cni, _, rest = name.partition("-")
    proxy, _, engine = rest.partition("-")
    try:
        return Combination(cni=settings.Cni(cni), proxy=settings.Proxy(proxy), engine=engine or NFBPF)
    except ValueError as error:
        known = ", ".join(one.name for one in ALL)
        raise ValueError(f"no combination {name!r}: choose from {known}") from error


def asked_for() -> Combination:
    """Return the one that the environment names. Raises ValueError."""
    return parse(os.environ.get(ENVIRONMENT) or DEFAULT.name)


if __name__ == "__main__":
    print("\n".join(one.name for one in ALL))
