"""The loop that brings what is enforced into line with the inputs; the only caller of Datapath.apply.

Level-triggered: inputs replace the ones before them and kick; however many kicks, one run follows, and its result
depends on the inputs alone, not on how they came. Nothing is applied before every input has delivered its first whole
list (in-sync gate): a half-known cluster would cut off pods that are allowed. When a run fails, the last policy stays
in force, the error is published, and the run is repeated, later and later, or at once when an input changes.

What others do to the datapath's rules is undone every second, once something is enforced; what cannot be undone yet is
published, and tried again a second later.

One worker thread compiles, applies and repairs, so that neither a large cluster nor a slow kernel stops the event
loop, and a datapath needs no lock. This module must not know which datapath it drives or where inputs come from.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from agent import clock as clock_
from agent import desired as desired_
from agent import errors, logs
from agent import snapshot as snapshot_
from agent.datapath import base
from agent.fqdn import classes as name_classes
from agent.model import audit as audit_
from agent.model import endpoint, fqdn, net, resources
from agent.policy import audited as audited_
from agent.policy import compiler
from agent.services import resolvers
from agent.sources import manifests

BUSY_S = 0.020
"""Changes come in bursts: what comes so soon after a run waits for more to join it, and a lone change does not."""
MIN_INTERVAL_S = 0.001
"""After a kick in a burst: what else arrives within it joins the same run."""
RETRY_FIRST_S = 0.1
RETRY_MOST_S = 30.0
REPAIR_INTERVAL_S = 1.0
REPAIR_REST = 4.0
"""Looking for what to repair rests at least so many times as long as the last look took: where iptables is slow, its
lock and the processor are for others too."""
REPAIR_REST_MOST_S = 4.0
"""But no longer than this: a look may have waited for the lock."""
JITTER = 0.25
"""A retry comes up to this share earlier or later, so that the agents of a cluster do not march in step."""

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """The last whole list of each input; None until it has delivered one."""

    revision: int = 0
    """Counts every input that arrived."""
    source: manifests.Update | None = None
    sandboxes: tuple[endpoint.Sandbox, ...] | None = None
    sandbox_problems: tuple[resources.Problem, ...] = ()
    audit: audit_.Audit = audit_.NOTHING
    waiting_unix_ns: int = 0
    """Wall clock of the first change of the source that is not enforced yet, nanoseconds since 1970; 0: none is.

    What there was at the start is no change.
    """

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
    audited: audited_.Audited = audited_.NOTHING


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """What others did to the datapath's rules, as far as it was found."""

    count: int = 0
    """Things repaired since the start."""
    last: str = ""
    """What was repaired last; "" for nothing yet."""
    unix_ns: int = 0
    error: str = ""
    """Why the last attempt failed; "" when it did not."""


class Listener(Protocol):
    """Who is told what becomes of a state; called from the worker thread, must return at once."""

    def staged(self, state: desired_.DesiredState, snapshot: snapshot_.Snapshot) -> None:
        """`state` is about to be applied: events of a generation nobody knows yet are its."""

    def enforced(self, generation: int, state: desired_.DesiredState, snapshot: snapshot_.Snapshot) -> None:
        """`state` is enforced, as `generation`."""


