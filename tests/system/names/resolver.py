"""A DNS server, dnsmasq, in a party of the lab, with all that `zones` has.

Several run beside each other: the one that pods ask, on every address of its party, and one on the loopback interface
for each TTL of the names that change. They write what they have to say into a file, and are told by SIGHUP that their
names have changed. dnsmasq, for Debian has it without a service that would start on this machine.
"""

from __future__ import annotations

import contextlib
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from agent import patience
from agent.lab import lab
from agent.model import net
from tests.system.names import zones

START_S = 10.0
END_S = 5.0
LOOK_S = 0.01
READ = ": read "
PORT = 53
ALONE = ("keep-in-foreground", "user=root", "group=root", "pid-file", "no-resolv", "no-hosts")
"""What every one of them is told: it has no other names than ours, and stays a child of who started it."""


class Server:
    """One dnsmasq; it ends with `close`, or with the lab."""

    def __init__(
        self, running: lab.Lab, party: str, directory: pathlib.Path, lines: Sequence[str], hosts: str = ""
    ) -> None:
        """Start it, with lines of its configuration and a hosts file, and wait until it answers."""
        directory.mkdir(parents=True)
        self._hosts, self._log = directory / "hosts", directory / "log"
        self._hosts.write_text(hosts)
        configuration = directory / "configuration"
        own = (f"addn-hosts={self._hosts}", f"log-facility={self._log}")
        configuration.write_text("\n".join([*ALONE, *own, *lines, ""]))
        command = running.exec_command(party, ["dnsmasq", f"--conf-file={configuration}"])
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self._wait(READ, 1)

    def say(self, hosts: str) -> None:
        """Replace the hosts file; return when it has been read."""
        before = self._said(READ)
        self._hosts.write_text(hosts)
        self._process.send_signal(signal.SIGHUP)
        self._wait(READ, before + 1)

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(END_S)
        assert self._process.stderr is not None
        self._process.stderr.close()

    def _said(self, words: str) -> int:
        return self._log.read_text(errors="replace").count(words) if self._log.exists() else 0

    def _wait(self, words: str, times: int) -> None:
        deadline = time.monotonic() + patience.seconds(START_S)
        while self._said(words) < times:
            if self._process.poll() is not None:
                assert self._process.stderr is not None
                raise RuntimeError(f"dnsmasq ended: {self._process.stderr.read().decode(errors='replace')}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"dnsmasq does not say {words!r}")
            time.sleep(LOOK_S)

    def __enter__(self) -> Self:
        """Return the running server."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, also on failure."""
        self.close()


class Cdn:
    """The servers of the names that change."""

    def __init__(self, servers: Mapping[int, Server]) -> None:
        """Take one server for each TTL."""
        self._servers = servers

    def say(self, content: Mapping[int, Mapping[str, Iterable[net.Address]]]) -> None:
        """Have names, by TTL, have other addresses."""
        for ttl, names in content.items():
            self._servers[ttl].say(zones.hosts(names))


@contextlib.contextmanager
def serving(
    running: lab.Lab, party: str, directory: pathlib.Path, *, listen: Sequence[net.Address] = (), fresh: bool = True
) -> Iterator[Server]:
    """Serve the names that stand still from a party: on all its addresses, or on those to `listen` at."""
    where = [*(f"listen-address={address}" for address in listen), "bind-interfaces"] if listen else []
    lines = [f"port={PORT}", *where, *zones.configuration()]
    with Server(running, party, directory / "front", lines, zones.fresh_hosts() if fresh else "") as one:
        yield one


@contextlib.contextmanager
def changing(running: lab.Lab, party: str, directory: pathlib.Path) -> Iterator[Cdn]:
    """Serve the names that change, to the server in the same party."""
    with contextlib.ExitStack() as stack:
        servers = {}
        for ttl in zones.CDN_TTLS_S:
            where = ("listen-address=127.0.0.1", "bind-interfaces", f"port={zones.CDN_PORT + ttl}")
            lines = [*where, f"local-ttl={ttl}", f"local=/{zones.CDN}/"]
            servers[ttl] = stack.enter_context(Server(running, party, directory / f"t{ttl}", lines))
        yield Cdn(servers)
