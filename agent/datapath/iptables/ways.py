"""The four ways in which one end of a connection is judged from one packet.

A packet goes the connection's way or the other; either end may be a pod of this node. So what policy calls subject,
peer and port stands in the packet's source or in its destination, and every dispatch tree and every policy set is
there once a way. Nothing else in this engine must know which is which.
"""

from __future__ import annotations

import dataclasses

from agent.model import net


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Where a packet carries what is judged."""

    direction: net.Direction
    reply: bool
    """The packet goes from server to client."""

    @property
    def subject_leads(self) -> bool:
        """Whether the subject is the packet's source."""
        return (self.direction is net.Direction.EGRESS) is not self.reply

    @property
    def subject(self) -> str:
        """The set direction of the subject: `src` or `dst`."""
        return "src" if self.subject_leads else "dst"

    @property
    def subject_option(self) -> str:
        """The option that matches the subject's address."""
        return "-s" if self.subject_leads else "-d"

    @property
    def peer(self) -> str:
        """The set direction of the peer."""
        return "dst" if self.subject_leads else "src"

    @property
    def port(self) -> str:
        """The set direction of the server's port."""
        return "src" if self.reply else "dst"

    @property
    def port_option(self) -> str:
        """The option that matches the server's port; `s` after it takes several."""
        return "--sport" if self.reply else "--dport"

    @property
    def mark(self) -> str:
        """What names of chains end with."""
        return "-R" if self.reply else ""


WAYS = tuple(Way(direction=direction, reply=reply) for reply in (False, True) for direction in net.Direction)
