"""Whether traffic between pods on one bridge passes the packet layer here.

The problem: a bridge hands frames from port to port, and netfilter's IP hooks see them only with
br_netfilter switched on. The agent cannot switch it (a container may not write sysctls); what it can do
is never to claim more than holds. The rule: ask each interface of this network namespace for its driver,
since sysfs may show another namespace's, and read the two switches.
"""

from __future__ import annotations

import array
import errno
import fcntl
import pathlib
import socket
import struct
from collections.abc import Mapping

from agent.model import net

SIOCETHTOOL = 0x8946
ETHTOOL_GDRVINFO = 3
DRVINFO_BYTES = 196
"""struct ethtool_drvinfo: u32 command, then 32 bytes of driver name."""
SWITCHES: Mapping[net.Family, str] = {
    net.Family.IPV4: "net/bridge/bridge-nf-call-iptables",
    net.Family.IPV6: "net/bridge/bridge-nf-call-ip6tables",
}
SYSCTLS = pathlib.Path("/proc/sys")


def unfiltered() -> tuple[str, ...]:
    """Return what does not hold on this node's bridges, one line each; empty: no bridge, or all is well."""
    names = [name for _, name in socket.if_nameindex() if _driver(name) == "bridge"]
    off = [switch for switch in SWITCHES.values() if not _is_on(SYSCTLS / switch)]
    if not names or not off:
        return ()
    switches = " and ".join(switch.replace("/", ".") for switch in off)
    return (f"pods on one bridge ({', '.join(names)}) reach each other past the packet layer: {switches} must be 1",)


def filtered() -> frozenset[net.Family]:
    """Return the families whose bridged packets netfilter sees, with the port each came in by."""
    return frozenset(family for family, switch in SWITCHES.items() if _is_on(SYSCTLS / switch))


def _is_on(switch: pathlib.Path) -> bool:
    try:
        return switch.read_text(encoding="ascii").strip() == "1"
    except FileNotFoundError:  # the module is not loaded
        return False


def _driver(interface: str) -> str:
    """Return the name of an interface's driver, "" where it has none or has just gone."""
    answer = array.array("B", struct.pack("=I", ETHTOOL_GDRVINFO) + bytes(DRVINFO_BYTES - 4))
    request = struct.pack("16sP16x", interface.encode(), answer.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        try:
            fcntl.ioctl(any_socket, SIOCETHTOOL, request)
        except OSError as error:
            if error.errno in {errno.EOPNOTSUPP, errno.ENODEV}:
                return ""
            raise
    return answer.tobytes()[4:36].split(b"\0", 1)[0].decode(errors="replace")
