"""`agentctl lab demo`: a cluster on this machine, closed and opened policy by policy, every connection real.

Each step applies its policies, dials every pair, and shows what came of it beside what the policies say, with the
verdicts that explain the denials. At the end there is a prompt to try things, unless there is no terminal. The lab is
taken down whatever happens.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence

import click
from rich import console as rich_console
from rich import table as rich_table
from rich import text as rich_text

from agent import errors
from agent.cli import lab as lab_verbs
from agent.cli import output
from agent.lab import demo, exchange, lab, plan
from agent.model import labels, resources, verdict
from agent.policy import evaluator

TIMEOUT_S = 0.6
RETRY_TIMEOUT_S = 3.0
VERDICTS_SHOWN = 8
VERDICTS_KEPT = 20
PIPE_WIDTH = 110
HELP = """  probe                     dial every pair again
  connect FROM TO PORT      one connection, e.g. connect shop/intruder shop/backend 8080
  run PARTY COMMAND...      a command inside a pod, e.g. run shop/frontend ip addr
  policies                  what is in force
  delete POLICY, add POLICY take a policy away, put it back, e.g. delete shop/default-deny
  verdicts                  the last verdicts of all nodes
  quit                      take everything down"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One pair: what the policies say and what happened."""

    result: exchange.ProbeResult
    expected: bool

    @property
    def agrees(self) -> bool:
        """Model and measurement say the same."""
        return self.result.allowed is self.expected


