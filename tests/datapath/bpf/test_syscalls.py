"""What the kernel refuses for no lasting reason is asked again, and nothing else."""

from __future__ import annotations

import errno

import pytest

from agent.datapath.bpf import syscalls


class Kernel:
    """Answers with the errnos given, then with success."""

    def __init__(self, *codes: int) -> None:
        """Refuse once for each of `codes`."""
        self._codes = list(codes)

    def call(self) -> str:
        if self._codes:
            raise OSError(self._codes.pop(0), "no")
        return "done"


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EBUSY, errno.EAGAIN])
def test_spurious_answers_are_retried(code: int) -> None:
    assert syscalls.patiently(Kernel(code, code, code).call) == "done"


def test_patience_ends() -> None:
    with pytest.raises(OSError, match="no"):
        syscalls.patiently(Kernel(*[errno.ENOMEM] * syscalls.ATTEMPTS).call)


def test_a_lasting_refusal_is_not_retried() -> None:
    kernel = Kernel(errno.EPERM)
    with pytest.raises(PermissionError):
        syscalls.patiently(kernel.call)
    assert kernel.call() == "done"
