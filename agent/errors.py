"""Every exception the agent raises on purpose, drawn as a tree.

    NodewallError
    ├── InvalidInput          a flag, an RPC field or a CLI argument: field, value, remedy
    ├── NotFound              something was asked for by name and is not there: field, value, remedy
    ├── InvalidResource       a manifest cannot be read at all (decode prefers a Problem)
    ├── DatapathError         the kernel refused something
    │   ├── NotSupported      this kernel or machine lacks a feature: fall back, or skip the test
    │   ├── ProgramRejected   the verifier or the compiler refused a program; keeps the whole log
    │   ├── MapFull           a generation does not fit; nothing was flipped
    │   └── ApplyFailed       a write failed after its retries; the old generation stays
    ├── InvalidAnswer         what a container runtime answered cannot be read
    ├── Unreachable           nobody answers on a socket
    └── LabError              the lab could not build or take down something

Operands stay attributes, so that callers print them their own way.
"""

from __future__ import annotations


class NodewallError(Exception):
    """Root of the tree; the command line prints its text and no traceback."""


class InvalidInput(NodewallError):  # noqa: N818 - states what the input is, as the tree above reads
    """A value a person or a client gave is wrong."""

    def __init__(self, *, field: str, value: object, remedy: str) -> None:
        """Name the field, show the value, and say what to do instead."""
        super().__init__(f"{field}: {value!r} is not valid: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


class NotFound(NodewallError):  # noqa: N818 - see InvalidInput
    """Nothing has the name, number or address that was asked for."""

    def __init__(self, *, field: str, value: object, remedy: str) -> None:
        """Name the field, show the value, and say what there is instead."""
        super().__init__(f"{field}: {value!r} is not there: {remedy}")
        self.field = field
        self.value = value
        self.remedy = remedy


class InvalidResource(NodewallError):  # noqa: N818 - see InvalidInput
    """A document cannot be read as a resource at all."""


class DatapathError(NodewallError):
    """Something between the agent and the kernel failed."""


class NotSupported(DatapathError):  # noqa: N818 - see InvalidInput
    """The kernel or machine lacks a feature; the text names it and what provides it."""

    def __init__(self, *, feature: str, needs: str) -> None:
        """Say which feature is missing and which kernel or setting has it."""
        super().__init__(f"{feature} is not available: it needs {needs}")
        self.feature = feature
        self.needs = needs


class ProgramRejected(DatapathError):  # noqa: N818 - see InvalidInput
    """A BPF program did not compile or load; `log` is complete, the text shows its end."""

    def __init__(self, *, program: str, log: str) -> None:
        """Keep the whole log; print its last useful lines."""
        tail = "\n".join([line for line in log.splitlines() if line.strip()][-5:])
        super().__init__(f"program {program} was rejected:\n{tail}")
        self.program = program
        self.log = log


class MapFull(DatapathError):  # noqa: N818 - see InvalidInput
    """More rows are desired than the map holds; the old generation stays in force."""

    def __init__(self, *, table: str, rows: int, capacity: int) -> None:
        """Name the map, the rows wanted and the rows it holds."""
        super().__init__(f"map {table} holds {capacity} rows, {rows} are needed; the last policy stays in force")
        self.table = table
        self.rows = rows
        self.capacity = capacity


class ApplyFailed(DatapathError):  # noqa: N818 - see InvalidInput
    """A kernel write failed after its retries; the old generation stays in force."""


class InvalidAnswer(NodewallError):  # noqa: N818 - see InvalidInput
    """An answer cannot be read; nothing of it is used."""

    def __init__(self, *, what: str, why: str) -> None:
        """Say what was being read, and what is wrong with it."""
        super().__init__(f"{what} cannot be read: {why}")
        self.what = what
        self.why = why


class Unreachable(NodewallError):  # noqa: N818 - see InvalidInput
    """No agent answers; `socket` is where one was looked for."""

    def __init__(self, *, socket: str, reason: str, remedy: str) -> None:
        """Name the socket, say what happened and what to do about it."""
        super().__init__(f"no agent answers on {socket}: {reason}; {remedy}")
        self.socket = socket
        self.reason = reason
        self.remedy = remedy


class LabError(NodewallError):
    """The lab could not build, use or take down a part of itself."""
