"""A ring of DNS answers that a test fills, and what reads it."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import os
from collections.abc import Callable, Sequence

from agent.datapath import base
from agent.model import net
from tests.bpf.dns import wire

NAME = "api.example.com"
ENDPOINT = 7
RESOLVER: net.Address = ipaddress.ip_address("10.96.0.10")
RECORD = 64
"""Bytes of the ring that each answer takes."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """`base.Answer`."""

    endpoint: int
    time_ns: int
    message: bytes
    outcome: base.Outcome = base.Outcome.LEARNED
    protocol: int = 17
    resolver: net.Address = RESOLVER
    resolver_port: int = 0
    client_port: int = 0
    policy_set: int = 0
    rule: int = 0
    repeats: int = 0


class Ring:
    """`base.Answers` over an eventfd."""

    def __init__(self) -> None:
        """Start empty, some way into the ring."""
        self.fd = os.eventfd(0, os.EFD_NONBLOCK)
        self.written = self.consumed = 4096
        self._waiting: list[Answer] = []

    def put(self, *answers: Answer) -> None:
        self._waiting += answers
        self.written += RECORD * len(answers)
        os.eventfd_write(self.fd, 1)

    def read(self) -> Sequence[Answer]:
        found, self._waiting = self._waiting, []
        if found:
            os.eventfd_read(self.fd)
        self.consumed += RECORD * len(found)
        return found

    def close(self) -> None:
        os.close(self.fd)


def address(number: int = 1) -> net.Address:
    return ipaddress.ip_address("203.0.113.0") + number


def answer(
    number: int = 1, *, name: str = NAME, endpoint: int = ENDPOINT, time_ns: int = 1_000_000_000, ttl_s: int = 60
) -> Answer:
    """Have an endpoint told that `name` has address number `number`."""
    return Answer(endpoint, time_ns, wire.answer(name, wire.address(address(number), ttl_s)))


async def until(holds: Callable[[], object]) -> None:
    """Return once something holds."""
    while not holds():  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0.005)
