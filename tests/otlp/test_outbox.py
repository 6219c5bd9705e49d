"""What waits is bounded in number and in bytes, and goes out in requests that are bounded as well."""

from __future__ import annotations

import asyncio

import pytest

from agent.otlp import losses, outbox

LOSS = losses.Loss(why=losses.Why.FULL, count=3, first_ns=1, last_ns=2)


def test_it_is_full_by_number_or_by_bytes() -> None:
    few, large = outbox.Outbox(), outbox.Outbox()
    while not few.full:
        few.put(b"x")
    assert len(few) == outbox.RECORDS_MOST
    while not large.full:
        large.put(bytes(1 << 20))
    assert len(large) == outbox.BYTES_MOST >> 20


def test_a_request_is_bounded_by_number_and_by_bytes_and_keeps_the_order() -> None:
    waiting = outbox.Outbox()
    records = [str(number).encode() for number in range(outbox.BATCH_RECORDS + 1)]
    for record in records:
        waiting.put(record)
    first, second = waiting.take(), waiting.take()
    assert first is not None
    assert second is not None
    assert (*first.records, *second.records) == tuple(records)
    assert len(first.records) == outbox.BATCH_RECORDS
    for _ in range(3):
        waiting.put(bytes(outbox.BATCH_BYTES // 2))
    large = waiting.take()
    assert large is not None
    assert len(large.records) == 2
    assert len(waiting) == 1


def test_losses_go_out_with_the_next_request_once_and_by_themselves_if_there_is_nothing_else() -> None:
    waiting = outbox.Outbox()
    assert waiting.take() is None
    waiting.lose(LOSS, LOSS)
    batch = waiting.take()
    assert batch is not None
    assert (batch.records, batch.lost[losses.Why.FULL].count) == ((), 6)
    assert waiting.take() is None


def test_the_first_record_waits_for_others_but_not_long_and_a_full_request_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        waiting = outbox.Outbox()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await waiting.worth_sending()
        waiting.put(b"x")
        monkeypatch.setattr(outbox, "GATHER_S", 0.05)
        await waiting.worth_sending()
        monkeypatch.setattr(outbox, "GATHER_S", 3600)
        for _ in range(outbox.BATCH_RECORDS):
            waiting.put(b"x")
        await waiting.worth_sending()
        waiting.take()
        waiting.clear()
        assert waiting.take() is None

    asyncio.run(scenario())
