"""Audit by command: through the command line, the socket, the reconciler and a datapath, and back."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib

import click.testing
import pytest

from agent import audits, clock, reconciler
from agent.cli import main
from agent.datapath import base, memory
from agent.model import audit, endpoint, verdict
from agent.observer import stream
from agent.rpc import agent_server, describe, service
from agent.rpc import audits as audits_rpc
from tests.support import agents


class Agent:
    """An agent that enforces `agents.cluster()` in memory, and answers on a socket."""

    def __init__(self, directory: pathlib.Path, *flags: audit.Target) -> None:
        """Keep its state in `directory`."""
        self.socket = directory / "agent.sock"
        self.datapath = memory.MemoryDatapath()
        given = audit.Audit(flags=frozenset(flags))
        self.ledger = audits.Ledger(file=directory / audits.FILE, given=given, clock=clock.SystemClock())

    def ask(self, *lines: str) -> list[click.testing.Result]:
        """Run agentctl with each of `lines` while the agent runs; it ends afterwards."""
        return asyncio.run(self._ask(lines))

    async def _ask(self, lines: tuple[str, ...]) -> list[click.testing.Result]:
        loop = reconciler.Reconciler(
            datapath=self.datapath,
            node="n1",
            deny_mode=endpoint.DenyMode.REJECT,
            hold_mode=endpoint.HoldMode.AUTO,
            clock=clock.SystemClock(),
            applied=lambda new, _: self.ledger.see(new),
            audit=self.ledger.setting,
        )
        described = describe.Description(
            node="n1",
            version="0",
            report=base.EngineReport(mode="memory"),
            deny_mode=endpoint.DenyMode.REJECT,
            hold_mode=endpoint.HoldMode.AUTO,
            source=lambda: "nowhere",
            started_unix_ns=1,
            loop=loop,
            counters=dict,
            audit=audits_rpc.Auditing(loop=loop, ledger=self.ledger),
        )
        running = asyncio.create_task(loop.run())
        loop.set_source(agents.update())
        loop.set_sandboxes(agents.SANDBOXES)
        await loop.reached(2)
        try:
            verdicts = stream.Stream(clock=clock.SystemClock())
            api = service.AgentService(node=described, stream=verdicts, kernel=agents.kernel(described, verdicts))
            async with agent_server.serving(api, self.socket):
                return [await asyncio.to_thread(self._run, line) for line in lines]
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    def _run(self, line: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(main.root, [*line.split(), "--socket", str(self.socket)])

    def says(self) -> verdict.Verdict:
        return self.datapath.judge(client=agents.CLIENT, server=agents.SERVER, protocol=6, port=80).verdict


def test_a_policy_goes_into_audit_and_out_again_and_that_is_shown(tmp_path: pathlib.Path) -> None:
    agent = Agent(tmp_path)
    enabled, listed, status, pods, policies = agent.ask(
        "audit enable --policy x/deny", "audit list", "status", "endpoint list", "policy list"
    )
    assert enabled.exit_code == 0
    assert enabled.output.endswith("policy x/deny is in audit: 1 policy denies nothing on this node\n")
    assert agent.says() is verdict.Verdict.AUDIT
    row = listed.output.splitlines()[-1].split()
    assert (row[:3], row[-2:]) == (["x", "deny", "command"], ["1", "0"])
    assert "AUDIT: policy x/deny by command; 2 endpoints" in status.output
    assert pods.output.count("AUDIT ingress: deny") == 2
    assert "AUDIT by command" in policies.output
    again = Agent(tmp_path)
    again.ask()
    assert again.says() is verdict.Verdict.AUDIT, "a restart keeps it"
    disabled, listed = again.ask("audit disable --policy x/deny", "audit list -o json")
    assert disabled.exit_code == 0
    assert disabled.output.endswith("policy x/deny is enforced\n")
    assert again.says() is verdict.Verdict.DROPPED
    assert '"audit": []' in listed.output


def test_what_a_flag_keeps_in_audit_stays_and_the_command_says_how_to_end_it(tmp_path: pathlib.Path) -> None:
    agent = Agent(tmp_path, audit.Target("x"))
    (disabled,) = agent.ask("audit disable --policy x/deny")
    assert disabled.exit_code == 1
    assert "stays in audit, by flag: start the agent without its flag" in disabled.output
    assert agent.says() is verdict.Verdict.AUDIT


@pytest.mark.parametrize("wrong", ["", "-n x/p", "--policy x", "-n X", "-n x --policy x/p", "--policy x/../p"])
def test_a_target_that_is_none_is_refused_before_anybody_is_asked(tmp_path: pathlib.Path, wrong: str) -> None:
    command = ["audit", "enable", *wrong.split(), "--socket", str(tmp_path / "none")]
    result = click.testing.CliRunner().invoke(main.root, command)
    assert result.exit_code == 2
    assert "is not valid" in result.output
