"""`agentctl uninstall`: remove what an agent left in the kernel.

The daemon does it, as the only one who knows datapaths; here it is asked for, because it opens the node.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

import click

DIRECTORY = click.Path(path_type=pathlib.Path, file_okay=False)


@click.command()
@click.option("--node", required=True, metavar="NAME", help="The node's name in Kubernetes.")
@click.option("--state-dir", required=True, type=DIRECTORY, help="The agent's state directory.")
@click.option("--bpffs", type=DIRECTORY, help="bpffs that holds the pins; /sys/fs/bpf unless told.")
@click.option("--cgroup-root", type=DIRECTORY, help="The agent's cgroup root; the machine's unless told.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def uninstall(
    node: str, state_dir: pathlib.Path, bpffs: pathlib.Path | None, cgroup_root: pathlib.Path | None, *, yes: bool
) -> None:
    """Remove programs, maps, pins and rules of a node's agent; run it in the node's network namespace.

    After it nothing is enforced on the node. A running agent must be stopped first.
    """
    if not yes:
        click.confirm(f"No policy will be enforced on {node} any more. Go on?", abort=True, err=True)
    command = [sys.executable, "-m", "agent.daemon", "uninstall", "--node", node, "--state-dir", str(state_dir)]
    for flag, path in (("--bpffs", bpffs), ("--cgroup-root", cgroup_root)):
        if path is not None:
            command += [flag, str(path)]
    sys.exit(subprocess.run(command, check=False).returncode)
