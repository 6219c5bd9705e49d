"""`agentctl`: the verbs, each imported when it is called, so that help and completion come at once."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import click
from click import shell_completion

from agent import errors
from agent.cli import exits

VERBS: Mapping[str, tuple[str, str]] = {
    "status": ("agent.cli.status:status", "What the agent enforces, and what is wrong."),
    "endpoint": ("agent.cli.endpoint:endpoint", "Pods of this node that policy is enforced on."),
    "ip": ("agent.cli.ip:ip", "Who an address is, and which policies speak of it."),
    "identity": ("agent.cli.identity:identity", "Identities and the facts they stand for."),
    "policy": ("agent.cli.policy_list:policy", "What network policies mean, offline and in force."),
    "fqdn": ("agent.cli.fqdn:fqdn", "Names of policies, and the addresses that DNS gave pods for them."),
    "service": ("agent.cli.service:service", "Services, what is behind them, and what of it is allowed."),
    "audit": ("agent.cli.audit:audit", "Policies that deny nothing and tell what they would deny."),
    "observe": ("agent.cli.observe:observe", "Verdicts, with the policy that caused each."),
    # What recorded verdicts tell of other policies.
    "simulate": ("agent.cli.simulate:simulate", "What other policies would do to the flows that were seen."),
    "advise": ("agent.cli.advise:advise", "The least policies that let pass what was seen."),
    "graph": ("agent.cli.graph:graph", "Who may talk to whom, and who did: terminal, SVG, HTML."),
    "trace": ("agent.cli.trace:trace", "One flow by the policies, and by what the kernel holds."),
    "bpf": ("agent.cli.bpf:bpf", "Programs and maps in the kernel."),
    "ipt": ("agent.cli.ipt:ipt", "Chains, rules and sets of the iptables engine."),
    "lab": ("agent.cli.lab:lab", "Pods, nodes and services as network namespaces on this machine."),
    "uninstall": ("agent.cli.uninstall:uninstall", "Remove what an agent left in the kernel."),
    "config": ("agent.cli.config:config", "What the running agent was told; its log level."),
    "metrics": ("agent.cli.metrics:metrics", "The agent's metrics, without its TCP port."),
    "bugtool": ("agent.cli.bugtool:bugtool", "Collect what a report of a bug needs, and no secret."),
    "version": ("agent.cli.version:version", "Versions of agentctl and of the agent."),
    "completion": ("agent.cli.completion:completion", "Completion for bash, zsh or fish."),
}
"""Verb -> where its command is, and its line of help (so that help imports none of them)."""


class LazyGroup(click.Group):
    """A group that knows its commands by name only; errors of the agent become one line on stderr."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the verbs in the order people meet them."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import a verb."""
        if cmd_name not in VERBS:
            return None
        module, _, name = VERBS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)  # noqa: S101 - VERBS is ours
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[shell_completion.CompletionItem]:
        """Complete verbs without importing them."""
        found = [
            shell_completion.CompletionItem(verb, help=text)
            for verb, (_, text) in VERBS.items()
            if verb.startswith(incomplete)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        """Write the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; raises exits.Failure for a NodewallError."""
        try:
            return super().invoke(ctx)
        except errors.NodewallError as error:
            raise exits.failure(error) from error


EXIT_CODES = "\b\nExit codes:\n" + "\n".join(f"  {code.value}  {text}" for code, text in exits.MEANINGS.items())


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]}, epilog=EXIT_CODES)
@click.pass_context
def root(context: click.Context) -> None:
    """Ask a node's agent, or work out offline what network policies mean.

    Verbs that ask an agent find its socket by --socket, --state-dir, --lab and --node, or $NODEWALL_SOCKET; without
    any of them they take the only agent of this machine.
    """
    if os.environ.get("NO_COLOR"):
        context.color = False


def main() -> None:
    """Run agentctl; exits with a code of `exits.ExitCode`."""
    root(prog_name="agentctl")
