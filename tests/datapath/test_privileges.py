"""Capabilities, by name."""

from __future__ import annotations

import pytest

from agent.datapath import privileges


def status(effective: str) -> str:
    return f"Name:\tx\nCapInh:\t0\nCapEff:\t{effective}\n"


@pytest.mark.parametrize(
    ("effective", "missing"),
    [
        ("000001ffffffffff", ()),
        ("0000000000000000", ("CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF")),
        ("000000c000001000", ()),
        ("0000008000001000", ("CAP_PERFMON",)),
        ("0000000000200000", ("CAP_NET_ADMIN",)),
    ],
)
def test_what_is_missing_is_named_and_sys_admin_stands_for_bpf_and_perfmon(
    effective: str, missing: tuple[str, ...]
) -> None:
    assert privileges.missing(status(effective), privileges.BPF) == missing


def test_iptables_needs_no_capability_for_bpf() -> None:
    assert privileges.missing(status("0000000000003000"), privileges.IPTABLES) == ()
    assert privileges.missing(status("000000c000201000"), privileges.IPTABLES) == ("CAP_NET_RAW",)
