"""A datapath made of dictionaries: the reference for what the maps mean.

It keeps `base.Datapath`, makes a plan's steps one by one as the kernel datapath does, and judges flows
(`judge`) from the tables alone, exactly as `bpf/include/types.h` says the programs do. So a test can stop
after any step, and a compiler can be compared with the evaluator without a kernel. It must not look at the
DesiredState when judging: what is not in the tables does not exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from agent import desired as desired_
from agent import errors
from agent.datapath import base, lookups, plan, tracing, walk, words
from agent.datapath import judge as judge_
from agent.fqdn import classes
from agent.model import endpoint, net, verdict

Hook = judge_.Hook
Judgement = judge_.Judgement


class MemoryDatapath(base.Datapath):
    """Enforces nothing, remembers everything."""

    def __init__(self, tables: plan.Tables | None = None) -> None:
        """Start from `tables`, as an agent that adopts pinned maps does, or from empty ones."""
        self.tables = tables or plan.Tables()
        self._found_in = lookups.InTables(self.tables)
        self._classes = classes.Classes()
        self._answers: dict[tuple[int, net.Address], set[str]] = {}
        self._learned: lookups.Learned = {}

    def open(self) -> base.EngineReport:
        """Report the engine; there is nothing to probe."""
        return base.EngineReport(mode="memory")

    def apply(self, desired: desired_.DesiredState) -> base.Applied:
        """Plan from the present tables and make every step; raises MapFull before the first."""
        way = plan.plan(self.tables, desired)
        for step in way.steps:
            self.make(step)
        self._classes = desired.names
        self._index()
        flipped = len(self.tables.endpoints) if way.flipped else 0
        return base.Applied(generation=way.generation, written=way.written, flipped=flipped, seconds=0.0)

    def settle(self) -> None:
        """Do nothing: no program reads these tables while they are written."""

    def attach_links(self, sandboxes: Sequence[endpoint.Sandbox]) -> None:
        """Do nothing: there are no links, and the source check is not for this datapath."""

    def make(self, step: plan.Step) -> None:
        """Make one step of a plan; stopping after it is what a crash there leaves."""
        self.tables = plan.after(self.tables, step)

    def loaded(self) -> tracing.Loaded:
        """Look into the tables."""
        return _Loaded(self.tables, self._learned, self._classes)

    def close(self) -> None:
        """Do nothing: there is no descriptor to let go of, and the tables stay."""

    def uninstall(self) -> None:
        """Forget everything."""
        self.tables = plan.Tables()
        self._answers.clear()

    def learn(self, cookie: int, name: str, addresses: Iterable[net.Address]) -> None:
        """Remember that DNS gave a process in network namespace `cookie` these addresses for `name`; for ever."""
        number = self._found_in.endpoint_of_netns(cookie)
        for address in addresses:
            self._answers.setdefault((number, net.normalize(address)), set()).add(name)
        self._index()

    def judge(
        self, *, client: net.Address, server: net.Address, protocol: int, port: int, hook: Hook = Hook.FORWARD
    ) -> Judgement:
        """Judge a connection as the packet layer does; `protocol` is the IANA number, `port` the server's."""
        return self._judging().packet(judge_.Flow(client=client, server=server, protocol=protocol, port=port), hook)

    def judge_ends(
        self, *, client: net.Address, server: net.Address, protocol: int, port: int, hook: Hook = Hook.FORWARD
    ) -> tuple[Judgement, ...]:
        """Judge likewise, and return what each side says that has a say, egress first."""
        return self._judging().ends(judge_.Flow(client=client, server=server, protocol=protocol, port=port), hook)

    def judge_query(
        self, *, client: net.Address, server: net.Address, port: int, name: str, protocol: int = net.Protocol.UDP.value
    ) -> judge_.Asked:
        """Judge a DNS query for `name`, sent to `server` as it was dialled, as the program at the pod's veth does."""
        flow = judge_.Flow(client=client, server=server, protocol=protocol, port=port)
        return self._judging().query(flow, self._classes.of(name))

    def judge_connect(self, cookie: int, address: net.Address, protocol: int, port: int) -> Judgement:
        """Judge connect() or sendmsg() of a process in network namespace `cookie` as the socket layer does."""
        return self._judging().connect(cookie, net.normalize(address), protocol, port)

    def _judging(self) -> judge_.Judge:
        """Return the judge of the present tables; indexing prefixes is dear, so it is done once a change."""
        if self._found_in.tables is not self.tables:
            self._index()
        return judge_.Judge(self._found_in)

    def _index(self) -> None:
        """Index the tables, and what has been learned by the classes that count now."""
        self._learned = {
            place: tuple(sorted({number for name in names for number in self._classes.of(name)}))
            for place, names in self._answers.items()
        }
        self._found_in = lookups.InTables(self.tables, self._learned)


class _Loaded(tracing.Loaded):
    """Tables in place of a kernel."""

    def __init__(self, tables: plan.Tables, learned: lookups.Learned, names: classes.Classes) -> None:
        self._tables = tables
        self._learned = learned
        self._names = names

    @property
    def generation(self) -> int | None:
        return self._tables.generation

    def trace(self, question: tracing.Question, state: desired_.DesiredState) -> tuple[tracing.Layer, ...]:
        place = walk.InTables(self._tables, self._learned, self._names)
        return tuple(tracing.by_look_ups(place, question, state, frozenset(verdict.Layer)))

    def inventory(self) -> tracing.Inventory:
        return tracing.Inventory(
            tables=tuple(
                tracing.TableUse(
                    kind=tracing.Kind.MAP,
                    name=table.value,
                    type="dictionary",
                    entries=len(self._tables.content(table)),
                    capacity=plan.CAPACITY[table],
                )
                for table in plan.Table
            )
        )

    def rows(self, table: str, wanted: tracing.Wanted, state: desired_.DesiredState) -> Iterator[tracing.Row]:
        known = {each.value: each for each in plan.Table}
        if table not in known:
            raise errors.InvalidInput(field="MAP", value=table, remedy=f"name one of {', '.join(known)}")
        which, says = known[table], words.Words(state)
        for key, value in self._tables.content(which).items():
            if tracing.is_wanted(which, key, value, wanted):
                yield tracing.Row(says.key(which, key), says.entry(which, value))

    def close(self) -> None:
        """Do nothing."""
