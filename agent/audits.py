"""What is in audit on this node, by which means, since when, and what it would have denied (rule A51).

The rule: a flag holds for as long as the agent has it, an annotation for as long as the cluster has it, a command until
it is taken back. The file in the state directory keeps commands over restarts, and of the others only since when. One
that cannot be read keeps nothing in audit: then what was in audit by command is enforced, and `trouble` says so. One
that cannot be written when a command is taken back is removed: a restart must not bring back what was taken out.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping

from agent import clock as clock_
from agent import errors, reconciler
from agent.model import audit as audit_
from agent.model import resources, verdict

FILE = "audit.json"
BYTES_MOST = 1 << 20
TARGETS_MOST = 1024
"""Commands that are kept; a node has no more namespaces than pods."""
ANNOTATIONS_MOST = 1024
"""Annotations whose age is kept over a restart, the oldest first: how many there are is not the admin's to say."""

MALFORMED = (ValueError, TypeError, LookupError, OverflowError, RecursionError)
"""What reading a file raises that `_written` has not written."""

Key = tuple[audit_.Target, audit_.Means]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """Something in audit."""

    target: audit_.Target
    means: audit_.Means
    since_unix_ns: int
    policies: int
    """How many policies that are; 0: there is none of that name."""
    would_deny: int
    """Connections that would have been denied, a side each, since the agent started; also those not told one by one."""


class Ledger:
    """Keeps them; for the event loop alone."""

    def __init__(self, *, file: pathlib.Path, given: audit_.Audit, clock: clock_.Clock) -> None:
        """Take flags and whether annotations count from `given`, and commands from `file`."""
        self._file = file
        self._given = given
        self._clock = clock
        self._unread = ""
        self._unwritten = ""
        known = self._read()
        now = clock.unix_ns()
        self._since: dict[Key, int] = {
            (target, audit_.Means.FLAG): known.get((target, audit_.Means.FLAG), now) for target in given.flags
        }
        self._since |= {key: since for key, since in known.items() if key[1] is audit_.Means.COMMAND}
        self._annotated_before = {key: since for key, since in known.items() if key[1] is audit_.Means.ANNOTATION}
        self._in_audit: Mapping[resources.ObjectRef, tuple[audit_.Means, ...]] = {}
        self._by_policy: collections.Counter[resources.ObjectRef] = collections.Counter()
        self._by_namespace: collections.Counter[str] = collections.Counter()
        if self._since.keys() | self._annotated_before.keys() != known.keys():
            self._keep()

    @property
    def trouble(self) -> str:
        """Return why the file could not be read at the start, or not be written lately; "" when nothing is wrong."""
        return "; ".join(filter(None, (self._unread, self._unwritten)))

    @property
    def setting(self) -> audit_.Audit:
        """Return what the reconciler is to go by."""
        commands = frozenset(target for target, means in self._since if means is audit_.Means.COMMAND)
        return dataclasses.replace(self._given, commands=commands)

    def enable(self, target: audit_.Target) -> None:
        """Put something into audit by command. Raises InvalidInput where that could not be kept over a restart."""
        key = (target, audit_.Means.COMMAND)
        if key in self._since:
            return
        if len(self.setting.commands) >= TARGETS_MOST:
            raise errors.InvalidInput(field="audit", value=str(target), remedy="too much is in audit; take some out")
        self._since[key] = self._clock.unix_ns()
        self._keep()
        if self._unwritten:
            del self._since[key]
            raise errors.InvalidInput(field="audit", value=str(target), remedy=self._unwritten)

    def disable(self, target: audit_.Target) -> None:
        """Take back the command; what else keeps it in audit stays (`holding`). `trouble` says if that was not kept."""
        if self._since.pop((target, audit_.Means.COMMAND), None) is None:
            return
        self._keep()
        if self._unwritten:
            with contextlib.suppress(OSError):  # the same trouble, and told already
                self._file.unlink(missing_ok=True)

    def holding(self, target: audit_.Target) -> tuple[audit_.Means, ...]:
        """Return what keeps a policy or namespace in audit, its policy's namespace included."""
        over = {target, audit_.Target(target.namespace)}
        return tuple(sorted({means for one, means in self._since if one in over}, key=lambda means: means.value))

    def see(self, enforcement: reconciler.Enforcement) -> None:
        """Learn what annotations ask for now."""
        self._in_audit = enforcement.audited.policies
        asked = {(target, audit_.Means.ANNOTATION) for target in enforcement.audited.annotated}
        before = {key: since for key, since in self._since.items() if key[1] is audit_.Means.ANNOTATION}
        if asked == before.keys() and not self._annotated_before:
            return
        known, now = {**self._annotated_before, **before}, self._clock.unix_ns()
        self._annotated_before = {}
        self._since = {key: since for key, since in self._since.items() if key not in before}
        self._since |= {key: known.get(key, now) for key in asked}
        self._keep()

    def count(self, event: verdict.VerdictEvent) -> None:
        """Count a would-be denial: at the packet layer, which sees each connection that passes."""
        if event.layer is not verdict.Layer.PACKET or event.verdict is not verdict.Verdict.AUDIT:
            return
        denying = (event.rule.policy,) if event.rule is not None else event.isolating
        refs = [ref for ref in denying if ref in self._in_audit]
        for ref in refs:
            self._by_policy[ref] += 1 + event.repeats
        for namespace in {ref.namespace for ref in refs}:
            self._by_namespace[namespace] += 1 + event.repeats

    def entries(self) -> tuple[Entry, ...]:
        """Return everything in audit, by name."""
        return tuple(self._entry(target, means) for target, means in sorted(self._since, key=_order))

    @property
    def oldest_unix_ns(self) -> int:
        """Return since when the longest is in audit; 0: nothing is."""
        return min(self._since.values(), default=0)

    def _entry(self, target: audit_.Target, means: audit_.Means) -> Entry:
        refs = [ref for ref, by in self._in_audit.items() if means in by and _means(target, ref)]
        counted = sum(self._by_policy[ref] for ref in refs) if target.policy else self._by_namespace[target.namespace]
        return Entry(
            target=target,
            means=means,
            since_unix_ns=self._since[target, means],
            policies=len(refs),
            would_deny=counted,
        )

    def _read(self) -> dict[Key, int]:
        try:
            with self._file.open("rb") as file:
                return _parsed(file.read(BYTES_MOST))
        except FileNotFoundError:
            return {}
        except (OSError, *MALFORMED, errors.InvalidInput) as error:
            self._unread = f"{self._file} cannot be read, so nothing in it is in audit: {error}"
            return {}

    def _keep(self) -> None:
        """Write everything, whole or not at all."""
        scratch = self._file.with_suffix(".new")
        try:
            with contextlib.ExitStack() as undo:
                undo.callback(scratch.unlink, missing_ok=True)
                descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_written({**self._annotated_before, **self._since}))
                    file.flush()
                    os.fsync(file.fileno())
                scratch.replace(self._file)
            _sync(self._file.parent)
        except OSError as error:
            self._unwritten = f"{self._file} cannot be written: {error.strerror}"
        else:
            self._unwritten = ""


