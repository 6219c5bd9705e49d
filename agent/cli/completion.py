"""`agentctl completion`: what a shell needs to complete verbs and flags; click has it."""

from __future__ import annotations

import click
from click import shell_completion

VARIABLE = "_AGENTCTL_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script: `source <(agentctl completion bash)`."""
    kind = shell_completion.get_completion_class(shell)
    assert kind is not None  # noqa: S101 - the choices above are click's own
    made = kind(context.find_root().command, {}, "agentctl", VARIABLE)
    click.echo(made.source_template % made.source_vars())  # .source() would run bash to ask how old it is
