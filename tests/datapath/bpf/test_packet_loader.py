"""A kernel without BPF netfilter programs is told from one that refuses for another reason."""

from __future__ import annotations

import errno
import os

import pytest

from agent import errors
from agent.datapath.bpf import packet_loader, syscalls


def _refusing(number: int) -> object:
    def refuse(_kind: int, _attach: int) -> int:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_kernel_that_does_not_know_netfilter_programs_is_told_which_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "load_accepting", _refusing(errno.EINVAL))
    with pytest.raises(errors.NotSupported, match=rf"{os.uname().release}.*Linux 6\.4") as caught:
        packet_loader.require_netfilter()
    assert "\n" not in str(caught.value)


def test_another_refusal_is_not_called_a_missing_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(syscalls, "load_accepting", _refusing(errno.EPERM))
    with pytest.raises(errors.DatapathError, match="netfilter program") as caught:
        packet_loader.require_netfilter()
    assert not isinstance(caught.value, errors.NotSupported)


@pytest.mark.root
def test_this_kernel_has_netfilter_programs() -> None:
    packet_loader.require_netfilter()


@pytest.mark.root
def test_a_program_type_no_kernel_has_is_refused_as_an_old_kernel_refuses_netfilter() -> None:
    with pytest.raises(OSError, match="Invalid argument") as caught:
        os.close(syscalls.load_accepting(250, int(syscalls.AttachType.NETFILTER)))
    assert caught.value.errno == errno.EINVAL