def _means(target: audit_.Target, ref: resources.ObjectRef) -> bool:
    return target.namespace == ref.namespace and target.policy in {"", ref.name}


def _order(key: Key) -> tuple[audit_.Target, str]:
    return key[0], key[1].value


def _sync(directory: pathlib.Path) -> None:
    """Have what was renamed in a directory outlive a loss of power. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(since: Mapping[Key, int]) -> bytes:
    annotations = sorted((key for key in since if key[1] is audit_.Means.ANNOTATION), key=lambda key: since[key])
    kept = since.keys() - set(annotations[ANNOTATIONS_MOST:])
    entries = [
        {"namespace": target.namespace, "policy": target.policy, "means": means.value, "since_unix_ns": since[key]}
        for key in sorted(kept, key=_order)
        for target, means in (key,)
    ]
    return json.dumps({"version": 1, "audit": entries}, indent=1).encode() + b"\n"


def _parsed(content: bytes) -> dict[Key, int]:
    """Read what `_written` wrote. Raises one of MALFORMED or InvalidInput on anything else."""
    document = json.loads(content)
    if document["version"] != 1:
        raise ValueError("it is of another version")
    found: dict[Key, int] = {}
    for entry in document["audit"]:
        name = f"{entry['namespace']}/{entry['policy']}" if entry["policy"] else entry["namespace"]
        target = audit_.target(name, field="audit")
        found[target, audit_.Means(entry["means"])] = int(entry["since_unix_ns"])
    return found
