"""Runs inside another kernel: `python -m tests.vm.guest enforce|refuse DIRECTORY`.

`enforce`: this kernel has what the agent needs, and SCTP sockets besides. The demo's pods and every truth table that
names SCTP are run with real sockets, under real agents. `refuse`: this kernel lacks BPF netfilter programs; the agent
must say so in one line, say who has them, and leave nothing behind.
"""

from __future__ import annotations

import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from xml.etree import ElementTree as ET

from agent import patience
from tests.vm import report

MODULES = ("sctp", "br_netfilter", "bridge", "veth", "nf_tables", "nf_conntrack")
BPFFS = pathlib.Path("/sys/fs/bpf")
DEMO = "agent/lab/demo"
ENVIRONMENT = {**os.environ, patience.ENVIRONMENT: "10", "PYTHONDONTWRITEBYTECODE": "1"}
Found = tuple[str, str]
"""(problem, found), as in report.Check."""


def main(job: str, directory: pathlib.Path) -> int:
    """Do every check of a job, the later ones too when one fails; return the exit status."""
    jobs: dict[str, dict[str, Callable[[], Found]]] = {
        "enforce": {
            "SCTP sockets": has_sctp,
            "demo": demo,
            "tables": lambda: tables(directory),
        },
        "refuse": {"preflight": preflight, "agent": agent},
    }
    for module in MODULES:
        subprocess.run(["modprobe", module], check=False)
    if not os.path.ismount(BPFFS):
        subprocess.run(["mount", "-t", "bpf", "bpf", BPFFS], check=True)
    checks: list[report.Check] = []
    for name, check in jobs[job].items():
        begin = time.monotonic()
        problem, found = check()
        checks.append(report.Check(name=name, problem=problem, found=found, seconds=time.monotonic() - begin))
        finished = len(checks) == len(jobs[job])
        report.Report(release=os.uname().release, finished=finished, checks=checks).write(directory)
    return 1 if any(check.problem for check in checks) else 0


def has_sctp() -> Found:
    """Without them the lab would craft packets, and prove nothing that other machines do not."""
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_SCTP).close()
    except OSError as error:
        return str(error), ""
    return "", "there"


def demo() -> Found:
    """Every pair of the demo's pods, on every port, as the evaluator says."""
    done = run([".venv/bin/agentctl", "lab", "probe", "-f", DEMO])
    last = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]
    return (last if done.returncode else ""), last


def tables(directory: pathlib.Path) -> Found:
    """Every truth table that names SCTP, on a routed network and on a bridge."""
    results = directory / "tables.xml"
    plugins = ["-p", "no:cacheprovider", "-p", "no:hypothesispytest"]  # they write beside the tests
    command = [sys.executable, "-m", "pytest", *plugins, "-v", "--durations=0", f"--junitxml={results}"]
    command += ["-m", "root and sctp", "tests/system/test_cases_lab.py"]
    status = subprocess.run(command, env=ENVIRONMENT, check=False).returncode  # shown as it runs: it takes minutes
    if not results.exists():
        return f"pytest ended with {status}", ""
    return outcome(ET.parse(results).getroot(), status)  # noqa: S314 - written by pytest just now


def outcome(results: ET.Element, status: int) -> Found:
    """Count what pytest has written down; skipped tables are a problem, as is a run without any."""
    suites = list(results.iter("testsuite"))
    total, skipped, wrong = (
        sum(int(suite.get(name, "0")) for suite in suites for name in names)
        for names in (["tests"], ["skipped"], ["failures", "errors"])
    )
    found = f"{total - skipped - wrong} of {total} passed"
    return ("" if total and status == 0 and not skipped else f"{found}, pytest ended with {status}"), found


def preflight() -> Found:
    """`make demo` and `make test` stop here, before they build anything."""
    done = run(["scripts/preflight"])
    return refusal(done.returncode, done.stderr)


def agent() -> Found:
    """Start the agent all the same: it refuses."""
    with tempfile.TemporaryDirectory() as state:
        command = [".venv/bin/nodewall-agent", "--node", "node-a", "--source", DEMO, "--state-dir", state]
        done = run(command)
    problem, found = refusal(done.returncode, done.stderr)
    left = [path.name for path in BPFFS.iterdir()]
    return (problem or (f"it left {left} on bpffs" if left else "")), found


def refusal(status: int, stderr: str) -> Found:
    """Judge how a program refuses this kernel: exit status 1 and one line that says which kernel would do."""
    lines = stderr.strip().splitlines()
    said = lines[-1] if lines else ""
    if status != 1 or len(lines) != 1 or not re.search(r"netfilter.*Linux 6\.4", said):
        return f"exit status {status} and {len(lines)} lines, the last: {said!r}", said
    return "", said


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command of the project, and show what it says as well."""
    print(f"$ {' '.join(command)}", flush=True)
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    print(f"{done.stdout}{done.stderr}(exit status {done.returncode})", flush=True)
    return done


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], pathlib.Path(sys.argv[2])))
