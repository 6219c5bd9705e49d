"""Proof that both layers enforce, before the agent says so.

The problem: links have been pinned at cgroups that died and agents have called themselves healthy; and a namespace of
its own, where a probe could hurt nobody, takes CAP_SYS_ADMIN. The rule: the attached programs judge, by the live maps,
a call of the agent's own that must be refused, and that they did not refuse before the rows were there.

The rows speak of the node's namespace, in which every process of the node lives, so they say no more than: who calls
from here and dials this reserved address, this port, by UDP, is denied, and everything else is allowed. That is a
Service on the reserved address of which the probe's policy set allows no backend: one frontend is matched exactly, and
other pods' sets say nothing of it, which leaves it to the packet layer. (Had a cluster a Service there, the first apply
would put its frontend back.) The cookie comes last and goes first, so that a test cut short at any instant leaves the
node's processes all they had but that address; the next agent's test removes the rest.

The packet layer is proved by `packet_proof`; what was shown by function, and what is known from links alone, is said.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Container, Iterator, Sequence

from agent import desired, errors
from agent.datapath import plan
from agent.datapath.bpf import attempts, cookies, features, layout, maps, packet_proof
from agent.model import net, verdict

SET_OF_PROBE = 2
"""Numbers are digests: that a real set has this one is a chance of one in four thousand million."""
SERVICE = 1

_PROBE = (layout.ENDPOINT_PROBE, layout.ENDPOINT_PROBE)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What holds on this node."""

    proved: tuple[str, ...] = ()
    """What was shown to hold and how, a line each."""
    unproved: tuple[str, ...] = ()
    """What could not be shown, a line each."""
    reasons: tuple[str, ...] = ()
    """What holds in another way than usual."""


@dataclasses.dataclass(frozen=True, slots=True)
class SelfTest:
    """Tests the pinned programs of one node against its live maps, once they are attached."""

    maps: maps.Maps
    programs: pathlib.Path
    cgroup_root: pathlib.Path

    def run(self, layers: Container[verdict.Layer]) -> Finding:
        """Return what holds of `layers`. Raises NotSupported where one does not enforce, DatapathError."""
        self._forget()
        proved: tuple[str, ...] = ()
        if verdict.Layer.PACKET in layers:
            proved = packet_proof.PacketProof(self.maps, self.programs).run()
        found = self._prove_socket_layer()
        return dataclasses.replace(found, proved=(*found.proved, *proved))

    def _forget(self) -> None:
        """Remove what a test that was cut short has left, the namespace it spoke of first."""
        cookies_ = (cookie for cookie, numbers in self.maps.read(plan.Table.EP_BY_NETNS).items() if numbers == _PROBE)
        self.maps.delete(plan.Table.EP_BY_NETNS, frozenset(cookies_))
        for table, content in reversed(_probe_rows()):
            self.maps.delete(table, frozenset(content))
        self.maps.delete(plan.Table.EP_BY_IP, frozenset(packet_proof.SUBJECTS))

    def _prove_socket_layer(self) -> Finding:
        with self._cgroup() as cgroup, _process(cgroup) as process:
            cookie = _cookie(process)
            if isinstance(cookie, str):
                return _unproved(cookie)
            before = _attempts(process)
            denied = self.maps.counters()["socket_denied"]
            with packet_proof.rows(self.maps, *_probe_rows(), (plan.Table.EP_BY_NETNS, {cookie: _PROBE})):
                after = _attempts(process)
            counted = self.maps.counters()["socket_denied"] - denied >= len(attempts.HOOKS)
        return self._judged(before, after, counted=counted, inside=cgroup is not None)

    def _judged(self, before: Sequence[int], after: Sequence[int], *, counted: bool, inside: bool) -> Finding:
        """Tell from what each attempt got without and with the rows. Raises NotSupported."""
        if not before or not after:
            return _unproved("the probe process died")
        sets_errno = features.sets_errno()
        refused = features.refused_errno(sets_errno=sets_errno)
        reasons = () if sets_errno else (features.ERRNO_UNSET,)
        if refused in before:
            return _unproved(f"{_told(before)} without us: something else refuses {_servers()} here")
        denials, exempted = after[: len(attempts.HOOKS)], after[len(attempts.HOOKS) :]
        if all(code in {refused, errno.EAFNOSUPPORT} for code in denials) and refused not in exempted:
            return Finding(proved=(_proved(denials),), reasons=reasons)
        if self.maps.drop_silently and counted:
            return Finding(proved=(f"by function: {', '.join(attempts.HOOKS)} counted a call that the maps deny",))
        got = _told(after)
        if not inside:
            return _unproved(f"no cgroup can be made in {self.cgroup_root}, and this process may be outside it ({got})")
        raise errors.NotSupported(
            feature=f"the socket layer at {self.cgroup_root} ({got})",
            needs="connect and sendmsg hooks of cgroup v2",
        )

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


