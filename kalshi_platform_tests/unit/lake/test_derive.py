"""The engine: every row of every hour reaches one builder in order, however markets and hours are cut."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kalshi_platform.errors import StaleInput
from kalshi_platform.lake.builders.builder import HourRows
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.market.times import US_PER_HOUR, us_from_datetime
from kalshi_platform_tests.fixtures.raw_lake import DAY, HOUR, RawLake, closed, raw

DELTAS = PRODUCTION_TABLES["orderbook_deltas"]
COLUMNS = ("ticker", "exchange_ts", "side", "price_e4", "delta_e2")


class Echo:
    """Gives the day's deltas back as they come, and notes how they came."""

    calls: list[tuple[int, int, bool, int]]
    made: list[Echo]

    def __init__(self) -> None:
        self.calls = []
        self.markets = 0
        self.made.append(self)

    def add(self, hour: HourRows) -> pl.DataFrame:
        rows = hour.rows["raw/orderbook_deltas"]
        assert rows.columns == list(COLUMNS)
        kind = rows.schema["ticker"]
        assert isinstance(kind, pl.Enum)
        self.markets = len(kind.categories)
        times = rows["exchange_ts"].to_physical()
        assert ((times >= hour.start_us) & (times < hour.end_us)).all()
        self.calls.append((hour.start_us, hour.end_us, hour.in_day, rows.height))
        return rows if hour.in_day else rows.clear()

    def finish(self) -> pl.DataFrame:
        return pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.Int64))


def echo(**fields: object) -> Dataset:
    Echo.made = []
    return Dataset(
        "processed",
        "echo",
        "The deltas of a day.",
        tuple(DELTAS[name] for name in COLUMNS),
        "exchange_ts",
        (),
        ("ticker", "exchange_ts"),
        builder=Echo,
        inputs={"raw/orderbook_deltas": COLUMNS},
        **fields,  # type: ignore[arg-type]
    )


