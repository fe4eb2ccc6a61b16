"""Reads and writes what production keeps of a closed hour: checkpoints, claims, coverage, proofs, statistics, alarms.

A close replaces what it wrote of the hour before, so that it can be repeated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from kalshi_platform.deduplicator.close.overlap import STATISTICS
from kalshi_platform.deduplicator.coverage.verification.verify_claims import Verification
from kalshi_platform.market.tables import CLOSE_TABLES, MERGED_TABLES, PRODUCTION_TABLES, Table
from kalshi_platform.market.times import HOUR, datetime_from_us, us_from_datetime
from kalshi_platform.storage.alert_store import record_alert
from kalshi_platform.storage.pool import Transaction
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))

Alarm = tuple[str, str, str]
CLAIM_COLUMNS = {"gatherer": pl.String, "stream_id": pl.Int64, "ticker": pl.String, "from_us": pl.Int64,
                 "to_us": pl.Int64, "rows": pl.Int64, "content": pl.Int64, "withdrawn": pl.String}  # fmt: skip
_REGRESSIONS = {"gatherer": pl.String, "stream_id": pl.Int64, "ticker": pl.String, "steps": pl.Int64,
          "largest_us": pl.Int64, "exchange_us": pl.Int64}  # fmt: skip
_STATISTICS = {**STATISTICS, "agreement": pl.Float64}
_MICROSECOND = timedelta(microseconds=1)
_A_WEEK = timedelta(days=7)
_NAMED_AT_MOST = 5


def read_kept_claims(transaction: Transaction, hour: datetime, streams: Mapping[str, Iterable[int]]) -> pl.DataFrame:
    """Read claims of the hour whose streams (by gatherer) are not in `streams`: they can no longer be read."""
    rows = transaction.fetch_all(_SQL["read_claims"], (hour, hour + HOUR))
    found = pl.DataFrame(rows, schema=CLAIM_COLUMNS, orient="row")
    return _without_streams(found, streams)


def read_run_checks(transaction: Transaction, hour: datetime, tickers: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Read how many run checks of these markets the last close made, and how many of them failed."""
    rows = transaction.fetch_all(_SQL["read_run_checks"], (hour, sorted(set(tickers))))
    return {ticker: (checks, failures) for ticker, checks, failures in rows}


def find_contradicted_hours(transaction: Transaction, before: datetime, failed: pl.DataFrame) -> tuple[datetime, ...]:
    """Return hours of the week before `before` with claims that stand over a check that has failed.

    `failed`: gatherer, stream_id, ticker, low_us, high_us.
    """
    late = failed.filter(pl.col("low_us") < us_from_datetime(before))
    columns = [late[name].to_list() for name in ("gatherer", "stream_id", "ticker", "low_us", "high_us")]
    rows = transaction.fetch_all(
        _SQL["find_contradicted_hours"],
        (*columns[:3], *([datetime_from_us(us) for us in each] for each in columns[3:]), before, before - _A_WEEK),
    )
    return tuple(sorted(row[0] for row in rows))


def replace_verification(transaction: Transaction, hour: datetime, verification: Verification) -> None:
    """Replace claims, coverage and proofs of the hour."""
    for table in ("stream_claims", "coverage", "book_proofs"):
        time = CLOSE_TABLES[table].time_column
        transaction.execute(_SQL["delete_between"].format(table=table, time=time), (hour, hour + HOUR))
    at = pl.lit(hour).dt.cast_time_unit("us").alias("hour")
    claims = verification.claims.with_columns(at, from_ts=_time("from_us"), to_ts=_time("to_us"))
    _insert(transaction, CLOSE_TABLES["stream_claims"], claims)
    _insert(transaction, CLOSE_TABLES["coverage"], _coverage_rows(verification).with_columns(at))
    _insert(transaction, CLOSE_TABLES["book_proofs"], verification.proofs.with_columns(at))


def replace_statistics(transaction: Transaction, hour: datetime, statistics: pl.DataFrame) -> pl.DataFrame:
    """Replace the statistics of the hour, table by table; return those that stand then.

    A table's stay where a gatherer shows less of it now than it did, or as much of which less can be compared: it is
    away, or has lost rows (its snapshots, perhaps, without which it claims nothing), and the comparison that was made
    with all of them is the better one. Of a gatherer that shows more than it did they are replaced then
    too: how many rows it showed decides whether it may drop these.
    """
    before = _read_statistics(transaction, hour)
    subject = ("gatherer", "table_name")
    both = before.select(*subject, _then="seen", _compared="comparable").join(
        statistics.select(*subject, _now="seen", _comparable="comparable"), on=subject, how="full", coalesce=True
    )
    both = both.with_columns(pl.col("_then", "_now", "_compared", "_comparable").fill_null(0))
    shows_less = (pl.col("_now") < pl.col("_then")) | (
        (pl.col("_now") == pl.col("_then")) & (pl.col("_comparable") < pl.col("_compared"))
    )
    kept = both.filter(shows_less)["table_name"].unique().to_list()
    standing = both.filter(pl.col("table_name").is_in(kept) & (pl.col("_now") <= pl.col("_then"))).select(subject)
    transaction.execute(_SQL["delete_statistics"], (hour, [" ".join(row) for row in standing.iter_rows()]))
    transaction.execute_values(
        _SQL["insert_statistics"].format(columns=", ".join(_STATISTICS)),
        [
            (hour, *row)
            for row in statistics.join(standing, on=subject, how="anti").select(_STATISTICS.keys()).iter_rows()
        ],
    )
    return _read_statistics(transaction, hour)


