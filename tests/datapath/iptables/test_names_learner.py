"""What a packet does to the learner that reads it, without a kernel."""

from __future__ import annotations

from typing import Any, NoReturn

from agent.datapath.iptables import names_learner, names_queue
from agent.fqdn import history
from agent.model import net


class _Queue:
    def __init__(self) -> None:
        self.gone: list[int] = []

    def let_go(self, number: int) -> None:
        self.gone.append(number)


def _fails(*_: object) -> NoReturn:
    raise ValueError("a fault of ours")


def test_a_packet_that_cannot_be_read_is_let_go_and_counted_and_ends_nothing() -> None:
    """Requirement F14: nobody's packet may end what all pods of the node learn by."""
    learner = names_learner.Learner(history.Lifetimes(), lambda: 0)
    reader: Any = learner._reader
    reader.read = _fails
    queue: Any = _Queue()
    learner._take(queue, [names_queue.Held(number, net.Family.IPV4, b"") for number in (1, 2)])
    assert queue.gone == [1, 2]
    assert learner.counters()["dns_not_learned"] == 2
