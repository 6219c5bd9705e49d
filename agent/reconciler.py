"""The loop that brings what is enforced into line with the inputs; the only caller of Datapath.apply.

Level-triggered: inputs replace the ones before them and kick; however many kicks, one run follows, and its result
depends on the inputs alone, not on how they came. Nothing is applied before every input has delivered its first whole
list (in-sync gate): a half-known cluster would cut off pods that are allowed. When a run fails, the last policy stays
in force, the error is published, and the run is repeated, later and later, or at once when an input changes.

One worker thread compiles and applies, so that neither a large cluster nor a slow kernel stops the event loop, and a
datapath needs no lock. This module must not know which datapath it drives or where inputs come from.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import random
from collections.abc import Sequence
from typing import Protocol

from agent import clock as clock_
from agent import desired as desired_
from agent import errors, logs
from agent import snapshot as snapshot_
from agent.datapath import base
from agent.model import endpoint, resources
from agent.policy import compiler
from agent.sources import manifests

MIN_INTERVAL_S = 0.001
"""After a kick: what else arrives within it joins the same run."""
RETRY_FIRST_S = 0.1
RETRY_MOST_S = 30.0
JITTER = 0.25
"""A retry comes up to this share earlier or later, so that the agents of a cluster do not march in step."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The last whole list of each input; None until it has delivered one."""

    revision: int = 0
    """Counts every input that arrived."""
    source: manifests.Update | None = None
    sandboxes: tuple[endpoint.Sandbox, ...] | None = None
    sandbox_problems: tuple[resources.Problem, ...] = ()

    @property
    def synced(self) -> bool:
        """Every input has delivered its first whole list."""
        return self.source is not None and self.sandboxes is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """What is enforced now, and the inputs it came from."""

    inputs: Inputs
    state: desired_.DesiredState
    snapshot: snapshot_.Snapshot
    problems: tuple[resources.Problem, ...]
    generation: int
    unix_ns: int
    """When this revision was reached."""


class Listener(Protocol):
    """Who is told what becomes of a state; called from the worker thread, must return at once."""

    def staged(self, state: desired_.DesiredState, snapshot: snapshot_.Snapshot) -> None:
        """`state` is about to be applied: events of a generation nobody knows yet are its."""

    def enforced(self, generation: int, state: desired_.DesiredState, snapshot: snapshot_.Snapshot) -> None:
        """`state` is enforced, as `generation`."""