class Demo:
    """One run; `console` is where people look."""

    def __init__(self, each: lab.Lab, console: rich_console.Console) -> None:
        """Nothing is built yet."""
        self._lab = each
        self._console = console
        self._scenario = demo.scenario()
        self._policies: list[demo.Document] = []
        self._removed: dict[str, demo.Document] = {}
        self.disagreements = 0

    def play(self) -> None:
        """Build the cluster and go through the steps."""
        begin = time.monotonic()
        with self._console.status("building a cluster of network namespaces"):
            self._lab.up(list(self._scenario.cluster))
        built = self._lab.plan
        self._console.print(
            f"{len(built.nodes)} nodes, {len(built.pods)} pods, {len(built.hosts)} machine outside: "
            f"up in {time.monotonic() - begin:.1f} s, one nodewall-agent a node"
        )
        for mode in dict.fromkeys(str(node.get("mode", "none")) for node in self._lab.status()["nodes"]):
            self._console.print(f"engine {mode}: {_denials(mode)}\n", style="dim", markup=False)
        for number, step in enumerate(self._scenario.steps):
            self._step(number, step)

    def _step(self, number: int, step: demo.Step) -> None:
        self._console.rule(f"[bold]{number}. {step.title}", align="left", style="dim")
        self._console.print(step.text, style="italic")
        for policy in step.policies:
            self._console.print(f"  + NetworkPolicy {_name_of(policy)}", style="cyan")
        self._policies += step.policies
        begin = time.monotonic()
        self._apply()
        if step.policies:
            took = (time.monotonic() - begin) * 1000
            self._console.print(f"  enforced on {len(self._lab.plan.nodes)} nodes after {took:.0f} ms", style="dim")
        self.probe()

    def probe(self) -> None:
        """Dial every pair, show the table and the verdicts of this very round."""
        since_ns = time.time_ns()
        measured = self._measure(self._requests(), TIMEOUT_S)
        doubtful = [one.result.request for one in measured if not one.agrees]
        if doubtful:
            again = {one.result.request: one for one in self._measure(doubtful, RETRY_TIMEOUT_S)}
            measured = [again.get(one.result.request, one) for one in measured]
        wrong = [one for one in measured if not one.agrees]
        self.disagreements += len(wrong)
        self._console.print(_table(measured))
        if wrong:
            self._console.print(f"  {len(wrong)} pairs disagree with the policies", style="bold red")
        self._show_verdicts(since_ns)

    def _requests(self) -> list[exchange.ProbeRequest]:
        built = self._lab.plan
        parties = [*built.hosts, *built.pods]
        direct = [
            exchange.ProbeRequest(source=source, destination=pod.party, port=port, protocol=protocol)
            for source in parties
            for pod in built.pods.values()
            for port, protocol in pod.ports
            if source != pod.party
        ]
        services = [
            exchange.ProbeRequest(source=source, destination=_SERVICE + service.name, port=port.port, address=address)
            for source in built.pods
            for service in built.snapshot.services.values()
            for port in service.ports
            for address in service.cluster_addresses
            if source not in _backends(built, service)
        ]
        return direct + services

    def _measure(self, requests: Sequence[exchange.ProbeRequest], timeout_s: float) -> list[Measured]:
        results = self._lab.probe(requests, timeout_s)
        return [Measured(result=result, expected=self._expected(result.request)) for result in results]

    def _expected(self, request: exchange.ProbeRequest) -> bool:
        built = self._lab.plan
        destinations, port, through = [request.destination], request.port, False
        if request.destination.startswith(_SERVICE):
            service = next(s for s in built.snapshot.services.values() if _SERVICE + s.name == request.destination)
            destinations, through = _backends(built, service), True
            port = built.pods[destinations[0]].ports[0][0]
        return any(self._decide(request, to, port, through=through).allowed for to in destinations)

    def _decide(
        self, request: exchange.ProbeRequest, destination: str, port: int, *, through: bool
    ) -> evaluator.Decision:
        built = self._lab.plan
        flow = evaluator.Flow(
            source=_party(built, request.source),
            destination=_party(built, destination),
            source_address=built.addresses(request.source)[0],
            destination_address=built.addresses(destination)[0],
            protocol=request.protocol,
            port=port,
            via_service=through,
        )
        return evaluator.evaluate(built.snapshot, flow)

    def _show_verdicts(self, since_ns: int) -> None:
        found = [event for event in self._events() if event.time_ns >= since_ns]
        allowed = {event.rule: event for event in found if event.rule is not None}
        denied = [event for event in found if event.verdict is verdict.Verdict.DROPPED]
        reasons = {(event.direction, event.layer, event.isolating): event for event in denied}
        shown = [*allowed.values(), *reasons.values()][:VERDICTS_SHOWN]
        self._console.print(_verdicts(shown))
        if len(found) > len(shown):
            self._console.print(f"  one verdict a reason; {len(found)} in all", style="dim")
        self._console.print()

    def _events(self) -> list[verdict.VerdictEvent]:
        from agent.rpc import client  # noqa: PLC0415 - gRPC takes 0.2 s to load, which the build hides

        time.sleep(0.1)  # the stream is asynchronous: let the last events through
        events: list[verdict.VerdictEvent] = []
        for node in self._lab.plan.nodes:
            with client.AgentClient(self._lab.paths.agent_socket(node)) as agent:
                stored = agent.watch_verdicts(follow=False)
                events += [item for item in stored if isinstance(item, verdict.VerdictEvent)]
        return sorted(events, key=lambda event: event.time_ns)

    def _apply(self) -> None:
        self._lab.apply([*self._scenario.cluster, *self._policies])

    def prompt(self) -> None:
        """Take commands until the person has seen enough."""
        self._console.print("[bold]Your turn.[/bold] `help` lists what you can do, `quit` ends.")
        while True:
            try:
                words = shlex.split(self._console.input("[bold green]demo>[/bold green] "))
            except (EOFError, KeyboardInterrupt):
                return
            except ValueError as error:
                self._console.print(f"  {error}", style="red")
                continue
            if words[:1] in (["quit"], ["exit"]):
                return
            if words:
                self._obey(words)

    def _obey(self, words: list[str]) -> None:
        try:
            if not self._look(words) and not self._change(words):
                self._console.print("  not a command; `help` lists them", style="red")
        except errors.NodewallError as error:
            self._console.print(f"  {output.escape(str(error))}", style="red", markup=False)

    def _look(self, words: list[str]) -> bool:
        """Obey a command that changes nothing; tell whether it was one."""
        match words:
            case ["help"]:
                self._console.print(HELP, markup=False)
            case ["policies"]:
                for policy in self._policies:
                    self._console.print(f"  NetworkPolicy {_name_of(policy)}", markup=False)
            case ["verdicts"]:
                self._console.print(_verdicts(self._events()[-VERDICTS_KEPT:]))
            case _:
                return False
        return True

    def _change(self, words: list[str]) -> bool:
        """Obey a command that sends traffic or changes policies; tell whether it was one."""
        match words:
            case ["probe"]:
                self.probe()
            case ["connect", source, destination, port] if port.isdecimal():
                request = exchange.ProbeRequest(source=source, destination=destination, port=int(port))
                self._console.print(_table(self._measure([request], RETRY_TIMEOUT_S)))
            case ["run", party, *command] if command:
                self._lab.exec(party, command)
            case ["delete", name]:
                self._delete(name)
            case ["add", name]:
                self._add(name)
            case _:
                return False
        return True

    def _delete(self, name: str) -> None:
        policy = next((policy for policy in self._policies if _name_of(policy) == name), None)
        if policy is None:
            raise errors.InvalidInput(field="policy", value=name, remedy="`policies` lists those in force")
        self._policies.remove(policy)
        self._removed[name] = policy
        self._apply()

    def _add(self, name: str) -> None:
        if name not in self._removed:
            remedy = f"deleted ones are {', '.join(self._removed) or 'none'}"
            raise errors.InvalidInput(field="policy", value=name, remedy=remedy)
        self._policies.append(self._removed.pop(name))
        self._apply()


