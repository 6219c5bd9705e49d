"""`python -m tests.vm [--tables EXTENT] [--patience TIMES] [KERNEL...]`: run other kernels' jobs, print the outcome.

Kernels differ in what they can do; the machine these tests are written on has one, and it has no SCTP sockets. What
each guest said is kept in build/vm/KERNEL/, and build/vm/kernels.md is the table of all that ever ran, for README.
"""

from __future__ import annotations

import argparse
import compileall
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

from tests.vm import jobs, report, table

PLACE = pathlib.Path("build/vm")
TABLE = PLACE / "kernels.md"
LIMIT_S = {
    jobs.Extent.NONE: 3600.0,
    jobs.Extent.SCTP: 7200.0,
    jobs.Extent.SAMPLE: 7200.0,
    jobs.Extent.EACH: 4 * 3600.0,
    jobs.Extent.ALL: 24 * 3600.0,
}
"""Emulated, on two busy cores; a guest that hangs is ended then."""
LOG_LINES = 40
PATIENCE = 20
"""For emulated machines beside other work. Where denials are silent, tables wait for most of their time: 8 is enough
on processors that nobody else wants."""


def main() -> int:
    """Run the named kernels, all by default, one after the other; return the exit status."""
    parser = argparse.ArgumentParser(prog="make test-vm ARGS=...", description="run other kernels' jobs")
    parser.add_argument("kernels", metavar="KERNEL", nargs="*", help=f"of {', '.join(jobs.JOBS)}; all by default")
    extents = [extent.value for extent in jobs.Extent]
    parser.add_argument("--tables", choices=extents, default=jobs.Extent.SAMPLE.value, help="how many truth tables")
    parser.add_argument("--patience", type=int, default=PATIENCE, help="times that every time-out is multiplied by")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.kernels) - set(jobs.JOBS))
    if unknown:
        parser.error(f"no kernel {', '.join(unknown)}: choose from {', '.join(jobs.JOBS)}")
    for folder in ("agent", "tests"):
        compileall.compile_dir(folder, quiet=2)  # the guest cannot write: it would compile them at every start
    begin = time.monotonic()
    extent = jobs.Extent(arguments.tables)
    wrong = [name for name in arguments.kernels or jobs.JOBS if not succeeded(name, extent, arguments.patience)]
    reports = {name: report.read(PLACE / name) for name in jobs.JOBS}
    TABLE.write_text(table.markdown({name: one for name, one in reports.items() if one is not None}))
    failed = f", failed on {', '.join(wrong)}" if wrong else ""
    print(f"test-vm: {time.monotonic() - begin:.0f} s{failed}; {TABLE}")
    return 1 if wrong else 0


def succeeded(name: str, extent: jobs.Extent, patience: int) -> bool:
    """Run one kernel's job and print a line for each check."""
    directory = PLACE / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    begin = time.monotonic()
    status = boot(name, extent, directory, patience)
    found = report.read(directory)
    problem = report.problem(found, status)
    seconds = time.monotonic() - begin
    print(f"{name} ({found.release if found else 'no answer'}): {seconds:.0f} s")
    for line in report.lines(found) if found else ():
        print(f"  {line}")
    if problem:
        lines = (directory / "log").read_text(errors="replace").splitlines()
        print("\n".join(f"  | {line}" for line in lines[-LOG_LINES:]))
        print(f"  {problem} (all of it in {directory}/log)")
    sys.stdout.flush()
    return not problem


def boot(name: str, extent: jobs.Extent, directory: pathlib.Path, patience: int) -> int:
    """Boot a kernel, have it do its job, and return its exit status; its output goes to the log."""
    inside = [".venv/bin/python", "-m", "tests.vm.guest", name, extent.value, str(directory), str(patience)]
    with (
        (directory / "log").open("wb") as log,
        # A pipe: virtme opens its standard output by name, and would truncate a file.
        subprocess.Popen(
            ["scripts/vm", "run", name, *inside],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as child,
        subprocess.Popen(["cat"], stdin=child.stdout, stdout=log),
    ):
        try:
            return child.wait(LIMIT_S[extent])
        except BaseException as error:
            os.killpg(child.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return child.wait()
            raise


if __name__ == "__main__":
    sys.exit(main())
