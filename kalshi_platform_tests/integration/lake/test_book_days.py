"""Production → raw hours → days of books, read by plain Polars and DuckDB as docs/lake.md shows."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from kalshi_platform.errors import FewerRows, HourNotClosed, StaleInput
from kalshi_platform.lake.export import export_daily, export_raw
from kalshi_platform.lake.layout import Partition, find_dataset, partition_starting
from kalshi_platform.lake.manifest import verify
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.stale import stale_partitions
from kalshi_platform.lake.store import open_store
from kalshi_platform_tests.fixtures.lake import HOUR
from kalshi_platform_tests.fixtures.production import Production

ONE = timedelta(hours=1)
US = timedelta(microseconds=1)
DAY = HOUR.date()
INPUTS = ("orderbook_deltas", "book_checkpoints", "coverage")
BOOKS = ("processed/book_deltas", "processed/quotes", "processed/book_1s", "processed/book_1m")
# KXA is whole; of KXB nothing is known from the tenth minute to the twentieth, and a change is lost there.
MOMENTS = [HOUR + timedelta(minutes=minute) for minute in (1, 5, 9, 20, 31, 59.9, 61, 100)]


def at(minutes: float) -> datetime:
    return HOUR + timedelta(minutes=minutes)


def fill(production: Production) -> None:
    changes: list[dict[str, Any]] = []
    for ticker in ("KXA", "KXB"):
        for number in range(60):
            side, price = ("yes", 4_000 + number % 5 * 100) if number % 2 else ("no", 5_500 - number % 7 * 100)
            changes.append({"ticker": ticker, "exchange_ts": at(number * 2 + 0.5), "side": side, "price_e4": price})
            changes.append({**changes[-1], "delta_e2": 5 + number, "seq": 2})
    production.insert("orderbook_deltas", changes)
    books = [
        {"ticker": ticker, "checkpoint_ts": when, "gatherer": "g1", "yes_price_e4": [3_000], "yes_count_e2": [count]}
        for ticker, when, count in (("KXA", at(0), 700), ("KXB", at(0), 900), ("KXB", at(20), 40))
    ]
    production.insert("book_checkpoints", [{"no_price_e4": [], "no_count_e2": [], **book} for book in books])
    ranges = [("KXA", 0, 60), ("KXA", 60, 120), ("KXB", 0, 10), ("KXB", 20, 60), ("KXB", 60, 110)]
    production.insert(
        "coverage",
        [
            {
                "ticker": ticker,
                "from_ts": at(low) + US * (low in (0, 20)),
                "to_ts": at(high),
                "hour": at(low // 60 * 60),
            }
            | {"gatherers": ["g1"], "stream_ids": [1]}
            for ticker, low, high in ranges
        ],
    )
    for hour in (HOUR, HOUR + ONE):
        production.active_hour(hour)
        production.close_hour(hour)


def export_inputs(lake: LakeSettings, production: Production, *tables: str) -> None:
    for table in tables:
        for hour in (HOUR, HOUR + ONE):
            export_raw(lake, production.url, table, hour, "closed")


def book_in_production(production: Production, ticker: str, moment: datetime) -> list[tuple[Any, ...]]:
    return sorted(production.rows("SELECT side, price_e4, count_e2 FROM book_at(%s, %s)", ticker, moment))


def test_days_of_books_are_those_of_production_for_plain_readers(production: Production, tmp_path: Path) -> None:
    lake = LakeSettings((tmp_path / "lake").as_uri())
    fill(production)
    export_inputs(lake, production, "orderbook_deltas", "book_checkpoints")
    with pytest.raises(HourNotClosed, match="made from closed raw hours"):
        export_daily(lake, production.url, BOOKS[0], DAY, "open")
    # As in a lake of a version that had no coverage.
    with pytest.raises(StaleInput, match=r"raw/coverage 2026-11-20-04:00 is not in the lake.*export coverage 2026-11"):
        export_daily(lake, production.url, BOOKS[0], DAY, "closed")
    export_inputs(lake, production, "coverage")
    for name in BOOKS:
        manifest = export_daily(lake, production.url, name, DAY, "closed")
        assert verify(lake, f"{name}/date=2026-11-20") == manifest
        assert set(manifest.closes) == {"2026-11-20T04", "2026-11-20T05"}
        again = export_daily(lake, production.url, name, DAY, "closed")
        assert again.files == manifest.files

    found = 0
    for ticker in ("KXA", "KXB"):
        for moment in MOMENTS:
            state, *_ = production.rows("SELECT state FROM book_basis(%s, %s)", ticker, moment)[0]
            by_polars, by_duckdb = documented_books(tmp_path / "lake", ticker, moment)
            assert by_polars == by_duckdb
            if state == "proven":
                found += 1
                assert by_polars == book_in_production(production, ticker, moment), (ticker, moment)
    assert found > len(MOMENTS)
    quotes = pl.read_parquet(tmp_path / "lake/processed/quotes/date=2026-11-20/*.parquet")
    holes = quotes.filter(pl.col("event") == "hole").select("ticker", "exchange_ts").rows()
    assert holes == [("KXA", at(120)), ("KXB", at(10)), ("KXB", at(110))]


def documented_books(lake: Path, ticker: str, moment: datetime) -> tuple[list[Any], list[Any]]:
    """The book as the lines of docs/lake.md find it."""
    page = (Path(__file__).parents[3] / "docs" / "lake.md").read_text(encoding="utf-8")
    section = page.split("### A book at a moment")[1].split("###")[0]
    found = []
    for code in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        values: dict[str, Any] = {"polars": pl, "duckdb": duckdb, "ticker": ticker, "at": moment, "datetime": datetime}
        lines = [line for line in code.splitlines() if not line.startswith("ticker,")]
        exec("\n".join(lines).replace("data/lake", str(lake)), values)
        book = pl.DataFrame(values["book"])
        found.append(
            sorted(
                (side, int(price * 10_000), int(count * 100))
                for side, price, count in book.select("side", "price_dollars", "contracts").rows()
            )
        )
    assert len(found) == 2
    return found[0], found[1]


def test_a_later_close_of_an_hour_makes_its_raw_hours_and_then_the_day_again(
    production: Production, tmp_path: Path
) -> None:
    lake = LakeSettings((tmp_path / "lake").as_uri())
    fill(production)
    export_inputs(lake, production, *INPUTS)
    export_daily(lake, production.url, "processed/quotes", DAY, "closed")
    day = partition_starting(find_dataset("processed/quotes"), DAY)
    raw = [Partition(find_dataset(table), HOUR) for table in INPUTS]
    assert stale_partitions(lake, production.url, [day, *raw]) == []
    with production.database.transaction() as transaction:
        transaction.execute("DELETE FROM hour_closes WHERE hour = %s", (HOUR + ONE,))
        transaction.execute("DELETE FROM hour_activity WHERE hour = %s", (HOUR + ONE,))
    with pytest.raises(FewerRows, match="does not know any more that it closed 2026-11-20T05"):
        export_daily(lake, production.url, "processed/quotes", DAY, "closed")
    production.active_hour(HOUR + ONE)
    production.close_hour(HOUR + ONE)
    export_inputs(lake, production, *INPUTS)
    export_daily(lake, production.url, "processed/quotes", DAY, "closed")
    production.execute(
        "UPDATE hour_closes SET close_id = gen_random_uuid(), close_no = next_merge_no() WHERE hour = %s", HOUR
    )
    stale = stale_partitions(lake, production.url, [day, *raw])
    assert [each.partition for each in stale] == [*sorted(raw), day], "raw hours come first"
    with pytest.raises(StaleInput, match="another close"):
        export_daily(lake, production.url, "processed/quotes", DAY, "closed")
    assert open_store(lake).read(day.manifest_path) is not None
    export_inputs(lake, production, *INPUTS)
    export_daily(lake, production.url, "processed/quotes", DAY, "closed")
    assert stale_partitions(lake, production.url, [day, *raw]) == []
