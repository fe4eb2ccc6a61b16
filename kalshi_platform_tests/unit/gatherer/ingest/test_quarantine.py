"""Whatever a record holds, something of it can be written; a batch of many hours becomes several of few."""

from __future__ import annotations

import random

import pytest

from kalshi_platform.gatherer.ingest.columns import tables_of
from kalshi_platform.gatherer.ingest.quarantine import PARTITIONS_OF_A_BATCH, split_by_hours, to_dead_letter
from kalshi_platform.market.names import LONGEST_NAME, is_name, readable
from kalshi_platform.market.records import (
    BookDelta,
    BookSubscriptionEnded,
    BookSubscriptionStarted,
    DeadLetter,
    Record,
    SequenceConsumed,
    StreamOpened,
)
from kalshi_platform_tests.fixtures.gathered import BASE_US, Stream

HOUR_US = 3_600_000_000


@pytest.mark.parametrize(
    "text", ["", "A" * (LONGEST_NAME + 1), "A\x00B", "A\nB", "A\x1b[2J", "A\u2028", "\ud800", "A\u202eB", "A\xa0B"]
)
def test_texts_that_no_key_should_contain_are_no_names(text: str) -> None:
    assert not is_name(text)
    shown = readable(text)
    assert len(shown) <= LONGEST_NAME
    assert shown.isprintable()


@pytest.mark.parametrize("text", ["A", "KXBTCD-26NOV23-T99999.99", "Ä ß 漢字", "A" * LONGEST_NAME])
def test_any_printable_text_that_fits_an_index_is_a_name(text: str) -> None:
    assert is_name(text)
    assert readable(text) == text


@pytest.mark.parametrize(
    "record",
    [
        StreamOpened(2**70, 1, 1, "\ud800\x00" * 5_000, 0),
        BookSubscriptionStarted(1, "T" * 100_000, 2**64),
        BookSubscriptionEnded(1, "\ud800", 5, "gap"),
        BookDelta("\x00" * 10_000, "yes", 2**90, 1, BASE_US, BASE_US * 1_000, 1, 2**70, 0),
    ],
    ids=lambda record: type(record).__name__,
)
def test_a_letter_of_any_record_can_be_written(record: Record) -> None:
    (letter,) = to_dead_letter(record, "unwritable", "odd \x00 \ud800")
    assert isinstance(letter, DeadLetter)
    columns = tables_of([letter])["dead_letters"].to_pylist()[0]
    assert all(text.isprintable() and len(text) <= 1_000 for text in columns.values() if isinstance(text, str))
    assert columns["payload"]


def test_a_batch_is_cut_so_that_each_part_touches_few_hours() -> None:
    pick = random.Random(7)
    stream = Stream()
    for _ in range(400):
        stream.snapshot()
        stream.delta(exchange_ts_us=BASE_US + pick.randrange(100) * HOUR_US)
        stream.ack()
    parts = split_by_hours(stream.records)
    assert [record for part in parts for record in part] == stream.records
    for part in parts:
        hours = {record.exchange_ts_us // HOUR_US for record in part if isinstance(record, BookDelta)}
        assert len(hours) <= PARTITIONS_OF_A_BATCH
    assert len(parts) < 40
    assert split_by_hours([SequenceConsumed(1, 1)]) == [[SequenceConsumed(1, 1)]]
