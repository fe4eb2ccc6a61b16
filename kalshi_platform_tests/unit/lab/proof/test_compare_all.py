"""The walk in parts: a row deleted, doubled or altered anywhere is found, and what a gatherer lost is."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from kalshi_platform.lab.proof.comparison.books import Fold
from kalshi_platform.lab.proof.comparison.checkpoints import CheckpointCheck, CheckpointsFound
from kalshi_platform.lab.proof.comparison.compare import Difference
from kalshi_platform.lab.proof.comparison.compare_all import ComparedAll, GathererRows, compare_all
from kalshi_platform.lab.proof.comparison.tables import DELTAS, TICKERS, TRADES, ComparableTable, shaped, ticker_columns
from kalshi_platform.lab.proof.comparison.truth import ALL_TIME, Truth, read_truth
from kalshi_platform.lab.proof.examine import merge_lost
from kalshi_platform.lab.simulator.engine.truth import TruthLedger
from kalshi_platform.market.intervals import Interval

S = 1_000_000
START = 1_795_000_000 * S
COUNT = 60
BODY = '{"price_dollars":"0.5000","volume_fp":"1.00","dollar_volume":%d}'
CHECKPOINTS = pl.DataFrame(
    {
        "checkpoint_ts": pl.Series([START], dtype=pl.Int64).cast(pl.Datetime("us", "UTC")),
        "ticker": ["A"],
        "yes_price_e4": [[5_000]],
        "yes_count_e2": [[100]],
        "no_price_e4": [[]],
        "no_count_e2": [[]],
    },
    schema_overrides={"no_price_e4": pl.List(pl.Int64), "no_count_e2": pl.List(pl.Int64)},
)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Truth:
    """A minute: each second two deltas, every fifth second two that are equal in every field, a trade, a ticker."""
    ledger = TruthLedger(tmp_path_factory.mktemp("truth"))
    for second in range(1, COUNT + 1):
        at = START + second * S + 250_000
        ledger.n += 4
        size = 100 if second % 5 == 0 else -100
        ledger.deltas.append((ledger.n, at, "A", "yes", 5_000, 100))
        ledger.deltas.append((ledger.n + 1, at, "A", "yes", 5_000, size))
        ledger.trades.append((ledger.n + 2, at + 7, "A", f"t{second}", 5_000, 100, "yes", False))
        ledger.tickers.append((ledger.n + 3, at + 9, "A", BODY % second, False))
    ledger.write("books", [("first", "A", "yes", 5_000, 100)])
    ledger.served.append((0, "A", "c1", "platform (g1 books)"))
    ledger.close()
    return read_truth(Path(str(ledger._target)), START)


def stored(truth: Truth) -> dict[str, pl.DataFrame]:
    return {
        DELTAS.name: truth.deltas(ALL_TIME).select(DELTAS.columns),
        TRADES.name: truth.trades(ALL_TIME).select(TRADES.columns),
        TICKERS.name: truth.tickers(ALL_TIME).select(TICKERS.columns),
    }


def compared(
    truth: Truth, production: dict[str, pl.DataFrame], rows_at_once: int, recorded: pl.DataFrame
) -> ComparedAll:
    whole = stored(truth)

    def within(rows: pl.DataFrame, part: Interval) -> pl.DataFrame:
        return rows.filter(pl.col("exchange_us").is_between(*part, closed="left"))

    def of_production(table: ComparableTable, part: Interval) -> pl.DataFrame:
        return within(production[table.name], part)

    def of_lake(table: ComparableTable, part: Interval) -> pl.DataFrame:
        return within(whole[table.name], part)

    seen = recorded.group_by(DELTAS.columns).agg(pl.len().cast(pl.Int64).alias("seen"))
    gatherer = GathererRows(lambda part: within(seen, part), truth.served.select("n", "ticker"))
    folds = Fold(CHECKPOINTS), Fold(CHECKPOINTS)
    checks = [CheckpointCheck(truth.first_books, CHECKPOINTS)]
    found = compare_all(
        truth, (of_production, folds[0]), (of_lake, folds[1]), checks, {"g1": gatherer}, {"A": 0}, rows_at_once
    )
    assert all(difference.is_none for difference in found.lake.values())
    assert checks[0].result() == CheckpointsFound(1)
    assert folds[1].levels().rows() == [("A", "yes", 5_000, 100 + COUNT // 5 * 200)]
    return found


def counts(found: ComparedAll, name: str) -> tuple[int, int, int]:
    difference = found.production[name]
    return difference.missing.height, difference.doubled.height, difference.wrong.height


@pytest.mark.parametrize("rows_at_once", [20, 10_000])
def test_a_whole_record_is_whole_in_any_parts(truth: Truth, rows_at_once: int) -> None:
    rows = stored(truth)
    found = compared(truth, rows, rows_at_once, rows[DELTAS.name])
    assert len(found.parts) == {20: COUNT // 10 + 1, 10_000: 1}[rows_at_once]
    assert [each.truth for each in found.production.values()] == [2 * COUNT, COUNT, COUNT]
    assert all(difference.is_none for difference in found.production.values())
    assert found.lost == {"g1": []}
    assert found.last_us == {"A": START + COUNT * S + 250_000}


@pytest.mark.parametrize(("name", "place"), [(DELTAS.name, 39), (TRADES.name, 0), (TICKERS.name, COUNT - 1)])
def test_one_row_deleted_doubled_or_altered_is_found(truth: Truth, name: str, place: int) -> None:
    rows = stored(truth)
    whole = rows[name]
    column = {DELTAS.name: "delta_e2", TRADES.name: "count_e2", TICKERS.name: "dollar_volume"}[name]
    here = pl.int_range(pl.len()) == place
    altered = whole.with_columns(pl.when(here).then(pl.col(column) + 7_777).otherwise(pl.col(column)).alias(column))
    moved = whole.with_columns(exchange_us=pl.when(here).then(START + 30 * S).otherwise(pl.col("exchange_us")))
    for changed, expected in (
        (whole.filter(~here), (1, 0, 0)),
        (pl.concat([whole, whole[place]]), (0, 1, 0)),
        (altered, (0, 0, 1)),
        (moved, (0, 0, 1)),
    ):
        found = compared(truth, rows | {name: changed}, 40, rows[DELTAS.name])
        assert counts(found, name) == expected
        assert all(each.is_none for other, each in found.production.items() if other != name)


def test_what_a_gatherer_has_and_production_lacks_was_lost_by_the_merge(truth: Truth) -> None:
    rows = stored(truth)
    whole = rows[DELTAS.name]
    without = rows | {DELTAS.name: whole[:4].vstack(whole[5:])}
    assert merge_lost(*_deltas(compared(truth, without, 40, whole))) == 1
    assert merge_lost(*_deltas(compared(truth, without, 40, without[DELTAS.name]))) == 0
    assert merge_lost(*_deltas(compared(truth, rows, 40, whole))) == 0


def test_a_delta_that_the_gatherer_lacks_is_named_by_its_number(truth: Truth) -> None:
    rows = stored(truth)
    found = compared(truth, rows, 40, rows[DELTAS.name][:6].vstack(rows[DELTAS.name][7:]))
    assert found.lost == {"g1": [16]}


def _deltas(found: ComparedAll) -> tuple[Difference, pl.DataFrame]:
    return found.production[DELTAS.name], found.best_seen


def test_tickers_of_the_ledger_are_read_as_they_are_stored(truth: Truth) -> None:
    first = {"exchange_us": START + S + 250_000, "ticker": "A"} | ticker_columns(
        {"price_dollars": "0.5000", "volume_fp": "1.00", "dollar_volume": 1}
    )
    assert stored(truth)[TICKERS.name][0].equals(shaped(TICKERS, pl.DataFrame([first])))