class Reconciler:
    """Holds the inputs, runs the loop, publishes what is enforced."""

    def __init__(
        self,
        *,
        datapath: base.Datapath,
        node: str,
        deny_mode: endpoint.DenyMode,
        hold_mode: endpoint.HoldMode,
        clock: clock_.Clock,
        listeners: Sequence[Listener] = (),
    ) -> None:
        """Take the collaborators; nothing is applied before `run`."""
        self._datapath = datapath
        self._view = endpoint.NodeView(name=node, deny_mode=deny_mode, hold_mode=hold_mode)
        self._clock = clock
        self._listeners = tuple(listeners)
        self._kicked = asyncio.Event()
        self._changed = asyncio.Condition()
        self._log = logs.logger("reconciler")
        self.inputs = Inputs()
        self.enforcement: Enforcement | None = None
        self.error = ""
        """Why the last run failed; "" when it did not."""

    def set_source(self, update: manifests.Update) -> None:
        """Replace what is known of the cluster, and kick."""
        self._replace(source=update)

    def set_sandboxes(
        self, sandboxes: tuple[endpoint.Sandbox, ...], problems: tuple[resources.Problem, ...] = ()
    ) -> None:
        """Replace what is known of this node's pods, and kick."""
        self._replace(sandboxes=sandboxes, sandbox_problems=problems)

    def kick(self) -> None:
        """Ask for a run; any number of kicks before it starts is one."""
        self._kicked.set()

    async def run(self) -> None:
        """Reconcile until cancelled; a run that has begun is finished first, as the kernel must not be left alone."""
        failures = 0
        with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="reconciler") as worker:
            while True:
                await self._wait(failures)
                if not self.inputs.synced:
                    continue
                succeeded = await self._once(worker, self.inputs)
                async with self._changed:
                    self._changed.notify_all()
                succeeded = succeeded and await self._settle(worker)
                failures = 0 if succeeded else failures + 1

    async def reached(self, revision: int) -> None:
        """Return when a run over inputs of `revision` or later has succeeded."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self.enforcement is not None and self.enforcement.inputs.revision >= revision
            )

    def _replace(self, **changes: object) -> None:
        self.inputs = dataclasses.replace(self.inputs, revision=self.inputs.revision + 1, **changes)  # type: ignore[arg-type]  # the two callers above
        self.kick()

    async def _wait(self, failures: int) -> None:
        """Return after a kick, or when a failed run is due again."""
        try:
            async with asyncio.timeout(retry_delay_s(failures, random.random()) if failures else None):  # noqa: S311 - jitter
                await self._kicked.wait()
        except TimeoutError:
            return
        await asyncio.sleep(MIN_INTERVAL_S)
        self._kicked.clear()

    async def _once(self, worker: concurrent.futures.Executor, inputs: Inputs) -> bool:
        loop = asyncio.get_running_loop()
        began = self._clock.monotonic_ns()
        try:
            enforcement, applied = await loop.run_in_executor(worker, self._compile_and_apply, inputs)
        except (errors.NodewallError, OSError) as error:
            self._fail("apply failed; the last policy stays in force", error)
            return False
        self._report(enforcement, applied, took_ms=(self._clock.monotonic_ns() - began) / 1e6)
        self.enforcement = enforcement
        self.error = ""
        return True

    async def _settle(self, worker: concurrent.futures.Executor) -> bool:
        """Let the datapath clean up, now that everybody knows what is enforced."""
        try:
            await asyncio.get_running_loop().run_in_executor(worker, self._datapath.settle)
        except (errors.NodewallError, OSError) as error:
            self._fail("cleaning up failed; the policy is in force", error)
            return False
        return True

    def _fail(self, what: str, error: Exception) -> None:
        if str(error) != self.error:
            self._log.error(what, error=str(error))
        self.error = str(error)

    def _compile_and_apply(self, inputs: Inputs) -> tuple[Enforcement, base.Applied]:
        """Run in the worker thread, on values that nothing changes."""
        assert inputs.source is not None  # noqa: S101 - the in-sync gate is in `run`
        assert inputs.sandboxes is not None  # noqa: S101 - likewise
        snapshot = inputs.source.snapshot
        view = dataclasses.replace(self._view, sandboxes=inputs.sandboxes)
        compiled = compiler.compile_node(snapshot, view)
        state = dataclasses.replace(compiled.state, revision=inputs.revision)
        for listener in self._listeners:
            listener.staged(state, snapshot)
        self._datapath.attach_links(inputs.sandboxes)
        applied = self._datapath.apply(state)
        for listener in self._listeners:
            listener.enforced(applied.generation, state, snapshot)
        enforcement = Enforcement(
            inputs=inputs,
            state=state,
            snapshot=snapshot,
            problems=tuple(dict.fromkeys((*snapshot.problems, *compiled.problems, *inputs.sandbox_problems))),
            generation=applied.generation,
            unix_ns=self._clock.unix_ns(),
        )
        return enforcement, applied

    def _report(self, new: Enforcement, applied: base.Applied, *, took_ms: float) -> None:
        """Write one line if something changed: rows, or problems of the input."""
        old = self.enforcement
        for problem in new.problems:
            if old is None or problem not in old.problems:
                where = f"{problem.ref}{' ' if problem.path else ''}{problem.path}"
                self._log.warning("input not honoured", object=where, reason=problem.reason)
        if applied.written or old is None or self.error:
            self._log.info(
                "policy enforced",
                revision=new.inputs.revision,
                generation=applied.generation,
                endpoints=len(new.state.endpoints),
                written=applied.written,
                took_ms=round(took_ms, 1),
            )


def retry_delay_s(failures: int, chance: float) -> float:
    """Return the seconds to wait after `failures` failed runs in a row; `chance` in 0..1 spreads it by JITTER."""
    delay = min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** min(failures - 1, 16))
    return delay * (1 + JITTER * (2 * chance - 1))
