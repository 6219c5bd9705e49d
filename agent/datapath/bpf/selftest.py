"""Proof that both layers enforce, before the agent says so.

The problem: links have been pinned at cgroups that died and agents have called themselves healthy. The
rule: a process in a network namespace of its own, in a cgroup below ours, is given a policy that denies
everything, and each hook must refuse it; the packet programs must drop a packet of an endpoint that may
send none and pass one of nobody's. Rows for it use the reserved endpoint number and documentation
addresses, and go away with it.

Run as `python -m agent.datapath.bpf.selftest` this file is that process: it prints its namespace's
cookie, waits for a line, and prints what each attempt got (an errno, 0 for none) as JSON.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import ipaddress
import json
import os
import pathlib
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Container, Iterator

from agent import errors
from agent.datapath import plan
from agent.datapath.bpf import cookies, features, layout, maps, syscalls
from agent.model import verdict

CLONE_NEWNET = 0x40000000
EXIT_NO_COOKIE = 3
SET_WITHOUT_ROWS = 1
"""Numbers are digests: that a real set has this one is a chance of one in four thousand million."""
SUBJECT4 = ipaddress.IPv4Address("192.0.2.1")
PEER4 = ipaddress.IPv4Address("192.0.2.2")
SUBJECT6 = ipaddress.IPv6Address("2001:db8::1")
PEER6 = ipaddress.IPv6Address("2001:db8::2")
PORT = 9
NF_DROP = 0
NF_ACCEPT = 1
HOOKS = ("connect4", "connect6", "sendmsg4", "sendmsg6")


@dataclasses.dataclass(frozen=True, slots=True)
class SelfTest:
    """Tests the pinned programs of one node against its live maps."""

    maps: maps.Maps
    programs: pathlib.Path
    cgroup_root: pathlib.Path

    def run(self, layers: Container[verdict.Layer]) -> tuple[str, ...]:
        """Return what could not be proved of `layers`, a line each. Raises NotSupported where one does not enforce."""
        with self._rows(plan.Table.ENDPOINTS, {layout.ENDPOINT_PROBE: _denied_endpoint()}):
            if verdict.Layer.PACKET in layers:
                self._prove_packet_layer()
            return self._prove_socket_layer()

    def _prove_packet_layer(self) -> None:
        number = (layout.ENDPOINT_PROBE, layout.ENDPOINT_PROBE)
        with self._rows(plan.Table.EP_BY_IP, {SUBJECT4: number, SUBJECT6: number}):
            for program, packet, expected in (
                ("nw_forward4", _packet4(SUBJECT4, PEER4), NF_DROP),
                ("nw_forward4", _packet4(PEER4, PEER4), NF_ACCEPT),
                ("nw_forward6", _packet6(SUBJECT6, PEER6), NF_DROP),
                ("nw_forward6", _packet6(PEER6, PEER6), NF_ACCEPT),
            ):
                with syscalls.owned(syscalls.open_pin(self.programs / program)) as descriptor:
                    answer = syscalls.program_test_run(descriptor, packet).verdict
                if answer != expected:
                    raise errors.NotSupported(
                        feature=f"the packet layer ({program} answered {answer} for {expected})",
                        needs="BPF netfilter programs as of Linux 6.4",
                    )

    def _prove_socket_layer(self) -> tuple[str, ...]:
        denied = self.maps.counters()["socket_denied"]
        with self._cgroup() as cgroup:
            results = self._attempts(cgroup)
        if isinstance(results, str):
            return (f"the socket layer is not proved: {results}",)
        sets_errno = features.sets_errno()
        if all(code == features.refused_errno(sets_errno=sets_errno) for code in results):
            return () if sets_errno else (features.ERRNO_UNSET,)
        if self.maps.drop_silently and self.maps.counters()["socket_denied"] >= denied + len(HOOKS):
            return ()
        got = ", ".join(f"{hook}: {os.strerror(code)}" for hook, code in zip(HOOKS, results, strict=True))
        if cgroup is None:
            return (f"the socket layer is not proved: no cgroup can be made in {self.cgroup_root} ({got})",)
        raise errors.NotSupported(
            feature=f"the socket layer at {self.cgroup_root} ({got})",
            needs="connect and sendmsg hooks of cgroup v2",
        )

    def _attempts(self, cgroup: pathlib.Path | None) -> list[int] | str:
        """Return each attempt's errno, or why none could be made."""
        command = [sys.executable, "-m", "agent.datapath.bpf.selftest", str(cgroup or "")]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as child:
            assert child.stdin and child.stdout and child.stderr  # noqa: S101, PT018 - pipes, as asked for above
            cookie = child.stdout.readline().strip()
            if not cookie and child.wait() == EXIT_NO_COOKIE:
                raise errors.NotSupported(feature=f"the socket layer ({cookies.FEATURE})", needs=cookies.NEEDS)
            if not cookie:
                return child.stderr.read().strip().rpartition("\n")[2] or "the probe process said nothing"
            with self._rows(plan.Table.EP_BY_NETNS, {int(cookie): (layout.ENDPOINT_PROBE, layout.ENDPOINT_PROBE)}):
                child.stdin.write("\n")
                child.stdin.flush()
                answer = child.stdout.readline()
            return [int(code) for code in json.loads(answer)] if answer else "the probe process died"

    @contextlib.contextmanager
    def _rows(self, table: plan.Table, content: dict[object, object]) -> Iterator[None]:
        self.maps.upsert(table, content)
        try:
            yield
        finally:
            self.maps.delete(table, frozenset(content))

    @contextlib.contextmanager
    def _cgroup(self) -> Iterator[pathlib.Path | None]:
        """Make a cgroup for the probe; None where the hierarchy is read-only, as in our DaemonSet."""
        path = self.cgroup_root / f"nodewall-probe-{os.getpid()}"
        try:
            path.mkdir()
        except OSError:
            yield None
            return
        try:
            yield path
        finally:
            path.rmdir()