def record_streams(transaction: Transaction, hour: datetime, held: Mapping[str, pl.DataFrame]) -> None:
    """Record what the streams that were read hold of the hour, by gatherer; see gatherer_hour.HELD."""
    transaction.execute_values(
        _SQL["record_streams"], [(hour, name, *row) for name, streams in held.items() for row in streams.iter_rows()]
    )


def read_regression_alarms(transaction: Transaction, hour: datetime, max_out_of_orderness_us: int) -> list[Alarm]:
    """Read alarms of streams whose time went back by more than the bound, read now or by an earlier close."""
    rows = transaction.fetch_all(_SQL["find_large_regressions"], (hour, max_out_of_orderness_us))
    return [
        (
            "time_step_back",
            f"{gatherer} stream {stream_id}",
            f"{steps} steps back, the largest of {largest} µs; beyond {max_out_of_orderness_us} nothing is claimed",
        )
        for gatherer, stream_id, steps, largest in rows
    ]


def replace_regressions(
    transaction: Transaction, hour: datetime, regressions: pl.DataFrame, streams: Mapping[str, Iterable[int]]
) -> None:
    """Replace the time regressions of the streams that were read. `regressions`: the columns of _REGRESSIONS."""
    for gatherer, stream_ids in streams.items():
        transaction.execute(_SQL["delete_regressions"], (hour, gatherer, sorted(stream_ids)))
    transaction.execute_values(
        _SQL["insert_regressions"],
        [(hour, *row[:5], datetime_from_us(row[5])) for row in regressions.select(_REGRESSIONS.keys()).iter_rows()],
    )


def replace_alarms(transaction: Transaction, hour: datetime, alarms: Iterable[Alarm]) -> None:
    """Replace the alarms of the hour; one that is raised again keeps its moment. People hear of those that are new."""
    found = {(kind, subject): detail for kind, subject, detail in alarms}
    known = {(kind, subject) for kind, subject, _ in read_alarms(transaction, hour)}
    _record_alerts(transaction, hour, {key: detail for key, detail in found.items() if key not in known})
    rows = [(hour, kind, subject, detail) for (kind, subject), detail in sorted(found.items())]
    transaction.execute(_SQL["delete_alarms"], (hour, [f"{kind} {subject}" for kind, subject in found]))
    transaction.execute_values(_SQL["upsert_alarms"], rows)


def _record_alerts(transaction: Transaction, hour: datetime, alarms: Mapping[tuple[str, str], str]) -> None:
    """Record one alert for each kind: hundreds of markets may fail of one cause."""
    by_kind: dict[str, list[str]] = defaultdict(list)
    for (kind, subject), detail in sorted(alarms.items()):
        by_kind[kind].append(f"{subject}: {detail}")
    for kind, lines in by_kind.items():
        more = len(lines) - _NAMED_AT_MOST
        shown = [*lines[:_NAMED_AT_MOST], *([f"and {more:,} more, in the table close_alarms"] if more > 0 else [])]
        record_alert(transaction, kind, f"hour {hour:%Y-%m-%dT%H}", "\n".join(shown))


def read_alarms(transaction: Transaction, hour: datetime) -> tuple[Alarm, ...]:
    """Read the alarms of the hour as the last close left them."""
    rows = transaction.fetch_all(_SQL["read_alarms"], (hour,))
    return tuple((kind, subject, detail) for kind, subject, detail in rows)


def count_rows(transaction: Transaction, hour: datetime) -> dict[str, int]:
    """Count the rows of the hour by table: merged tables and book_checkpoints."""
    counts = {}
    for table in (*MERGED_TABLES, "book_checkpoints"):
        time = PRODUCTION_TABLES[table].time_column
        row = transaction.fetch_one(_SQL["count_between"].format(table=table, time=time), (hour, hour + HOUR))
        counts[table] = int(row[0]) if row else 0
    return counts


