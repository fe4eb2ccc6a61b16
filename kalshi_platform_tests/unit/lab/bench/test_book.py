"""The benchmark of the fold, small: both ways find the same books, and another result is noticed."""

from __future__ import annotations

import pytest

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lab.bench import book
from kalshi_platform.lab.bench.book import BookBench, bench_book

OPTIONS = BookBench(deltas=2_000, naive_deltas=500, markets=12, rounds=1)


def test_both_ways_find_the_same_books() -> None:
    findings = bench_book(OPTIONS, lambda _: None, SYSTEM_CLOCK)
    assert findings["lost"] == []
    assert findings["rate_per_s"] > 0
    assert findings["books"] == 12 * 60


def test_other_books_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    naive = book.fold_naively
    monkeypatch.setattr(book, "fold_naively", lambda start, deltas: naive(start, deltas.head(deltas.height - 1)))
    assert bench_book(OPTIONS, lambda _: None, SYSTEM_CLOCK)["lost"] == ["round 1: the books differ"]