class Memory(Protocol):
    """Who remembers what DNS told this node's pods; on the event loop."""

    async def replayed(self, classes: name_classes.Classes, new: frozenset[int]) -> fqdn.LearnedAddresses:
        """Return what the kernel would have learned for the classes `new`; it learns for them from now on."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """A state that the datapath has been told of and does not enforce yet."""

    inputs: Inputs
    compiled: compiler.Compiled
    state: desired_.DesiredState
    snapshot: snapshot_.Snapshot
    unheard: frozenset[int]
    """Classes of names that nothing has been learned for."""


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
        applied: Callable[[Enforcement, base.Applied], object] = lambda *_: None,
        audit: audit_.Audit = audit_.NOTHING,
        memory: Memory | None = None,
        learns_names: bool = False,
        filters_queries: bool = False,
        resolvers: frozenset[net.Address] = frozenset(),
    ) -> None:
        """Take the collaborators; nothing is applied before `run`.

        `applied` is called on the event loop after each run that succeeded, before `enforcement` shows it. DNS answers
        are believed from `resolvers` besides the cluster's own, where the datapath `learns_names`.
        """
        self._datapath = datapath
        self._view = endpoint.NodeView(
            name=node,
            deny_mode=deny_mode,
            hold_mode=hold_mode,
            learns_names=learns_names,
            filters_queries=filters_queries,
        )
        self._memory = memory
        self._resolvers = resolvers
        self._names = name_classes.Remembered()
        self._clock = clock
        self._listeners = tuple(listeners)
        self._applied = applied
        self._kicked = asyncio.Event()
        self._changed = asyncio.Condition()
        self._log = logs.logger("reconciler")
        self.inputs = Inputs(audit=audit)
        self.enforcement: Enforcement | None = None
        self.error = ""
        """Why the last run failed; "" when it did not."""
        self.repairs = Repairs()
        self.failures = 0
        """Runs that failed since the start."""
        self._ended_ns = 0
        """When the last run had ended, by the monotonic clock."""
        self._begun_ns: list[int] = []
        """When the worker was given each job it has not ended, nanoseconds of the monotonic clock."""

    @property
    def busy_ns(self) -> int:
        """Return for how many nanoseconds the worker has been at one job, or that has waited for it; 0: at none."""
        return self._clock.monotonic_ns() - min(self._begun_ns) if self._begun_ns else 0

    def set_source(self, update: manifests.Update) -> None:
        """Replace what is known of the cluster, and kick."""
        first = self.inputs.source is None
        waiting = 0 if first else self.inputs.waiting_unix_ns or update.changed_unix_ns
        self._replace(source=update, waiting_unix_ns=waiting)

    def set_sandboxes(
        self, sandboxes: tuple[endpoint.Sandbox, ...], problems: tuple[resources.Problem, ...] = ()
    ) -> None:
        """Replace what is known of this node's pods, and kick."""
        self._replace(sandboxes=sandboxes, sandbox_problems=problems)

    def set_audit(self, audit: audit_.Audit) -> int:
        """Replace what is in audit, and kick; return the revision that this is."""
        self._replace(audit=audit)
        return self.inputs.revision

    def kick(self) -> None:
        """Ask for a run; any number of kicks before it starts is one."""
        self._kicked.set()

    async def run(self) -> None:
        """Reconcile until cancelled; a run that has begun is finished first, as the kernel must not be left alone."""
        with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="reconciler") as worker:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._reconcile(worker), name="reconciling")
                group.create_task(self._repair(worker), name="repairing")

    async def reached(self, revision: int) -> None:
        """Return when a run over inputs of `revision` or later has succeeded."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self.enforcement is not None and self.enforcement.inputs.revision >= revision
            )

    async def _reconcile(self, worker: concurrent.futures.Executor) -> None:
        failures = 0
        while True:
            await self._wait(failures)
            if not self.inputs.synced:
                continue
            succeeded = await self._once(worker, self.inputs)
            async with self._changed:
                self._changed.notify_all()
            succeeded = succeeded and await self._settle(worker)
            self._ended_ns = self._clock.monotonic_ns()
            failures = 0 if succeeded else failures + 1

    async def _repair(self, worker: concurrent.futures.Executor) -> None:
        """Have the datapath undo what others did; a repair that fails leaves the next one to try again."""
        await self.reached(0)
        took_s = 0.0
        while True:
            await asyncio.sleep(rest_s(took_s))
            begun_ns = self._clock.monotonic_ns()
            try:
                repaired = await self._work(worker, self._datapath.repair)
            except (errors.NodewallError, OSError) as error:
                if str(error) != self.repairs.error:
                    self._log.error("repair failed", error=str(error))
                self.repairs = dataclasses.replace(self.repairs, error=str(error))
                continue
            finally:
                took_s = (self._clock.monotonic_ns() - begun_ns) / 1e9
            for what in repaired:
                self._log.warning("repaired what others changed", what=what)
            self._count(repaired)

    def _count(self, repaired: Sequence[str]) -> None:
        if repaired:
            count = self.repairs.count + len(repaired)
            self.repairs = Repairs(count=count, last=repaired[-1], unix_ns=self._clock.unix_ns())
        elif self.repairs.error:
            self.repairs = dataclasses.replace(self.repairs, error="")

    def _replace(self, **changes: object) -> None:
        self.inputs = dataclasses.replace(self.inputs, revision=self.inputs.revision + 1, **changes)  # type: ignore[arg-type]  # the three callers above
        self.kick()

    async def _wait(self, failures: int) -> None:
        """Return after a kick, or when a failed run is due again."""
        try:
            async with asyncio.timeout(retry_delay_s(failures, random.random()) if failures else None):  # noqa: S311 - jitter
                await self._kicked.wait()
        except TimeoutError:
            return
        if self._clock.monotonic_ns() - self._ended_ns < BUSY_S * 1e9:
            await asyncio.sleep(MIN_INTERVAL_S)
        self._kicked.clear()

    async def _once(self, worker: concurrent.futures.Executor, inputs: Inputs) -> bool:
        began = self._clock.monotonic_ns()
        try:
            enforcement, applied = await self._enforce(worker, inputs)
        except (errors.NodewallError, OSError) as error:
            self._fail("apply failed; the last policy stays in force", error)
            return False
        self._report(enforcement, applied, took_ms=(self._clock.monotonic_ns() - began) / 1e6)
        self._applied(enforcement, applied)
        self.enforcement = enforcement
        self.error = ""
        newer = self.inputs.source
        waiting = newer.changed_unix_ns if newer is not None and newer is not inputs.source else 0
        self.inputs = dataclasses.replace(self.inputs, waiting_unix_ns=waiting)
        return True

    async def _enforce(self, worker: concurrent.futures.Executor, inputs: Inputs) -> tuple[Enforcement, base.Applied]:
        """Have the worker compile and apply, and in between, where new names count, learn what pods know of them."""
        done = await self._work(worker, lambda: self._compile_and_apply(inputs))
        if not isinstance(done, _Prepared):
            return done
        prepared, learned = done, await self._remembered(done)
        return await self._work(worker, lambda: self._apply(prepared, learned))

    async def _remembered(self, prepared: _Prepared) -> fqdn.LearnedAddresses:
        assert self._memory is not None  # noqa: S101 - else nothing stops halfway
        return await self._memory.replayed(prepared.state.names, prepared.unheard)

    async def _work(self, worker: concurrent.futures.Executor, job: Callable[[], Result]) -> Result:
        """Have the worker do a job; it has one at a time, and one that waits counts as begun."""
        begun_ns = self._clock.monotonic_ns()
        self._begun_ns.append(begun_ns)
        try:
            return await asyncio.get_running_loop().run_in_executor(worker, job)
        finally:
            self._begun_ns.remove(begun_ns)

    async def _settle(self, worker: concurrent.futures.Executor) -> bool:
        """Let the datapath clean up, now that everybody knows what is enforced."""
        try:
            await self._work(worker, self._datapath.settle)
        except (errors.NodewallError, OSError) as error:
            self._fail("cleaning up failed; the policy is in force", error)
            return False
        return True

    def _fail(self, what: str, error: Exception) -> None:
        self.failures += 1
        if str(error) != self.error:
            self._log.error(what, error=str(error))
        self.error = str(error)

    def _compile_and_apply(self, inputs: Inputs) -> tuple[Enforcement, base.Applied] | _Prepared:
        """Run in the worker thread, on values that nothing changes; stop halfway where history has to be asked."""
        prepared = self._prepare(inputs)
        if prepared.unheard and self._memory is not None:
            return prepared
        return self._apply(prepared, {})

    def _prepare(self, inputs: Inputs) -> _Prepared:
        assert inputs.source is not None  # noqa: S101 - the in-sync gate is in `run`
        assert inputs.sandboxes is not None  # noqa: S101 - likewise
        snapshot = inputs.source.snapshot
        view = dataclasses.replace(self._view, sandboxes=inputs.sandboxes, audit=inputs.audit)
        compiled = compiler.compile_node(snapshot, view, self._names.build)
        trusted = resolvers.trusted(snapshot, self._resolvers) if self._view.learns_names else frozenset()
        state = dataclasses.replace(compiled.state, revision=inputs.revision, resolvers=trusted)
        for listener in self._listeners:
            listener.staged(state, snapshot)
        self._datapath.attach_links(inputs.sandboxes)
        unheard = self._datapath.learn_names(state)
        return _Prepared(inputs=inputs, compiled=compiled, state=state, snapshot=snapshot, unheard=unheard)

    def _apply(self, prepared: _Prepared, learned: fqdn.LearnedAddresses) -> tuple[Enforcement, base.Applied]:
        inputs, compiled, state, snapshot = prepared.inputs, prepared.compiled, prepared.state, prepared.snapshot
        self._datapath.replay(learned)
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
            audited=compiled.audited,
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


def rest_s(took_s: float) -> float:
    """Return how long to wait before the next look for what to repair, after one that took `took_s`."""
    return max(REPAIR_INTERVAL_S, min(REPAIR_REST_MOST_S, REPAIR_REST * took_s))


def retry_delay_s(failures: int, chance: float) -> float:
    """Return the seconds to wait after `failures` failed runs in a row; `chance` in 0..1 spreads it by JITTER."""
    delay = min(RETRY_MOST_S, RETRY_FIRST_S * 2.0 ** min(failures - 1, 16))
    return delay * (1 + JITTER * (2 * chance - 1))