def deltas(seed: int, hours: int, rows: int) -> pl.DataFrame:
    """Rows of nine markets, one of which has half of all."""
    random = np.random.default_rng(seed)
    market = np.where(random.random(rows) < 0.5, 4, random.integers(0, 9, rows))
    moments = np.sort(random.integers(0, hours * US_PER_HOUR, rows) // 1_000_000 * 1_000_000)
    return pl.DataFrame(
        {
            "ticker": [f"KXÜ-{number}" for number in market],
            "exchange_ts": pl.Series(moments + us_from_datetime(DAY)).cast(pl.Datetime("us", "UTC")),
            "side": np.where(random.random(rows) < 0.5, "yes", "no"),
            "price_e4": random.integers(1, 100, rows).astype(np.int32) * 100,
            "delta_e2": random.integers(-500, 500, rows),
        }
    )


def fill(lake: RawLake, rows: pl.DataFrame, hours: int) -> None:
    for number in range(hours):
        start = DAY + number * HOUR
        of_hour = rows.filter(pl.col("exchange_ts").is_between(start, start + HOUR, closed="left"))
        lake.publish(raw("orderbook_deltas"), closed(start), of_hour, rows_per_group=64)


@pytest.mark.parametrize(("chunk_bytes", "part_bytes"), [(1, 1), (8_000, 500), (50_000, 3_000), (10**9, 10**9)])
def test_chunks_of_any_size_give_the_same_rows(tmp_path: Path, chunk_bytes: int, part_bytes: int) -> None:
    lake, rows = RawLake(tmp_path), deltas(1, 3, 4_000)
    fill(lake, rows, 3)
    data = echo()
    hours = [closed(DAY + number * HOUR, active=number < 3) for number in range(24)]
    found = lake.derive(data, hours, chunk_bytes=chunk_bytes, part_bytes=part_bytes)
    keys = list(COLUMNS)
    assert found.sort(keys).equals(rows.select(keys).sort(keys))
    assert found.select("ticker", "exchange_ts").equals(
        found.select("ticker", "exchange_ts").sort("ticker", "exchange_ts")
    )
    sizes = {sum(call[3] for call in each.calls) for each in Echo.made}
    for each in Echo.made:
        starts, ends = [call[0] for call in each.calls], [call[1] for call in each.calls]
        assert (starts[0], ends[-1]) == (us_from_datetime(DAY), us_from_datetime(DAY) + 24 * US_PER_HOUR)
        assert starts[1:] == ends[:-1]
    in_parts = [each for each in Echo.made if len(each.calls) > 24]
    assert bool(in_parts) == (part_bytes <= 3_000)
    assert all(call[3] <= 3 * 64 < max(sizes) for each in in_parts for call in each.calls)
    # A value counts as eight bytes.
    rows_of = [(each.markets, sum(call[3] for call in each.calls)) for each in Echo.made]
    assert all(markets == 1 or 32 * count <= chunk_bytes for markets, count in rows_of)


def test_rows_that_grow_go_through_smaller_builders(tmp_path: Path) -> None:
    lake, rows = RawLake(tmp_path), deltas(2, 2, 2_000)
    fill(lake, rows, 2)
    hours = [closed(DAY + number * HOUR) for number in range(2)]
    made = []
    for growth in (1.0, 3.0):
        data = echo(growth=growth)
        found = lake.derive(data, hours, chunk_bytes=10**6, part_bytes=10**6 // 2)
        made.append((found, len(Echo.made)))
        growth_bytes = 10**5
        data = echo(growth=growth)
        made.append((lake.derive(data, hours, chunk_bytes=growth_bytes, part_bytes=growth_bytes), len(Echo.made)))
    assert all(found.equals(made[0][0]) for found, _ in made)
    assert made[3][1] > made[1][1]


def test_hours_around_the_day_come_marked(tmp_path: Path) -> None:
    lake = RawLake(tmp_path)
    rows = deltas(3, 2, 500).with_columns(pl.col("exchange_ts") - timedelta(hours=1))
    for number in (-1, 0):
        start = DAY + number * HOUR
        of_hour = rows.filter(pl.col("exchange_ts").is_between(start, start + HOUR, closed="left"))
        lake.publish(raw("orderbook_deltas"), closed(start), of_hour)
    found = lake.derive(echo(hours_before=1), [closed(DAY - HOUR), closed(DAY)])
    assert found.height == rows.filter(pl.col("exchange_ts") >= DAY).height
    (made,) = Echo.made
    assert [call[2] for call in made.calls] == [False, True]


def test_a_day_without_rows_gives_none(tmp_path: Path) -> None:
    assert RawLake(tmp_path).derive(echo(), [closed(DAY, active=False)]).height == 0


def test_raw_hours_that_lack_or_are_of_another_close_are_named(tmp_path: Path) -> None:
    lake, rows = RawLake(tmp_path), deltas(4, 1, 50)
    fill(lake, rows, 1)
    with pytest.raises(StaleInput, match=r"01:00 is not in the lake.*export orderbook_deltas 2026-11-20T01") as error:
        lake.derive(echo(), [closed(DAY), closed(DAY + HOUR)])
    assert error.value.missing == ("raw/orderbook_deltas 2026-11-20-01:00",)
    with pytest.raises(StaleInput, match="of another close"):
        lake.derive(echo(), [closed(DAY, "close 2")])


def test_raw_hours_of_an_older_version_are_read_by_their_former_names(tmp_path: Path) -> None:
    lake, data = RawLake(tmp_path), raw("book_checkpoints")
    older = replace(
        data,
        name=data.formerly or "",
        time_column="anchor_ts",
        columns=tuple(replace(each, name=each.formerly or each.name, since=1) for each in data.columns),
        order=("ticker", "anchor_ts"),
    )
    assert (older.version, older.key) == (1, "raw/book_anchors")
    book = {
        "ticker": ["KXA"],
        "anchor_ts": [DAY + HOUR / 2],
        "yes_price_e4": [[100, 4_200]],
        "yes_count_e2": [[5, 6]],
        "no_price_e4": [[]],
        "no_count_e2": [[]],
    }
    lake.publish(older, closed(DAY), pl.DataFrame(book))
    for name in ("orderbook_deltas", "coverage"):
        lake.publish(raw(name), closed(DAY), pl.DataFrame(raw(name).schema.empty_table()))
    found = lake.derive(DATASETS["processed/book_deltas"], [closed(DAY)])
    assert found.select("event", "side", pl.col("price_dollars").cast(pl.Float64)).rows() == [
        ("open", "yes", 0.01),
        ("open", "yes", 0.42),
    ]
