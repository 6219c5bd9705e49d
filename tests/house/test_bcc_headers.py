"""BCC compiles against the generated tree, whatever headers the running kernel has or lacks.

BCC writes to the standard error of its process and may abort it, so each compilation has a process of its own.
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
HEADERS = ROOT / "build" / "bcc-headers"
ENTRY = """
#include <linux/bpf.h>
#include <linux/in.h>
#include <linux/types.h>

int entry(struct bpf_sock_addr *ctx)
{
    _Static_assert(sizeof(u64) == 8 && sizeof(__be32) == 4, "short names");
    return ctx->protocol == IPPROTO_TCP ? 1 : 0;
}
"""
COMPILE = "import sys, bcc; bcc.BPF(text=sys.stdin.read().encode())"
LOAD = """
import sys, bcc
unit = bcc.BPF(text=sys.stdin.read().encode())
print(unit.load_func(b"entry", bcc.BPF.CGROUP_SOCK_ADDR, attach_type=bcc.BPFAttachType.CGROUP_INET4_CONNECT).fd)
"""


def run(script: str, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", script],
        input=program,
        capture_output=True,
        text=True,
        env=os.environ | {"BCC_KERNEL_SOURCE": str(HEADERS)},
        timeout=60,
        check=False,
    )


def test_a_program_of_the_user_api_compiles_without_kernel_headers() -> None:
    outcome = run(COMPILE, ENTRY)
    assert outcome.returncode == 0, outcome.stderr
    assert "warning" not in outcome.stderr


def test_a_program_that_reaches_into_the_kernel_does_not_compile() -> None:
    outcome = run(COMPILE, "#include <linux/sched.h>\nint entry(void *ctx) { struct task_struct task; return 0; }")
    assert outcome.returncode != 0
    assert "task_struct" in outcome.stderr


@pytest.mark.root
def test_the_kernel_accepts_what_was_compiled() -> None:
    outcome = run(LOAD, ENTRY)
    assert outcome.returncode == 0, outcome.stderr
    assert int(outcome.stdout) > 0
