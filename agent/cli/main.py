"""`agentctl`: the verbs, each imported when it is called, so that help and completion come at once."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from agent import errors
from agent.cli import output

VERBS: Mapping[str, tuple[str, str]] = {
    "status": ("agent.cli.status:status", "What the agent enforces, and what is wrong."),
    "endpoint": ("agent.cli.endpoint:endpoint", "Pods of this node that policy is enforced on."),
    "identity": ("agent.cli.identity:identity", "Identities and the facts they stand for."),
    "policy": ("agent.cli.policy_list:policy", "What network policies mean, offline and in force."),
    "observe": ("agent.cli.observe:observe", "Verdicts, with the policy that caused each."),
    "lab": ("agent.cli.lab:lab", "Pods, nodes and services as network namespaces on this machine."),
    "uninstall": ("agent.cli.uninstall:uninstall", "Remove what an agent left in the kernel."),
    "version": ("agent.cli.status:version", "Version of agentctl."),
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

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - likewise
        """Write the verbs without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; raises output.Failure for a NodewallError."""
        try:
            return super().invoke(ctx)
        except errors.NodewallError as error:
            raise output.failure(error) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
def root() -> None:
    """Ask a node's agent, or work out offline what network policies mean.

    Verbs that ask an agent find its socket by --socket, --state-dir, --lab and --node, or $NODEWALL_SOCKET; without
    any of them they take the only agent of this machine.
    """


def main() -> None:
    """Run agentctl; exits with 0, 1 for a failure, 2 for wrong input, 3 where two answers disagree."""
    root(prog_name="agentctl")
