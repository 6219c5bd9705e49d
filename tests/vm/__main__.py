"""`python -m tests.vm [KERNEL...]`: run what needs other kernels on each of them, print a table, fail if one fails.

SCTP is the reason: the machine these tests are written on has no SCTP sockets, Debian's kernels do. Older kernels show
that the agent refuses them in words. What each guest said is kept in build/vm/KERNEL/.
"""

from __future__ import annotations

import compileall
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from tests.vm import report

JOBS = {"6.12": "enforce", "newest": "enforce", "6.1": "refuse", "5.10": "refuse"}
PLACE = pathlib.Path("build/vm")
LIMIT_S = {"enforce": 3600.0, "refuse": 900.0}
"""Emulated, on two busy cores; a guest that hangs is ended then."""
LOG_LINES = 40


def main(names: list[str]) -> int:
    """Run the named kernels, all by default, one after the other; return the exit status."""
    unknown = sorted(set(names) - set(JOBS))
    if unknown:
        sys.exit(f"test-vm: no kernel {', '.join(unknown)}: choose from {', '.join(JOBS)}")
    for folder in ("agent", "tests"):
        compileall.compile_dir(folder, quiet=2)  # the guest cannot write: it would compile them at every start
    begin = time.monotonic()
    wrong = [name for name in names or JOBS if not succeeded(name)]
    failed = f", failed on {', '.join(wrong)}" if wrong else ""
    print(f"test-vm: {time.monotonic() - begin:.0f} s{failed}")
    return 1 if wrong else 0


def succeeded(name: str) -> bool:
    """Run one kernel's job and print a line for each check."""
    directory = PLACE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    begin = time.monotonic()
    status = boot(name, directory)
    found = report.read(directory)
    problem = report.problem(found, status)
    seconds = time.monotonic() - begin
    print(f"{name} ({found.release if found else 'no answer'}): {JOBS[name]}, {seconds:.0f} s")
    for check in found.checks if found else ():
        print(f"  {check.name:14} {check.seconds:5.0f} s  {'FAILED ' if check.problem else ''}{check.found}")
    if problem:
        lines = (directory / "log").read_text(errors="replace").splitlines()
        print(
            "\n".join([*(f"  | {line}" for line in lines[-LOG_LINES:]), f"  {problem} (all of it in {directory}/log)"])
        )
    sys.stdout.flush()
    return not problem


def boot(name: str, directory: pathlib.Path) -> int:
    """Boot a kernel, have it do its job, and return its exit status; its output goes to the log."""
    command = ["scripts/vm", "run", name, ".venv/bin/python", "-m", "tests.vm.guest", JOBS[name], str(directory)]
    with (
        (directory / "log").open("wb") as log,
        # A pipe: virtme opens its standard output by name, and would truncate a file.
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        ) as child,
        subprocess.Popen(["cat"], stdin=child.stdout, stdout=log),
    ):
        try:
            return child.wait(LIMIT_S[JOBS[name]])
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return child.wait()
            raise


sys.exit(main(sys.argv[1:]))
