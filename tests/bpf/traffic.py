"""What guests of the test node do: plain functions that run in a child and answer with values."""

from __future__ import annotations

import errno
import multiprocessing.synchronize
import socket
import time
from collections.abc import Callable

from agent.model import net
from tests.bpf import packets

PATIENCE_SECONDS = 0.7
"""Longer than any answer on this machine takes, shorter than TCP's first retransmission."""


def family(address: net.Address) -> socket.AddressFamily:
    """Return the socket family of an address."""
    return socket.AF_INET if address.version == net.Family.IPV4.value else socket.AF_INET6


def connects(address: net.Address, port: int) -> Callable[[], int]:
    """Connect by TCP; answer the errno, 0 for success, ETIMEDOUT for silence."""

    def action() -> int:
        with socket.socket(family(address), socket.SOCK_STREAM) as client:
            client.settimeout(PATIENCE_SECONDS)
            try:
                client.connect((str(address), port))
            except TimeoutError:
                return errno.ETIMEDOUT
            except OSError as error:
                return error.errno or -1
            return 0

    return action


def asks(address: net.Address, port: int, *, connected: bool = False, size: int = 8) -> Callable[[], int]:
    """Send a datagram; answer 0 if it was echoed, else the errno or ETIMEDOUT. Errors reach connected sockets only."""

    def action() -> int:
        with socket.socket(family(address), socket.SOCK_DGRAM) as client:
            client.settimeout(PATIENCE_SECONDS)
            try:
                if connected:
                    client.connect((str(address), port))
                    client.send(bytes(size))
                else:
                    client.sendto(bytes(size), (str(address), port))
                client.recv(1 << 16)
            except TimeoutError:
                return errno.ETIMEDOUT
            except OSError as error:
                return error.errno or -1
            return 0

    return action


def floods(packet: bytes, to: bytes, stop: multiprocessing.synchronize.Event, *, pause_s: float) -> Callable[[], int]:
    """Send an IPv4 packet past the sockets until told to stop; answer how many were sent."""

    def action() -> int:
        sent = 0
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as raw:
            while not stop.is_set():
                raw.sendto(packet, ("eth0", packets.ETH_IPV4, 0, 0, to))
                sent += 1
                time.sleep(pause_s)
        return sent

    return action


def sends_raw(packet: bytes, *, interface: str = "eth0", ethertype: int = 0x0800, to: bytes) -> Callable[[], int]:
    """Send one packet behind an Ethernet header past every socket hook."""

    def action() -> int:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM) as raw:
            return raw.sendto(packet, (interface, ethertype, 0, 0, to))

    return action


def listens(port: int) -> Callable[[], str]:
    """Accept TCP on every address and family and echo datagrams, until killed; answers once it listens."""

    def action() -> str:
        stream = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
        datagrams = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        datagrams.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        datagrams.bind(("::", port))
        _serve(stream, datagrams)
        return "listens"

    return action


def _serve(stream: socket.socket, datagrams: socket.socket) -> None:
    """Go on in a thread: the child reports as soon as its action returns."""
    import threading  # noqa: PLC0415 - only in the child

    def echo() -> None:
        while True:
            question, client = datagrams.recvfrom(1 << 16)
            datagrams.sendto(question, client)

    def accept() -> None:
        accepted = []
        while True:
            accepted.append(stream.accept())

    for loop in (echo, accept):
        threading.Thread(target=loop, daemon=True).start()


def receives(port: int, seconds: float) -> Callable[[], int]:
    """Count the datagrams that arrive at `port` within `seconds`."""

    def action() -> int:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
            server.bind(("::", port))
            count, end = 0, time.monotonic() + seconds
            while (left := end - time.monotonic()) > 0:
                server.settimeout(left)
                try:
                    server.recv(1 << 16)
                except TimeoutError:
                    break
                count += 1
            return count

    return action


def receives_until(port: int, stop: multiprocessing.synchronize.Event) -> Callable[[], int]:
    """Count the datagrams that arrive at `port` until told to stop, and for a moment longer: some are under way."""

    def action() -> int:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as server:
            server.bind(("::", port))
            server.settimeout(PATIENCE_SECONDS / 2)
            count = 0
            while True:
                ending = stop.is_set()
                try:
                    server.recv(1 << 16)
                    count += 1
                except TimeoutError:
                    if ending:
                        return count

    return action
