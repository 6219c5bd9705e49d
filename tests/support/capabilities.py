"""Processes of uid 0 that may do no more than is listed, as containers are."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable

DAEMONSET = ("bpf", "perfmon", "net_admin")
"""What daemonset/base gives the agent, by the names that setpriv(1) knows."""
IPTABLES = (*DAEMONSET, "net_raw")
"""What daemonset/components/iptables adds."""
UNPRIVILEGED_BPF = pathlib.Path("/proc/sys/kernel/unprivileged_bpf_disabled")


def only(names: Iterable[str]) -> list[str]:
    """Return the words to put before a command, which then has these capabilities and cannot gain others."""
    listed = ",".join(["-all", *(f"+{name}" for name in names)])
    return ["setpriv", "--no-new-privs", "--bounding-set", listed, "--inh-caps", listed]
