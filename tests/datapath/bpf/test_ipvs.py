"""Whether IPVS has a part in Service traffic."""

from __future__ import annotations

from agent.datapath.bpf import ipvs

EMPTY = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
"""
USED = f"""\
{EMPTY}TCP  0A600001:01BB rr
  -> 0AF40105:192B      Masq    1      0          0
UDP  [fd96:0000:0000:0000:0000:0000:0000:000a]:0035 rr
"""


def test_a_table_without_services_has_no_part() -> None:
    assert ipvs.told("") == ()
    assert ipvs.told(EMPTY) == ()


def test_services_of_ipvs_are_counted_and_what_does_not_hold_is_said() -> None:
    (line,) = ipvs.told(USED)
    assert line.startswith("2 Services")
