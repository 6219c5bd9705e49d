"""Kubernetes' own suite of policy tests, run against a cluster, and what its report says.

The 47 specs of `[sig-network] Netpol` that need no SCTP. Each makes namespaces of its own, so several run at a time.
Its probe takes any failure to connect for a denial; what it cannot tell apart is asked by the truth tables.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from tests.cluster import bed, cgroups, fabric, programs

EVERY = r"\[sig-network\] Netpol"
WITHOUT = "Feature:SCTPConnectivity"
SPECS = 47
PARALLEL = 4
LIMIT_S = 3 * 3600
TCP = "NetworkPolicy between server and client "
UDP = "NetworkPolicy between server and client using UDP "
TEN = (
    f"{TCP}should support a 'default-deny-all' policy",
    f"{TCP}should enforce policy to allow traffic only from a pod in a different namespace",
    f"{TCP}should enforce policy based on Ports",
    f"{TCP}should allow ingress access from namespace on one named port",
    f"{TCP}should enforce updated policy",
    f"{TCP}should allow ingress access from updated namespace",
    f"{TCP}should deny ingress access to updated pod",
    f"{TCP}should support denying of egress traffic on the client side",
    f"{TCP}should ensure an IP overlapping both IPBlock.CIDR and IPBlock.Except is allowed",
    f"{UDP}should enforce policy based on Ports",
)
"""One of each kind: default, peers, ports, names, changes of policy and labels, both sides, blocks, UDP."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a run."""

    passed: tuple[str, ...]
    failed: tuple[str, ...]
    minutes: float

    def __str__(self) -> str:
        """One line."""
        return f"{len(self.passed)} passed, {len(self.failed)} failed, {self.minutes:.1f} minutes"


def focus(names: Sequence[str] = TEN) -> str:
    """Return the regular expression, as Go has it, for specs by the beginnings of their names."""
    return "|".join(names)


def run(cluster: bed.Bed, *, focus: str, directory: pathlib.Path) -> Report:
    """Run the specs that the focus matches; what the suite prints goes to `e2e.log`. Raises FileNotFoundError.

    Missing, where the suite is not built; TimeoutExpired after three hours.
    """
    ginkgo, suite = (programs.suite(name) for name in ("ginkgo", "e2e.test"))
    report = directory / "e2e.json"
    command = [str(ginkgo), "--no-color", f"--procs={PARALLEL}", f"--focus={focus}", f"--skip={WITHOUT}"]
    command += [f"--timeout={LIMIT_S}s", f"--json-report={report.name}", f"--output-dir={directory}", str(suite), "--"]
    command += [f"--kubeconfig={cluster.shape.kubeconfig}", "--provider=skeleton", "--num-nodes=3"]
    command += ["--disable-log-dump", "--dump-logs-on-failure=false", "--prepull-images=false"]
    # In the control plane's group, so that what it started ends with the cluster at the latest.
    joined = cgroups.inside(f"{cluster.shape.name}/{fabric.CONTROL}", cluster.entering(fabric.CONTROL) + command)
    with (directory / "e2e.log").open("wb") as log:
        subprocess.run(joined, check=False, cwd=directory, stdout=log, stderr=log, timeout=LIMIT_S)
    return read(report)


def read(path: pathlib.Path) -> Report:
    """Return what ginkgo's JSON report says; a spec that panicked, timed out or was interrupted has failed."""
    suites: list[dict[str, Any]] = json.loads(path.read_text())
    states = {name: state for suite in suites for name, state in _specs(suite)}
    return Report(
        passed=tuple(sorted(name for name, state in states.items() if state == "passed")),
        failed=tuple(sorted(name for name, state in states.items() if state != "passed")),
        minutes=sum(suite["RunTime"] for suite in suites) / 60e9,
    )


def _specs(suite: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for spec in suite["SpecReports"] or ():
        ran = spec["State"] not in {"skipped", "pending"}
        # A node that is no spec of its own, the suite's own set-up, counts only where it failed.
        if ran and (spec["LeafNodeType"] == "It" or spec["State"] != "passed"):
            words = [*(spec["ContainerHierarchyTexts"] or ()), spec["LeafNodeText"] or spec["LeafNodeType"]]
            yield " ".join(words), spec["State"]


if __name__ == "__main__":
    # What a run that a test started has left: python -m tests.cluster.upstream build/cluster/NAME/e2e.json
    found = read(pathlib.Path(sys.argv[1]))
    print(found, *found.failed, sep="\n")