def _probe_rows() -> tuple[packet_proof.Rows, ...]:
    """Return all but the cookie's row: on UDP to the reserved frontends nothing is allowed, elsewhere everything."""
    anything = plan.PolicyKey(
        SET_OF_PROBE, identity=0, direction=net.Direction.EGRESS, protocol=desired.ANY_PROTOCOL, port=0, port_bits=0
    )
    none = plan.ClassValue(desired.ServiceClass.NONE, rule=0)
    frontends = (desired.Frontend(server, attempts.PORT, net.Protocol.UDP.value) for server in attempts.SERVERS)
    slot = plan.EndpointSlot(ingress_set=desired.NOT_ISOLATED, egress_set=SET_OF_PROBE, held=False)
    return (
        (plan.Table.POLICY, {anything: desired.Row(desired.Action.ALLOW, 0)}),
        (plan.Table.SERVICE_CLASS, {(SET_OF_PROBE, SERVICE): none}),
        (plan.Table.FRONTEND, dict.fromkeys(frontends, (SERVICE, SERVICE))),
        (plan.Table.ENDPOINTS, {layout.ENDPOINT_PROBE: packet_proof.endpoint(slot)}),
    )


@contextlib.contextmanager
def _process(cgroup: pathlib.Path | None) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "agent.datapath.bpf.attempts", *([str(cgroup)] if cgroup else [])]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        yield process


def _cookie(process: subprocess.Popen[str]) -> int | str:
    """Return the namespace's cookie, or why no attempt can be made. Raises NotSupported where there are none."""
    assert process.stdout and process.stderr  # noqa: S101, PT018 - pipes, as asked for in `_process`
    line = process.stdout.readline().strip()
    if line:
        return int(line)
    if process.wait() == attempts.EXIT_NO_COOKIE:
        raise errors.NotSupported(feature=f"the socket layer ({cookies.FEATURE})", needs=cookies.NEEDS)
    return process.stderr.read().strip().rpartition("\n")[2] or "the probe process said nothing"


def _attempts(process: subprocess.Popen[str]) -> Sequence[int]:
    """Return each attempt's errno; none where the process died."""
    assert process.stdin and process.stdout  # noqa: S101, PT018 - likewise
    try:
        process.stdin.write("\n")
        process.stdin.flush()
    except BrokenPipeError:
        return ()
    answer = process.stdout.readline()
    return [int(code) for code in json.loads(answer)] if answer else ()


def _proved(denials: Sequence[int]) -> str:
    """Say which hooks refused; those of a family without sockets have nothing to refuse."""
    hooks = [hook for hook, code in zip(attempts.HOOKS, denials, strict=True) if code != errno.EAFNOSUPPORT]
    return f"by function: {', '.join(hooks)} refused a call of ours that the maps deny, and passed it when they did not"


def _unproved(why: str) -> Finding:
    return Finding(unproved=(f"the socket layer is not proved: {why}",))


def _told(codes: Sequence[int]) -> str:
    names = (*attempts.HOOKS, *attempts.EXEMPTING_HOOKS)
    return ", ".join(f"{name}: {os.strerror(code)}" for name, code in zip(names, codes, strict=True))


def _servers() -> str:
    return " and ".join(map(str, attempts.SERVERS))