def read_checkpointed_snapshots(transaction: Transaction, low: datetime, high: datetime) -> pl.DataFrame:
    """Read which snapshots have a checkpoint in [low, high): gatherer, stream_id, seq, ticker."""
    rows = transaction.fetch_all(_SQL["find_checkpointed_snapshots"], (low, high))
    schema = {"gatherer": pl.String, "stream_id": pl.Int64, "seq": pl.Int64, "ticker": pl.String}
    return pl.DataFrame(rows, schema=schema, orient="row")


def read_checkpointed_streams(transaction: Transaction, hour: datetime) -> dict[str, frozenset[int]]:
    """Read which streams have a checkpoint in the hour, by gatherer."""
    rows = transaction.fetch_all(_SQL["find_checkpointed_streams"], (hour, hour + HOUR))
    return {gatherer: frozenset(stream_ids) for gatherer, stream_ids in rows}


def replace_checkpoints(
    transaction: Transaction, hour: datetime, streams: pl.DataFrame, checkpoints: Iterable[pl.DataFrame]
) -> None:
    """Put `checkpoints` (rows of book_checkpoints) in place of the hour's checkpoints of `streams`.

    `streams`: gatherer, stream_id.
    """
    for (gatherer,), mine in streams.group_by("gatherer"):
        stream_ids = mine["stream_id"].sort().to_list()
        transaction.execute(_SQL["delete_checkpoints"], (hour, hour + HOUR, gatherer, stream_ids))
    for rows in checkpoints:
        _insert(transaction, PRODUCTION_TABLES["book_checkpoints"], rows)


def read_failed_markets(transaction: Transaction, hour: datetime) -> tuple[str, ...]:
    """Read the markets whose books or claims failed."""
    rows = transaction.fetch_all(_SQL["find_failed_markets"], (hour,))
    return tuple(ticker for (ticker,) in rows)


def replace_derived_checkpoints(transaction: Transaction, hour: datetime, checkpoints: pl.DataFrame) -> bool:
    """Replace the derived checkpoints at the end of the hour; return whether that changed anything."""
    at = hour + HOUR - _MICROSECOND
    columns = ["ticker", "stream_id", "seq", "yes_price_e4", "yes_count_e2", "no_price_e4", "no_count_e2"]
    before = transaction.fetch_all(_SQL["read_derived_checkpoints"].format(columns=", ".join(columns)), (at,))
    if sorted(before) == sorted(tuple(row) for row in checkpoints.select(columns).iter_rows()):
        return False
    transaction.execute(_SQL["delete_derived_checkpoints"], (at,))
    moment = pl.lit(at).dt.cast_time_unit("us").alias("checkpoint_ts")
    _insert(transaction, PRODUCTION_TABLES["book_checkpoints"], checkpoints.with_columns(moment, gatherer=pl.lit("")))
    return True


def _read_statistics(transaction: Transaction, hour: datetime) -> pl.DataFrame:
    rows = transaction.fetch_all(_SQL["read_statistics"].format(columns=", ".join(_STATISTICS)), (hour,))
    return pl.DataFrame(rows, schema=_STATISTICS, orient="row")


def _coverage_rows(verification: Verification) -> pl.DataFrame:
    rows: list[tuple[str, int, int]] = [
        (ticker, low, high) for ticker, intervals in verification.coverage.items() for low, high in intervals
    ]
    ranges = pl.DataFrame(rows, schema={"ticker": pl.String, "low": pl.Int64, "high": pl.Int64}, orient="row")
    standing = verification.claims.filter(pl.col("withdrawn").is_null())
    held = ranges.join(standing, on="ticker").filter(
        (pl.col("from_us") < pl.col("high")) & (pl.col("to_us") > pl.col("low"))
    )
    return (
        held.group_by("ticker", "low", "high")
        .agg(
            pl.col("gatherer").unique().sort().alias("gatherers"),
            pl.col("stream_id").unique().sort().alias("stream_ids"),
        )
        .sort("ticker", "low")
        .with_columns(from_ts=_time("low"), to_ts=_time("high"))
    )


def _time(column: str) -> pl.Expr:
    return pl.from_epoch(column, time_unit="us").dt.replace_time_zone("UTC")


def _insert(transaction: Transaction, table: Table, rows: pl.DataFrame) -> None:
    if rows.height:
        data = rows.select(table.names).to_arrow(compat_level=pl.CompatLevel.oldest())
        transaction.insert_new(table, data)


def _without_streams(claims: pl.DataFrame, streams: Mapping[str, Iterable[int]]) -> pl.DataFrame:
    return claims.join(frame_streams(streams), on=["gatherer", "stream_id"], how="anti")


def frame_streams(streams: Mapping[str, Iterable[int]]) -> pl.DataFrame:
    """Return streams by gatherer as rows of gatherer, stream_id."""
    pairs = [(name, stream_id) for name, ids in streams.items() for stream_id in ids]
    return pl.DataFrame(pairs, schema={"gatherer": pl.String, "stream_id": pl.Int64}, orient="row")
