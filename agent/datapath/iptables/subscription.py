"""A socket that the kernel sends packets to: those of a group (nfnetlink_log) or of a queue (nfnetlink_queue).

One message configures it, so that hardly a packet comes in between; those that do come before the answer are kept. What
the socket had no room for is told to whoever reads, for what that means is not the same to all.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Callable

from agent import errors
from agent.datapath.iptables import netlink

SO_RCVBUFFORCE = 33
RECEIVE_BUFFER_BYTES = 8 << 20
"""The kernel grants twice as much, for its own book-keeping, and takes it only when filled."""


class Subscription:
    """One of them, in the network namespace it was made in; for one thread."""

    def __init__(
        self,
        what: str,
        number: int,
        configuration: bytes,
        *,
        needs: str,
        receive_bytes: int,
        overrun: Callable[[], None],
    ) -> None:
        """Send `configuration` for the group or queue `what` (NFLOG group, NFQUEUE queue) of that number.

        `overrun` is called when packets found no room. Raises NotSupported where the kernel lacks what it `needs`,
        DatapathError if another process has it.
        """
        self._named = f"{what} {number}"
        self._receive_bytes = receive_bytes
        self._overrun = overrun
        self._early: list[bytes] = []
        """What arrived before the kernel's answer."""
        with contextlib.ExitStack() as undo:
            try:
                self._socket = undo.enter_context(
                    socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, netlink.NETLINK_NETFILTER)
                )
                self._enlarge()
                self._socket.bind((0, 0))
                self._socket.send(configuration)
                error = self._answer()
            except OSError as failure:
                raise errors.DatapathError(f"listening to {self._named}: {failure}") from failure
            if error:
                raise self._refused(error, what.split(maxsplit=1)[0], needs)
            self._socket.setblocking(False)  # noqa: FBT003 - the standard library's name for it
            undo.pop_all()

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when there are packets; negative once closed."""
        return self._socket.fileno()

    def receive(self) -> bytes | None:
        """Return a message of the kernel; None: there is none yet. Raises DatapathError."""
        if self._early:
            return self._early.pop(0)
        while True:
            try:
                datagram, (sender, _) = self._socket.recvfrom(self._receive_bytes)
            except BlockingIOError:
                return None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise errors.DatapathError(f"reading packets of {self._named}: {error}") from error
                self._overrun()
                continue
            if sender == 0:  # the kernel; processes with CAP_NET_ADMIN can send here too
                return bytes(datagram)

    def send(self, message: bytes) -> None:
        """Tell the kernel something that it does not answer. Raises OSError."""
        self._socket.send(message)

    def close(self) -> None:
        """Stop listening. Safe to repeat."""
        self._socket.close()

    def _enlarge(self) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES)
        except PermissionError:  # no CAP_NET_ADMIN in the first user namespace: as much as the machine allows
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)

    def _answer(self) -> int:
        """Return the errno the kernel answers with; packets may come before it."""
        while True:
            datagram = self._socket.recv(self._receive_bytes)
            _, kind, _, _, _ = netlink.HEADER.unpack_from(datagram)
            if kind == netlink.NLMSG_ERROR:
                code: int = netlink.CODE.unpack_from(datagram, netlink.HEADER.size)[0]
                return -code
            self._early.append(datagram)

    def _refused(self, error: int, feature: str, needs: str) -> errors.DatapathError:
        if error in {errno.EBUSY, errno.EPERM}:  # EPERM: bound to another socket, or not allowed at all
            return errors.DatapathError(f"{self._named} is read by another process, or CAP_NET_ADMIN is missing")
        if error in {errno.EINVAL, errno.EOPNOTSUPP}:
            return errors.NotSupported(feature=feature, needs=needs)
        return errors.DatapathError(f"listening to {self._named}: {os.strerror(error)}")
