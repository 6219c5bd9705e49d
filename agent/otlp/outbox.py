"""What waits to be sent: a bounded queue of serialised records, and the losses that are yet to be told.

When it is full what comes is not taken, and need not even be made: the beginning of an outage is what people look for
afterwards, and a dead collector shall cost nothing. Used by coroutines of one event loop.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import dataclasses
from collections.abc import Mapping

from agent.otlp import losses

RECORDS_MOST = 2048
BYTES_MOST = 4 << 20
BATCH_RECORDS = 512
BATCH_BYTES = 1 << 20
"""Of records in a request, but for the last one: a collector refuses more than 4 MiB, unless told otherwise."""
GATHER_S = 1.0
"""How long the first record waits for others to be sent with."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one request is made of."""

    records: tuple[bytes, ...]
    lost: Mapping[losses.Why, losses.Loss]


class Outbox:
    """One exporter's."""

    def __init__(self) -> None:
        """Start empty."""
        self._records: collections.deque[bytes] = collections.deque()
        self._bytes = 0
        self._lost: Mapping[losses.Why, losses.Loss] = {}
        self._some, self._enough = asyncio.Event(), asyncio.Event()

    def __len__(self) -> int:
        """Count the records that wait."""
        return len(self._records)

    @property
    def full(self) -> bool:
        """Whether nothing is taken."""
        return len(self._records) >= RECORDS_MOST or self._bytes >= BYTES_MOST

    def put(self, record: bytes) -> None:
        """Queue a record; whoever calls has seen that there is room."""
        self._records.append(record)
        self._bytes += len(record)
        self._some.set()
        if len(self._records) >= BATCH_RECORDS or self._bytes >= BATCH_BYTES:
            self._enough.set()

    def lose(self, *lost: losses.Loss) -> None:
        """Have it told that flows were lost."""
        self._lost = losses.added(self._lost, *lost)
        if self._lost:
            self._some.set()

    def clear(self) -> None:
        """Forget everything."""
        self._records.clear()
        self._bytes, self._lost = 0, {}
        self._some.clear()
        self._enough.clear()

    async def worth_sending(self) -> None:
        """Wait for something to send, and then for others that fill a request, but no longer than GATHER_S."""
        await self._some.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GATHER_S):
                await self._enough.wait()

    def take(self) -> Batch | None:
        """Take what is to be sent next; None: there is nothing."""
        if not self._records and not self._lost:
            return None
        records: list[bytes] = []
        size = 0
        while self._records and len(records) < BATCH_RECORDS and size < BATCH_BYTES:
            records.append(self._records.popleft())
            size += len(records[-1])
        self._bytes -= size
        lost, self._lost = self._lost, {}
        self._some.clear()
        self._enough.clear()
        if self._records:
            self._some.set()
        if len(self._records) >= BATCH_RECORDS or self._bytes >= BATCH_BYTES:
            self._enough.set()
        return Batch(records=tuple(records), lost=lost)
