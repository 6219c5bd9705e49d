"""What this machine lacks to run the cluster's tests as it is: `python -m tests.cluster.lacking`.

Prints one line and ends with 3 if anything has to be built, fetched or installed first, or if a cluster of the tests'
name is up already. Builds nothing and fetches nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from tests.cluster import cgroups, programs, settings

NAME = "nwct"
"""Of the tests' cluster: there is one on a machine."""
LACKING = 3


def reasons() -> Iterator[str]:
    """Yield why the tests cannot run here now."""
    if os.geteuid() != 0:
        yield "this is not root"
        return
    try:
        programs.require()
        programs.directories(build=False)
    except programs.Missing as missing:
        yield str(missing)
    image = subprocess.run(
        [programs.ROOT / "scripts" / "cluster-image", "--find"], check=False, capture_output=True, text=True
    )
    if image.returncode:
        yield (image.stderr.strip().splitlines() or ["scripts/cluster-image failed"])[-1]
    shape = settings.Shape(name=NAME)
    if any(cgroups.processes(f"{NAME}/{member.name}") for member in shape.members()):
        yield f"a cluster {NAME!r} is up already, perhaps another run's"


def main() -> int:
    """Say the first of them."""
    for reason in reasons():
        print(reason.removeprefix("nodewall: "))
        return LACKING
    return 0


if __name__ == "__main__":
    sys.exit(main())
