"""Production = raw partitions = reader, row for row and column for column; and production against the exchange."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import polars as pl

from kalshi_platform.config import PlatformSettings
from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lab.proof.comparison import stored_rows
from kalshi_platform.lab.proof.comparison.compare import Comparison
from kalshi_platform.lab.proof.comparison.tables import DELTAS, LIFECYCLE, TICKERS, TRADES, ComparableTable
from kalshi_platform.lab.proof.comparison.truth import Truth
from kalshi_platform.lab.proof.simulated.findings import Compared
from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.lake.layout import partition_starting
from kalshi_platform.lake.manifest import find_manifest
from kalshi_platform.lake.reader.frames import read_rows
from kalshi_platform.market.intervals import covers
from kalshi_platform.market.times import HOUR
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

ROWS_AT_ONCE = 400_000
TEXT_ID = "trade_id_text"
"""Where the lake keeps identifiers of trades that are no UUID; production has one column of text."""


def compare_stores(settings: PlatformSettings, lake_folder: Path, hours: Sequence[datetime]) -> Compared:
    """Compare every raw table of closed hours: production, the files as any program reads them, and the reader."""
    figures: dict[str, float] = {"hours": len(hours)}
    problems = []
    with arrow_snapshot(settings.deduplicator.production_url) as production:
        for data in (each for each in DATASETS.values() if each.layer == "raw"):
            figures[f"rows of {data.name}"] = 0
            for hour in hours:
                stored = _comparable(data, _production(production, data, hour))
                files = _comparable(data, _files(settings, lake_folder, data, hour))
                read = read_rows(settings.lake, data, hour, hour + HOUR, None, holes="mark")
                figures[f"rows of {data.name}"] += stored.height
                for name, other in (("its files", files), ("the reader", _comparable(data, read))):
                    if not stored.equals(other):
                        problems.append(
                            f"{data.key} of {hour:%Y-%m-%dT%H}: production has {stored.height:,} rows, {name}"
                            f" {other.height:,}, and they differ{_where(stored, other)}"
                        )
    return Compared("production = raw files = reader", figures, tuple(problems))


def _production(snapshot: ArrowSnapshot, data: Dataset, hour: datetime) -> pl.DataFrame:
    columns = ", ".join(name for name in data.schema.names if name != TEXT_ID)
    rows = snapshot.table(
        f"SELECT {columns} FROM {data.source} WHERE {data.time_column} >= $1 AND {data.time_column} < $2",  # noqa: S608 - our own names
        [hour, hour + HOUR],
    )
    return pl.DataFrame(pl.from_arrow(rows))


def _files(settings: PlatformSettings, folder: Path, data: Dataset, hour: datetime) -> pl.DataFrame:
    found = find_manifest(settings.lake, partition_starting(data, hour))
    if found is None or found[1].state != "closed":
        raise LakeCorrupt(f"{data.key} of {hour:%Y-%m-%dT%H} is not published as closed")
    path, manifest = found
    files = [folder / path / file.name for file in manifest.files]
    if not files:
        return pl.DataFrame(schema=pl.DataFrame(pl.from_arrow(data.schema.empty_table())).schema)
    return pl.concat([pl.read_parquet(file, hive_partitioning=False) for file in files])


def _comparable(data: Dataset, rows: pl.DataFrame) -> pl.DataFrame:
    """Bring rows to one shape: decimals and JSON as text, ids of trades as text, sorted by what names a row."""
    if TEXT_ID in rows.columns or rows.schema.get("trade_id") == pl.Binary:
        rows = _with_text_ids(rows)
    names = [name for name in data.schema.names if name != TEXT_ID]
    texts = [
        pl.col(name).cast(pl.String) for name in names if isinstance(rows.schema[name], pl.Decimal | pl.Categorical)
    ]
    whole = [pl.col(name).cast(pl.Int64) for name in names if rows.schema[name].is_integer()]
    return rows.select(names).with_columns(*texts, *whole).sort([name for name in data.identity if name in names])


def _with_text_ids(rows: pl.DataFrame) -> pl.DataFrame:
    if rows.schema["trade_id"] == pl.Binary:
        digits = pl.col("trade_id").bin.encode("hex")
        parts = [digits.str.slice(start, length) for start, length in ((0, 8), (8, 4), (12, 4), (16, 4), (20, 12))]
        rows = rows.with_columns(trade_id=pl.concat_str(parts, separator="-"))
    if TEXT_ID in rows.columns:
        rows = rows.with_columns(trade_id=pl.coalesce("trade_id", TEXT_ID))
    return rows


def _where(stored: pl.DataFrame, other: pl.DataFrame) -> str:
    if stored.schema != other.schema:
        types = [f"{name} {kind}" for name, kind in stored.schema.items() if other.schema.get(name) != kind]
        return f" in types: {', '.join(types)}"
    if stored.height != other.height:
        return ""
    differing = [name for name in stored.columns if not stored[name].equals(other[name])]
    return f" in {', '.join(differing)}"


def compare_truth(settings: PlatformSettings, truth: Truth) -> Compared:
    """Compare production with what the exchange published; deltas may lack only where coverage claims nothing."""
    figures: dict[str, float] = {}
    problems = []
    with stored_rows.Production(settings.deduplicator.production_url) as production:
        claims = production.coverage()
        published = {DELTAS: truth.deltas, TRADES: truth.trades, TICKERS: truth.tickers}
        parts = truth.parts(ROWS_AT_ONCE)
        differences = {}
        for table, read in published.items():
            comparison = Comparison(table)
            for part in parts:
                comparison.add(read(part), production.rows(table, part))
            differences[table] = comparison.result()
        lifecycle = Comparison(LIFECYCLE)
        lifecycle.add(truth.lifecycle, production.rows(LIFECYCLE))
        differences[LIFECYCLE] = lifecycle.result()
    with arrow_snapshot(settings.deduplicator.production_url) as snapshot:
        late = _received_late(snapshot)
    for table, found in differences.items():
        figures[f"published {table.name}"] = found.truth
        figures[f"missing {table.name}"] = found.missing.height
        doubled = found.doubled.height
        if table is LIFECYCLE:
            figures["market_lifecycle received again too late to be one event"] = min(late, doubled)
            doubled -= min(late, doubled)
        problems += _of_table(table, doubled, found.wrong.height)
        if table is DELTAS:
            undeclared = sum(
                covers(claims.get(ticker, []), moment)
                for ticker, moment in found.missing.select("ticker", "exchange_us").iter_rows()
            )
            if undeclared:
                problems.append(f"{undeclared:,} missing deltas lie where production claims to be whole")
        elif found.missing.height:
            problems.append(f"{table.name}: {found.missing.height:,} rows are missing")
    return Compared("production against what was published", figures, tuple(problems))


def _received_late(snapshot: ArrowSnapshot) -> int:
    """Count equal events that gatherers received more than five minutes apart, which makes them two by the rule.

    At 300 times the pace a frame that waits for a second in a socket comes five minutes late.
    """
    rows = snapshot.table(
        "SELECT coalesce(sum(n), 0)::bigint AS n FROM (SELECT count(*) - 1 AS n FROM market_lifecycle"
        " GROUP BY ticker, event_type, content HAVING count(*) > 1"
        " AND max(received_at) - min(received_at) > INTERVAL '5 minutes') AS again"
    )
    return int(rows.column("n")[0].as_py())


def _of_table(table: ComparableTable, doubled: int, wrong: int) -> list[str]:
    return [
        f"{table.name}: {count:,} rows are {what}" for count, what in ((doubled, "doubled"), (wrong, "wrong")) if count
    ]