def _denied_endpoint() -> plan.EndpointValue:
    slot = plan.EndpointSlot(ingress_set=SET_WITHOUT_ROWS, egress_set=SET_WITHOUT_ROWS, held=False)
    return plan.EndpointValue(slots=(slot, slot), ingress_ifindex=0)


def _packet4(source: ipaddress.IPv4Address, destination: ipaddress.IPv4Address) -> bytes:
    udp = struct.pack(">HHHH", PORT, PORT, 8, 0)
    header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, socket.IPPROTO_UDP, 0)
    return header + source.packed + destination.packed + udp


def _packet6(source: ipaddress.IPv6Address, destination: ipaddress.IPv6Address) -> bytes:
    udp = struct.pack(">HHHH", PORT, PORT, 8, 0)
    return struct.pack(">IHBB", 6 << 28, len(udp), socket.IPPROTO_UDP, 64) + source.packed + destination.packed + udp


def main() -> int:
    """Be the probe process."""
    if sys.argv[1]:
        (pathlib.Path(sys.argv[1]) / "cgroup.procs").write_text(str(os.getpid()))
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        sys.stderr.write(f"a network namespace of its own: {os.strerror(ctypes.get_errno())}\n")
        return 1
    try:
        _say(str(cookies.own()))
    except errors.NotSupported as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NO_COOKIE
    sys.stdin.readline()
    _say(json.dumps(_attempt_all()))
    return 0


def _attempt_all() -> list[int]:
    """Return an errno for each of HOOKS; the namespace has no route, so nothing leaves it in any case."""
    four, six = (str(PEER4), PORT), (str(PEER6), PORT)
    return [
        _attempt(socket.AF_INET, lambda probe: probe.connect(four)),
        _attempt(socket.AF_INET6, lambda probe: probe.connect(six)),
        _attempt(socket.AF_INET, lambda probe: probe.sendto(b"", four)),
        _attempt(socket.AF_INET6, lambda probe: probe.sendto(b"", six)),
    ]


def _attempt(family: socket.AddressFamily, action: Callable[[socket.socket], object]) -> int:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            action(probe)
        except OSError as error:
            return error.errno or 0
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
