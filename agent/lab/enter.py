"""Becomes a process of a pod: its cgroup first, then its network namespace, then the command (standard library only).

A socket made before the process is in the cgroup would escape the socket hooks, so nothing is opened in between. The
mount namespace stays the caller's: files and programs are those of this machine.
"""

from __future__ import annotations

import os
import sys

from agent.lab import kernel

NOT_FOUND = 127
NOT_EXECUTABLE = 126
USAGE = 2


def main() -> None:
    """Take NETNS, CGROUP and the command from the command line; exit as a shell does if it cannot be run."""
    if len(sys.argv) < 4:  # noqa: PLR2004 - the three arguments
        sys.exit(USAGE)
    netns, cgroup, *command = sys.argv[1:]
    try:
        kernel.join_cgroup(cgroup)
        kernel.enter_network(netns)
        os.execvp(command[0], command)  # noqa: S606 - this is what it is for
    except FileNotFoundError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(NOT_FOUND)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(NOT_EXECUTABLE)


if __name__ == "__main__":
    main()