_SERVICE = "Service "


def _denials(mode: str) -> str:
    """Say what a denied connection sees under an engine."""
    sockets, iptables = mode.startswith("socket+"), "iptables" in mode
    near = "what a pod's own policy denies fails in connect() with EACCES (EPERM before Linux 5.18)" if sockets else ""
    turned_away = "is reset by the node (ECONNREFUSED)" if iptables else "is dropped (time-out)"
    far = f"what {'the other side' if sockets else 'either side'} denies {turned_away}"
    return "; ".join(filter(None, (near, far)))


def _name_of(policy: demo.Document) -> str:
    return f"{policy['metadata']['namespace']}/{policy['metadata']['name']}"


def _party(built: plan.LabPlan, party: str) -> evaluator.Party:
    kind, _, name = party.partition("/")
    if kind == "host":
        return built.snapshot.hosts[name]
    return built.snapshot.pods[kind, name]


def _backends(built: plan.LabPlan, service: resources.Service) -> list[str]:
    wanted = service.selector or labels.NO_LABELS
    pods = [pod for pod in built.snapshot.pods.values() if pod.namespace == service.namespace]
    return [f"{pod.namespace}/{pod.name}" for pod in pods if wanted.items() <= pod.labels.items()]


def _table(measured: Sequence[Measured]) -> rich_table.Table:
    """Draw sources down and destinations across; a cell says what happened, and in how many milliseconds."""
    columns = list(dict.fromkeys(_column(one.result.request) for one in measured))
    drawn = rich_table.Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    drawn.add_column("from / to, ms", no_wrap=True)
    for column in columns:
        drawn.add_column(output.escape(column[0]) + f"\n{column[1]}/TCP", no_wrap=True)
    cells = {(one.result.request.source, _column(one.result.request)): one for one in measured}
    for source in dict.fromkeys(one.result.request.source for one in measured):
        drawn.add_row(output.escape(source), *(_cell(cells.get((source, column))) for column in columns))
    return drawn


def _column(request: exchange.ProbeRequest) -> tuple[str, int]:
    return request.destination, request.port


def _cell(one: Measured | None) -> rich_text.Text:
    if one is None:
        return rich_text.Text("·", style="dim")
    doubt = "" if one.agrees else " ≠ policy"
    took = f"{one.result.milliseconds:.2f}"
    if one.result.allowed:
        return rich_text.Text(f"✓ {took}{doubt}", style="green")
    name = "time-out" if one.result.error == "ETIMEDOUT" else f"{one.result.error} {took}"
    return rich_text.Text(f"✗ {name}{doubt}", style="red")


def _end(end: verdict.FlowEnd) -> str:
    if end.pod:
        return f"{end.namespace}/{end.pod}"
    return f"{end.owner}" if end.owner else str(end.address)


def _verdicts(events: Sequence[verdict.VerdictEvent]) -> rich_table.Table:
    """Write verdicts as lines: who, whom, by which policy, where."""
    drawn = rich_table.Table.grid(padding=(0, 2, 0, 0))
    for event in events:
        by = str(event.rule) if event.rule else ", ".join(map(str, event.isolating)) or event.reason.name.lower()
        how = "by" if event.rule else "isolated by" if event.isolating else "because"
        where = f"{event.process.command}[{event.process.pid}]" if event.process else event.layer.name.lower()
        style = "red" if event.verdict is verdict.Verdict.DROPPED else "green"
        flow = f"{_end(event.source)} → {_end(event.destination)}:{event.destination.port}"
        drawn.add_row(
            rich_text.Text(f"  {event.verdict.name} {event.direction.name.lower()}", style=style),
            rich_text.Text(output.escape(flow)),
            rich_text.Text(output.escape(f"{how} {by.replace('NetworkPolicy ', '')}"), style="dim"),
            rich_text.Text(output.escape(where), style="dim"),
        )
    return drawn


@click.command("demo")
@click.option("--no-input", is_flag=True, help="End after the last step instead of asking for commands.")
@click.option("--name", default="demo", show_default=True, help="Name of the lab, where several run.")
@lab_verbs.engine_options
def command(*, no_input: bool, name: str, engine: str, iptables: str) -> None:
    """Show it all on this machine: a cluster closed and opened again, policy by policy, on live connections."""
    console = rich_console.Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    try:
        with lab.Lab(name=name, engine=engine, iptables=iptables) as each:
            show = Demo(each, console)
            show.play()
            if not no_input and sys.stdin.isatty() and sys.stdout.isatty():
                show.prompt()
        console.print("taken down: nothing is left behind", style="dim")
    except errors.NodewallError as error:
        raise output.failure(error) from error
    if show.disagreements:
        sys.exit(output.ExitCode.DISAGREEMENT)
