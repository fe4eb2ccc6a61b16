"""Reads an hour of production into files by bucket of markets, and a bucket of it as arrays for its verification.

Production is read once for all buckets. Rows become numbers batch by batch while they stream in; of books that are to
be compared only the hash is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.coverage.multiset_hash import (
    book_hashes,
    fingerprint_deltas,
    hash_changes,
)
from kalshi_platform.deduplicator.coverage.timeline import Ints, Timeline, TimelineKeys
from kalshi_platform.deduplicator.coverage.verification.check_books import Checkpoints, PolledBooks
from kalshi_platform.deduplicator.coverage.verification.verify_claims import ProductionHour
from kalshi_platform.deduplicator.merge.bucket_file import BucketFile
from kalshi_platform.deduplicator.merge.deduplicate import PRODUCTION_KEYS
from kalshi_platform.deduplicator.merge.hour_files import OTHER_TABLES, number_levels
from kalshi_platform.deduplicator.merge.market_buckets import MarketBuckets
from kalshi_platform.market.fold import LEVEL_TYPES, Changes
from kalshi_platform.market.intervals import Interval
from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.market.times import US_PER_S, datetime_from_us
from kalshi_platform.storage.arrow import arrow_schema
from kalshi_platform.storage.queries import load
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

_SQL = load(Path(__file__).parents[1] / "queries.sql")

_MINUTE_US = 60 * US_PER_S
_BATCH_BYTES = 8 * 1024 * 1024
_DELTAS = pa.schema(
    [
        ("market", pa.int32()), ("us", pa.int64()), ("level", pa.int32()), ("delta", pa.int64()),
        ("occurrence", pa.int32()), ("observer", pa.int32()), ("seq", pa.int64()),
    ]
)  # fmt: skip
_POLLED = pa.schema(
    [
        ("market", pa.int64()), ("requested", pa.int64()), ("received", pa.int64()), ("hash", pa.uint64()),
    ]
)  # fmt: skip
_CHECKPOINTS = arrow_schema(PRODUCTION_TABLES["book_checkpoints"])


class Clocks(NamedTuple):
    """`age_us`: how old a polled book may be when it is answered; `skew_us`: how far our clock may be from Kalshi's.

    Polls of minutes in which rows came earlier or later than that allows cannot be found inconsistent.
    """

    age_us: int
    skew_us: int

    @property
    def around_us(self) -> int:
        """How far beyond the hour deltas are read for the polled books of it."""
        return self.age_us + self.skew_us + _MINUTE_US


class HourRows(NamedTuple):
    """`hour`: what verify_claims() takes. `changes` and `exchange_us`: the deltas, `line` being the market.

    `checkpoints`: the rows behind hour.checkpoints, with the lists of levels.
    """

    hour: ProductionHour
    changes: Changes
    exchange_us: Ints
    checkpoints: pl.DataFrame


class DeltaArrays(NamedTuple):
    """Deltas of production, ascending by (market, us): see _DELTAS."""

    market: Ints
    us: Ints
    level: Ints
    delta: Ints
    occurrence: Ints


class ProductionFiles:
    """Production's rows of [low, high) by bucket. Raises DatabaseUnavailable.

    Deltas reach as far beyond the hour as polled books need; of other tables there are the keys.
    """

    def __init__(self, url: str, folder: Path, markets: MarketBuckets, edges: Interval, clocks: Clocks) -> None:
        folder.mkdir()
        self._url = url
        self._folder = folder
        self._markets = markets
        self._edges = edges
        self._clocks = clocks
        self._reads = 0
        self.rows_read = 0
        self._delays: list[pl.DataFrame] = []
        self._deltas = self._polled = self._checkpoints = None  # type: BucketFile | None
        self._keys: Mapping[str, BucketFile] = {}

    def read_rows(self) -> None:
        """Read deltas, and the keys of other tables."""
        self.read_deltas()
        keys = {}
        with arrow_snapshot(self._url) as snapshot:
            for table in OTHER_TABLES:
                columns = PRODUCTION_KEYS[table]
                schema = pa.schema([arrow_schema(PRODUCTION_TABLES[table]).field(name) for name in columns])
                keys[table] = BucketFile(self._folder / f"{table}_keys", schema)
                statement = _SQL["read_keys_between"].format(
                    columns=", ".join(columns), table=table, time=PRODUCTION_TABLES[table].time_column
                )
                for batch in snapshot.batches(
                    statement, tuple(map(datetime_from_us, self._edges)), batch_bytes=_BATCH_BYTES
                ):
                    for rows in pa.Table.from_batches([batch]).cast(schema).to_batches():
                        self._append(keys[table], rows)
        self._keys = keys

    def read_deltas(self) -> None:
        """Read deltas, again if they were read before."""
        self._reads += 1
        if self._deltas is not None:
            self._deltas.close()
        self._deltas = BucketFile(self._folder / f"deltas_{self._reads}", _DELTAS)
        self._delays = []
        observers: dict[tuple[str, int], int] = {}
        around = self._clocks.around_us
        window = (datetime_from_us(self._edges[0] - around), datetime_from_us(self._edges[1] + around))
        with arrow_snapshot(self._url) as snapshot:
            for batch in snapshot.batches(_SQL["read_deltas_between"], window, batch_bytes=_BATCH_BYTES):
                if batch.num_rows:
                    self._append_deltas(self._deltas, batch, observers)

    def read_books(self) -> None:
        """Read what books are checked against: checkpoints of production, and polled books."""
        self._checkpoints = BucketFile(self._folder / "checkpoints", _CHECKPOINTS)
        self._polled = BucketFile(self._folder / "polled", _POLLED)
        low, high = map(datetime_from_us, self._edges)
        with arrow_snapshot(self._url) as snapshot:
            for batch in snapshot.batches(
                _SQL["read_checkpoints_before"],
                (datetime_from_us(self._edges[0] - 1), high, low),
                batch_bytes=_BATCH_BYTES,
            ):
                for rows in pa.Table.from_batches([batch]).cast(_CHECKPOINTS).to_batches():
                    self._append(self._checkpoints, rows)
            self._read_polled(snapshot, self._polled)

    def close(self) -> None:
        """Remove the files."""
        for each in (self._deltas, self._polled, self._checkpoints, *self._keys.values()):
            if each is not None:
                each.close()

    def keys(self, table: str, bucket: int) -> pl.DataFrame:
        """Return the keys of a table's rows of the hour."""
        return pl.DataFrame(self._keys[table].read(bucket))

    def deltas(self, bucket: int) -> DeltaArrays:
        """Return the deltas of the hour, without what is beyond it."""
        rows = _read(self._deltas, bucket)
        us = rows.column("us").to_numpy()
        inside = np.flatnonzero((us >= self._edges[0]) & (us < self._edges[1]))
        keys = timeline_base(self._edges).key(rows.column("market").to_numpy()[inside], us[inside])
        order = inside[np.argsort(keys, kind="stable")]
        del us, keys, inside
        # One column after the other: only one is there twice.
        return DeltaArrays(*(rows.column(name).to_numpy()[order] for name in DeltaArrays._fields))

    def hour_rows(self, bucket: int, fresh: pl.DataFrame, replaced: pl.DataFrame) -> HourRows:
        """Return what a bucket's verification needs.

        `fresh`: checkpoints that come into production with this close, in place of those of the streams `replaced`
        (gatherer, stream_id) within the hour.
        """
        table = _read(self._deltas, bucket)
        rows = {name: table.column(name).to_numpy() for name in table.column_names}
        del table
        timeline = Timeline(
            timeline_base(self._edges).base_us, rows["market"], rows["us"], hash_changes(rows["level"], rows["delta"]),
            fingerprint_deltas(rows["us"], rows["level"], rows["delta"], rows["occurrence"]),
            rows["observer"], rows["seq"],
        )  # fmt: skip
        assert self._checkpoints is not None  # noqa: S101 - read_books() was called
        kept = pl.DataFrame(self._checkpoints.read(bucket))
        within = pl.col("checkpoint_ts") >= datetime_from_us(self._edges[0])
        old = kept.filter(within & (pl.col("gatherer") != "")).join(replaced, on=["gatherer", "stream_id"], how="semi")
        identity = ["checkpoint_ts", "ticker", "gatherer", "stream_id", "seq"]
        kept = pl.concat([kept.join(old, on=identity, how="anti"), fresh.select(kept.columns)]).unique(
            identity, maintain_order=True
        )
        kept = (
            kept.with_columns(pl.col(name).cast(kind) for name, kind in LEVEL_TYPES.items())
            .with_columns(market=self._markets.number(kept["ticker"]), us=pl.col("checkpoint_ts").dt.epoch("us"))
            .sort("market", "us", "gatherer", "stream_id", "seq")
        )
        checkpoints = Checkpoints(kept["market"].to_numpy(), kept["us"].to_numpy(), book_hashes(kept))
        changes = Changes(rows["market"], rows["level"] & 1, rows["level"] >> 1, rows["delta"])
        hour = ProductionHour(self._markets.tickers, timeline, checkpoints, self._polled_books(bucket))
        return HourRows(hour, changes, rows["us"], kept)

    def _append_deltas(self, file: BucketFile, batch: pa.RecordBatch, observers: dict[tuple[str, int], int]) -> None:
        market = self._markets.number_column(batch.column("ticker"))
        us, received = (batch.column(name).cast(pa.int64()).to_numpy() for name in ("exchange_ts", "received_at"))
        columns = [
            market.astype(np.int32), us, number_levels(batch), batch.column("delta_e2"), batch.column("occurrence"),
            _number_observers(batch, observers), batch.column("seq"),
        ]  # fmt: skip
        rows = pa.record_batch([pa.array(each) for each in columns], schema=_DELTAS)
        file.append(rows, self._markets.buckets_of(market))
        delays = pl.DataFrame({"minute": received // _MINUTE_US, "us": received - us})
        self._delays.append(delays.group_by("minute").agg(pl.col("us").min()))
        self.rows_read += batch.num_rows

    def _append(self, file: BucketFile, rows: pa.RecordBatch) -> None:
        file.append(rows, self._markets.buckets_of(self._markets.number_column(rows.column("ticker"))))
        self.rows_read += rows.num_rows

    def _read_polled(self, snapshot: ArrowSnapshot, file: BucketFile) -> None:
        params = tuple(map(datetime_from_us, self._edges))
        for batch in snapshot.batches(_SQL["read_polled_books"], params, batch_bytes=_BATCH_BYTES):
            if not batch.num_rows:
                continue
            books = pl.DataFrame(batch).with_columns(pl.col(name).cast(kind) for name, kind in LEVEL_TYPES.items())
            market = self._markets.number_column(batch.column("ticker"))
            requested = books.select(pl.coalesce("requested_at", "snapshot_ts").dt.epoch("us")).to_series()
            columns = [market, requested.to_numpy(), books["received_at"].dt.epoch("us").to_numpy(), book_hashes(books)]
            rows = pa.record_batch([pa.array(each) for each in columns], schema=_POLLED)
            file.append(rows, self._markets.buckets_of(market))

    def _polled_books(self, bucket: int) -> PolledBooks:
        """The windows of polled books; one of a minute in which the clocks were too far apart reaches back for ever."""
        assert self._polled is not None  # noqa: S101 - read_books() was called
        age_us, skew_us = self._clocks
        windows = (
            pl.DataFrame(self._polled.read(bucket))
            .with_columns(
                _low=pl.col("requested") - age_us - skew_us,
                _high=pl.col("received") + skew_us,
                minute=pl.col("received") // _MINUTE_US,
            )
            .join(self._fastest(), on="minute", how="left", maintain_order="left")
            .with_columns(_apart=~pl.col("us").is_between(-skew_us, age_us + skew_us).fill_null(value=True))
            .with_columns(_low=pl.when("_apart").then(0).otherwise("_low"))
            # Rows come in any order, and what fails first is named.
            .sort("market", "received", "requested", "hash")
        )
        return PolledBooks(*(windows[name].to_numpy() for name in ("market", "_low", "_high", "hash")))

    def _fastest(self) -> pl.DataFrame:
        """By minute of receipt: how long the fastest row was under way (µs), clock errors included; of all markets."""
        empty = pl.DataFrame(schema={"minute": pl.Int64, "us": pl.Int64})
        return pl.concat([empty, *self._delays]).group_by("minute").agg(pl.col("us").min())


def timeline_base(edges: Interval) -> TimelineKeys:
    """The keys by which rows of the hour that begins at `edges[0]` are ordered."""
    return TimelineKeys(edges[0] - 3_600 * US_PER_S)


def _read(file: BucketFile | None, bucket: int) -> pa.Table:
    assert file is not None  # noqa: S101 - read_rows() was called
    return file.read(bucket)


def _number_observers(batch: pa.RecordBatch, observers: dict[tuple[str, int], int]) -> np.ndarray:
    """A number for each row's stream, the same for equal ones."""
    gatherers = batch.column("gatherer").dictionary_encode()
    stream = batch.column("stream_id").to_numpy()
    streams, place = np.unique(stream, return_inverse=True)
    pair = gatherers.indices.to_numpy(zero_copy_only=False).astype(np.int64) * len(streams) + place
    pairs, inverse = np.unique(pair, return_inverse=True)
    names = gatherers.dictionary.to_pylist()
    numbers = [
        observers.setdefault((names[each // len(streams)], int(streams[each % len(streams)])), len(observers))
        for each in pairs.tolist()
    ]
    return np.array(numbers, dtype=np.int32)[inverse]
