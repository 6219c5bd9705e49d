"""The contract between the reconciler and whatever enforces.

One caller, the reconciler; no implementation needs a lock. `apply` is idempotent; deleting what is
gone is no error. The last policy stays in force when the agent dies, and `open` adopts it.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

from agent import desired as desired_
from agent import errors
from agent.datapath import tracing
from agent.model import endpoint, fqdn, net


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What one apply did, for status, logs and metrics."""

    generation: int
    written: int
    """Rows written or deleted in all maps."""
    flipped: int
    """Endpoints that moved to the new generation."""
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """Which engine runs and why, for status and metrics."""

    mode: str
    """`socket+nfbpf`, `socket+iptables`, `iptables`, `memory`."""
    reasons: tuple[str, ...] = ()
    """Why no better mode runs, and what does not hold here; one line each."""
    proved: tuple[str, ...] = ()
    """What was shown to hold when the engine was opened: `by function`, or by its links alone; one line each."""
    unproved: tuple[str, ...] = ()
    """What could not be shown, without having been shown not to hold; one line each. Such an agent is not ready."""
    variant: str = ""
    """Which iptables is used, `legacy` or `nft`; empty where none is."""
    learns_names: bool = False
    """Whether it learns the addresses that DNS gives pods; else what is allowed by name is denied."""
    filters_queries: bool = False
    """Whether it reads which names pods ask for; else what restricts these is denied. It learns names then, too."""


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """How full something of the kernel's is."""

    entries: int
    capacity: int
    """0 where it is not bounded as a whole."""


SETS = "ipset"
"""The name under which all sets of an engine are one usage."""


class Outcome(enum.Enum):
    """How a DNS message was taken; the value is what the kernel says."""

    LEARNED = 1
    NO_RULE = 2
    """No rule has such a name."""
    NEGATIVE = 3
    """An error, or no records (F7)."""
    MALFORMED = 4
    """What came before the fault was learned (F14)."""
    REFUSED = 5
    """No answer, but what a pod sent: a filter of names did not admit it, and it was refused or dropped."""
    WOULD_REFUSE = 6
    """Likewise, and it passed: the filter is of policies in audit (rule A51)."""


REFUSALS = frozenset({Outcome.REFUSED, Outcome.WOULD_REFUSE})
"""Of queries; all other outcomes are of answers."""


class Answer(Protocol):
    """One of them."""

    @property
    def endpoint(self) -> int:
        """Whose it is."""

    @property
    def time_ns(self) -> int:
        """When it came, CLOCK_BOOTTIME."""

    @property
    def message(self) -> bytes:
        """Hostile: whoever owns the name, or the pod, has written it. Empty where what is refused is no message."""

    @property
    def outcome(self) -> Outcome:
        """How it was taken."""

    @property
    def protocol(self) -> int:
        """IANA number."""

    @property
    def resolver(self) -> net.Address:
        """Who answered, or was asked: the address as the pod dialled it."""

    @property
    def resolver_port(self) -> int:
        """The port that was asked; of answers 0, as the following four are."""

    @property
    def client_port(self) -> int:
        """The pod's; 0 where there is none."""

    @property
    def policy_set(self) -> int:
        """The set that has the filter."""

    @property
    def rule(self) -> int:
        """The rule that allows what the filter admits; 0: a Service's backends are allowed by several."""

    @property
    def repeats(self) -> int:
        """Refusals of this kind that were kept back since the last one."""


class Answers(Protocol):
    """A ring of DNS answers as pods got them, and of what was refused; places in it are bytes since it was made."""

    @property
    def fd(self) -> int:
        """Readable (poll) when there are answers."""

    @property
    def written(self) -> int:
        """How far it is written; any thread may ask."""

    @property
    def consumed(self) -> int:
        """How far it is read; any thread may ask."""

    def read(self) -> Sequence[Answer]:
        """Return some answers, oldest first, without waiting; empty: nothing is ready."""


class Datapath(Protocol):
    """Brings what is enforced into line with a DesiredState."""

    def open(self) -> EngineReport:
        """Probe functionally, load or adopt programs and maps; nothing is widened by it.

        Raises NotSupported naming what is missing, ProgramRejected with the log, or DatapathError.
        """

    def apply(self, desired: desired_.DesiredState) -> Applied:
        """Write, then flip; on any error the old generation stays in force.

        What has to wait for programs that still read the old generation is left to `settle`. Raises MapFull before
        anything is written, ApplyFailed after retries.
        """

    def learn_names(self, desired: desired_.DesiredState) -> frozenset[int]:  # noqa: ARG002 - for those that do
        """Have answers from now on learned for the names of `desired`, beside those that count until its flip.

        Returns the classes that nothing has been learned for before: what pods were told of their names earlier is to
        be given to `replay` before `apply`. May be repeated, and is implied by `apply`. Datapaths that learn no names
        have nothing to do. Raises MapFull, ApplyFailed; then what counts is still learned for.
        """
        return frozenset()

    def replay(self, learned: fqdn.LearnedAddresses) -> int:  # noqa: ARG002 - likewise
        """Learn these as if DNS had just told them; return how many found no room. Raises ApplyFailed."""
        return 0

    def known(self) -> fqdn.Known:
        """Read what has been learned, expired or not; any thread may ask. Raises DatapathError."""
        return fqdn.Known()

    def settle(self) -> None:
        """Remove what the last apply left of the old generation; nothing left is no error.

        Changes no verdict, so `apply` may be reported first; the next `apply` begins with it. Raises ApplyFailed.
        """

    def attach_links(self, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        """Bring the source checks on the veths of `sandboxes` up to date; called before each apply.

        Datapaths whose check needs nothing on the veth do nothing. Raises DatapathError.
        """

    def repair(self) -> Sequence[str]:
        """Undo what others have done to our rules; return what was repaired, one line each.

        Called every second or so; cheap where nothing has changed. Datapaths nobody else can write to have nothing to
        do. Raises DatapathError where it cannot be repaired yet.
        """
        return ()

    def counters(self) -> Mapping[str, int]:
        """Return the kernel's counters by name, `events_lost` among them; any thread may ask."""
        return {}

    def usage(self) -> Mapping[str, Usage]:
        """Return how full each bounded map is, by its pinned name, as last written; any thread may ask, at no cost."""
        return {}

    def missing(self) -> Sequence[str]:
        """Return what of ours ought to be in the kernel and is not, one line each; cheap, any thread may ask.

        Datapaths whose `repair` looks at everything have nothing to add.
        """
        return ()

    def loaded(self) -> tracing.Loaded:
        """Open what the kernel holds now, to be read and closed by whoever asks; any thread may.

        Raises NotSupported where nothing is in the kernel, DatapathError.
        """
        raise errors.NotSupported(feature="reading back what is enforced", needs="an engine that enforces")

    def close(self) -> None:
        """Let go of file descriptors; enforcement stays."""

    def uninstall(self) -> None:
        """Remove every trace: links, programs, maps, pins, tables. Safe to repeat."""
