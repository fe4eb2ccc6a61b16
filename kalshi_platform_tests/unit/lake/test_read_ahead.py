"""A reading thread that never outlives its block."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from kalshi_platform.lake.export.read_ahead import read_ahead


def reading_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "read ahead"]


@pytest.mark.parametrize("count", [0, 1, 3, 50])
def test_all_items_come_in_order(count: int) -> None:
    with read_ahead(iter(range(count)), depth=2) as items:
        assert list(items) == list(range(count))
    assert reading_threads() == []


def test_an_error_of_the_reader_comes_out_after_the_items_before_it() -> None:
    def failing() -> Iterator[int]:
        yield 1
        raise OSError("the source broke")

    seen: list[int] = []
    with pytest.raises(OSError, match="the source broke"), read_ahead(failing()) as items:
        seen.extend(items)
    assert seen == [1]
    assert reading_threads() == []


def test_a_writer_that_fails_stops_the_reader_long_before_its_end() -> None:
    read = []

    def endless() -> Iterator[int]:
        for number in range(10**9):
            read.append(number)
            yield number

    with pytest.raises(ValueError, match="disk full"), read_ahead(endless(), depth=2) as items:  # noqa: PT012
        next(items)
        raise ValueError("disk full")
    assert reading_threads() == []
    assert len(read) < 1_000


def test_it_reads_no_further_ahead_than_it_may() -> None:
    read = []
    fourth = threading.Event()

    def source() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            if len(read) == 4:
                fourth.set()
            yield number

    with read_ahead(source(), depth=2) as items:
        next(items)
        # One taken, two waiting, one in the reader's hand.
        assert fourth.wait(10)
        assert len(read) == 4
        assert list(items) == list(range(1, 100))
