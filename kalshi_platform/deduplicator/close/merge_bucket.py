"""Merges one bucket of an hour: compares what gatherers hold with production, sends what it lacks, counts claims.

Production is what nearly all rows are looked up in: the live merge has brought them. A row whose key is there is never
inserted, so it is not sent either; what remains is deduplicated and inserted under the same rules as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.close.overlap import STATISTICS, compare_gatherers, light_columns
from kalshi_platform.deduplicator.coverage.claims import count_claims
from kalshi_platform.deduplicator.coverage.multiset_hash import fingerprint_deltas
from kalshi_platform.deduplicator.coverage.timeline import TimelineKeys
from kalshi_platform.deduplicator.coverage.verification.production_hour import (
    DeltaArrays,
    ProductionFiles,
    timeline_base,
)
from kalshi_platform.deduplicator.merge.deduplicate import PRODUCTION_KEYS, deduplicate
from kalshi_platform.deduplicator.merge.hour_files import DELTA_TABLE, OTHER_TABLES, HourFiles
from kalshi_platform.deduplicator.merge.insert_parts import InsertResult
from kalshi_platform.deduplicator.merge.market_buckets import Ints, MarketBuckets
from kalshi_platform.deduplicator.merge.source import weigh_rows
from kalshi_platform.market.intervals import Interval, union
from kalshi_platform.market.tables import GATHERER_TABLES
from kalshi_platform.market.times import US_PER_S
from kalshi_platform.storage.arrow import arrow_schema

_MINUTE_US = 60 * US_PER_S
# So that what is computed on the way stays small, and near the processor.
_ROWS_AT_ONCE = 1 << 16
_NEVER = np.iinfo(np.int64).max
_DELTA_SCHEMA = arrow_schema(GATHERER_TABLES[DELTA_TABLE], "batch_no")

Insert = Callable[[str, pl.DataFrame], InsertResult]


@dataclass
class BucketMerge:
    """What merging a bucket found. `held_deltas`: production's before. `sent`: rows that it seemed to lack, by table.

    `inserted`: those of them that it did lack. `claims`: by gatherer, its claims of the bucket's markets with what it
    holds there. `quarantined`: by table and reason, how many rows production refused, and a reason in words.
    """

    statistics: list[pl.DataFrame] = field(default_factory=list)
    claims: dict[str, pl.DataFrame] = field(default_factory=dict)
    rows_read: int = 0
    held_deltas: int = 0
    sent: dict[str, int] = field(default_factory=dict)
    inserted: dict[str, int] = field(default_factory=dict)
    quarantined: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)


class BucketMerger:
    """Merges buckets of an hour, each on its own; buckets may be merged side by side.

    `files`, `claims`: by gatherer. `insert`: inserts rows of a table. `rows_at_once`: weighted rows of one insert.
    """

    def __init__(
        self,
        markets: MarketBuckets,
        edges: Interval,
        files: Mapping[str, HourFiles],
        claims: Mapping[str, pl.DataFrame],
        production: ProductionFiles,
        insert: Insert,
        rows_at_once: int,
    ) -> None:
        self._markets = markets
        self._edges = edges
        self._files = dict(sorted(files.items()))
        self._claims = {
            name: each.with_columns(
                bucket=pl.Series([markets.bucket_of(ticker) for ticker in each["ticker"]], dtype=pl.Int64)
            )
            for name, each in claims.items()
        }
        self._production = production
        self._insert = insert
        self._rows_at_once = rows_at_once
        nowhere = np.zeros(-(-(edges[1] - edges[0]) // _MINUTE_US), dtype=np.int64)
        followed = [_whole_minutes(each, edges, len(nowhere)) for each in claims.values() if each.height]
        # Where nobody claims anything, rows are all that is known of who was there.
        both_followed = np.sum([nowhere, *followed], axis=0) > 1 if followed else ~nowhere.astype(np.bool_)
        starts = edges[0] + np.flatnonzero(both_followed) * _MINUTE_US
        self._several = pl.Series("minute", starts, dtype=pl.Int64).cast(pl.Datetime("us", "UTC"))

    def merge(self, bucket: int) -> BucketMerge:
        """Merge a bucket. Raises DatabaseUnavailable, and StatementRejected where no row is to blame."""
        done = BucketMerge()
        self._merge_deltas(bucket, done)
        for table in OTHER_TABLES:
            self._merge_table(table, bucket, done)
        return done

    def _merge_deltas(self, bucket: int, done: BucketMerge) -> None:
        held = _Held(self._production.deltas(bucket), self._edges)
        done.held_deltas = len(held.keys)
        comparison = _Comparison(len(held.keys))
        claims = {name: each.filter(pl.col("bucket") == bucket).drop("bucket") for name, each in self._claims.items()}
        claimed = {name: _ClaimedKeys(each, held.timeline, self._markets) for name, each in claims.items()}
        missing: dict[str, pa.Table] = {}
        for name, files in self._files.items():
            rows = files.deltas.read(bucket)
            done.rows_read += rows.num_rows
            if name in claimed:
                comparison.add_claimed(name, claimed[name].contain(held.keys))
            lacks, counted = _match(rows, held, comparison, name, self._markets, claims.get(name))
            if lacks.num_rows:
                missing[name] = lacks
            if counted is not None:
                done.claims[name] = counted
        done.statistics.append(comparison.statistics(DELTA_TABLE))
        for some in _slice_deltas(missing, self._rows_at_once):
            by_gatherer = {name: self._as_rows(rows) for name, rows in some.items()}
            comparable = {name: _find_comparable(name, rows, held, claimed) for name, rows in some.items()}
            done.statistics.append(compare_gatherers(DELTA_TABLE, by_gatherer, comparable=comparable))
            self._send(DELTA_TABLE, deduplicate(DELTA_TABLE, by_gatherer), done)

    def _merge_table(self, table: str, bucket: int, done: BucketMerge) -> None:
        by_gatherer = {name: files.others[table].read(bucket) for name, files in self._files.items()}
        by_gatherer = {name: rows for name, rows in by_gatherer.items() if rows.num_rows}
        if not by_gatherer:
            return
        done.rows_read += sum(rows.num_rows for rows in by_gatherer.values())
        done.statistics.append(compare_gatherers(table, by_gatherer, self._several))
        names = light_columns(table)
        starts = np.cumsum([0, *(rows.num_rows for rows in by_gatherer.values())])
        light = {
            name: rows.select(names).append_column("_place", pa.array(np.arange(start, start + rows.num_rows)))
            for (name, rows), start in zip(by_gatherer.items(), starts.tolist(), strict=False)
        }
        unique = deduplicate(table, light)
        unique = unique.join(
            self._production.keys(table, bucket), on=PRODUCTION_KEYS[table], how="anti", nulls_equal=True
        )
        if unique.is_empty():
            return
        whole = pl.DataFrame(pa.concat_tables(by_gatherer.values()))
        rest = [name for name in whole.columns if name not in names]
        for some in unique.iter_slices(max(1, self._rows_at_once // weigh_rows(table, 1, None))):
            rows = pl.concat([some.drop("_place"), whole[some["_place"]].select(rest)], how="horizontal")
            # In the order of the live merge: a row that is refused has one text in dead_letters.
            self._send(table, rows.select(*whole.columns, pl.exclude(whole.columns)), done)

    def _send(self, table: str, rows: pl.DataFrame, done: BucketMerge) -> None:
        result = self._insert(table, rows)
        done.sent[table] = done.sent.get(table, 0) + rows.height
        done.inserted[table] = done.inserted.get(table, 0) + result.rows
        for each in result.quarantined:
            count, _ = done.quarantined.get((table, each.reason), (0, ""))
            done.quarantined[table, each.reason] = count + each.rows.height, each.detail

    def _as_rows(self, rows: pa.Table) -> pa.Table:
        """Rows of DELTAS as a gatherer's columns."""
        level = rows.column("level").to_numpy()
        tickers = pa.array(self._markets.tickers).take(rows.column("market").combine_chunks())
        columns = {
            "exchange_ts": rows.column("us").cast(pa.timestamp("us", "UTC")),
            "ticker": tickers,
            "stream_id": rows.column("stream"),
            "seq": rows.column("seq"),
            "side": pa.array(["yes", "no"]).take(pa.array(level & 1)),
            "price_e4": pa.array(level >> 1),
            "delta_e2": rows.column("delta"),
            "occurrence": rows.column("occurrence"),
            "received_at": rows.column("received").cast(pa.timestamp("us", "UTC")),
        }
        return pa.table({name: columns[name] for name in _DELTA_SCHEMA.names}).cast(_DELTA_SCHEMA)


class _Held:
    """Production's deltas of a bucket, by key and in each key by what they are."""

    def __init__(self, rows: DeltaArrays, edges: Interval) -> None:
        self.timeline = timeline_base(edges)
        self.rows = rows
        self.keys = self.timeline.key(rows.market, rows.us)

    def find(self, keys: Ints, columns: tuple[Ints, Ints, Ints]) -> Ints:
        """Return the place of each row (level, delta, occurrence) under its key; -1 where production lacks it."""
        found = np.empty(len(keys), dtype=np.int64)
        for low in range(0, len(keys), _ROWS_AT_ONCE):
            block = slice(low, low + _ROWS_AT_ONCE)
            found[block] = self._find_block(keys[block], [each[block] for each in columns])
        return found

    def _find_block(self, keys: Ints, columns: list[Ints]) -> Ints:
        found = np.full(len(keys), -1, dtype=np.int64)
        place = np.searchsorted(self.keys, keys, side="left")
        open_rows = np.arange(len(keys))
        own = self.rows.level, self.rows.delta, self.rows.occurrence
        while len(open_rows):
            # Few rows share a market and a microsecond: nearly all are found at the first place.
            at = place[open_rows]
            inside = at < len(self.keys)
            inside[inside] = self.keys[at[inside]] == keys[open_rows[inside]]
            open_rows, at = open_rows[inside], at[inside]
            equal = np.ones(len(open_rows), dtype=np.bool_)
            for mine, theirs in zip(own, columns, strict=True):
                equal &= mine[at] == theirs[open_rows]
            found[open_rows[equal]] = at[equal]
            open_rows = open_rows[~equal]
            place[open_rows] += 1
        return found


class _Comparison:
    """Which gatherers hold and which claim each of production's deltas, and which of them received it first.

    A delta can be compared by a gatherer that claims its moment and market where another claims these, too: what one
    did not follow, or not yet, it need not have.
    """

    def __init__(self, deltas: int) -> None:
        self._first_at = np.full(deltas, _NEVER, dtype=np.int64)
        self._first = np.full(deltas, -1, dtype=np.int16)
        self._holders = np.zeros(deltas, dtype=np.int16)
        self._claimers = np.zeros(deltas, dtype=np.int16)
        self._has: dict[str, npt.NDArray[np.bool_]] = {}
        self._claimed: dict[str, npt.NDArray[np.bool_]] = {}
        self._seen: dict[str, int] = {}

    def add_claimed(self, gatherer: str, claimed: npt.NDArray[np.bool_]) -> None:
        """Add which of the deltas lie within a gatherer's claims."""
        self._claimers += claimed
        self._claimed[gatherer] = claimed

    def add(self, gatherer: str, places: Ints, received_us: Ints) -> None:
        """Add a gatherer's rows; gatherers come in the order of their names, which decides between equals."""
        received = np.full(len(self._holders), _NEVER, dtype=np.int64)
        np.minimum.at(received, places, received_us)
        has = received < _NEVER
        self._first[received < self._first_at] = len(self._has)
        np.minimum(self._first_at, received, out=self._first_at)
        self._holders += has
        self._has[gatherer] = has
        self._seen[gatherer] = len(places)

    def statistics(self, table: str) -> pl.DataFrame:
        """Return the columns of STATISTICS, a row per gatherer with rows."""
        rows = [
            (
                name, table, self._seen[name], int(has.sum()), int((has & (self._holders == 1)).sum()),
                int((self._first == number).sum()), *self._count_comparable(name, has),
            )
            for number, (name, has) in enumerate(self._has.items())
            if self._seen[name]
        ]  # fmt: skip
        return pl.DataFrame(rows, schema=STATISTICS, orient="row")

    def _count_comparable(self, gatherer: str, has: npt.NDArray[np.bool_]) -> tuple[int, int]:
        """Return how many of its deltas can be compared, and how many of these another gatherer has."""
        if gatherer not in self._claimed:
            return 0, 0
        comparable = has & self._claimed[gatherer] & (self._claimers > 1)
        return int(comparable.sum()), int((comparable & (self._holders > 1)).sum())


class _ClaimedKeys:
    """A gatherer's claims of a bucket's markets, as ranges of the timeline's keys."""

    def __init__(self, claims: pl.DataFrame, timeline: TimelineKeys, markets: MarketBuckets) -> None:
        market = markets.number(claims["ticker"])
        self._low, self._high = (
            np.sort(timeline.key(market, claims[name].to_numpy())) for name in ("from_us", "to_us")
        )

    def contain(self, keys: Ints) -> npt.NDArray[np.bool_]:
        """Return which of these keys, in any order, lie within a claim."""
        begun = np.searchsorted(self._low, keys, side="right")
        found: npt.NDArray[np.bool_] = begun > np.searchsorted(self._high, keys, side="right")
        return found


class _Sorted(NamedTuple):
    keys: Ints
    columns: dict[str, Ints]


def _match(
    rows: pa.Table, held: _Held, comparison: _Comparison, name: str, markets: MarketBuckets, claims: pl.DataFrame | None
) -> tuple[pa.Table, pl.DataFrame | None]:
    """Look a gatherer's rows up in production; return those that it lacks, and the claims with what is held there."""
    columns = {each: rows.column(each).to_numpy() for each in ("us", "level", "delta", "occurrence", "stream")}
    keys = held.timeline.key(rows.column("market").to_numpy(), columns["us"])
    places = held.find(keys, (columns["level"], columns["delta"], columns["occurrence"]))
    known = places >= 0
    comparison.add(name, places[known], rows.column("received").to_numpy()[known])
    lacks = rows.slice(0, 0) if known.all() else rows.filter(pa.array(~known))
    return lacks, None if claims is None else _count_claims(claims, _Sorted(keys, columns), held, markets)


def _count_claims(claims: pl.DataFrame, rows: _Sorted, held: _Held, markets: MarketBuckets) -> pl.DataFrame:
    """Add to a gatherer's claims how many rows each stream holds there, and the sum of their fingerprints."""
    contents = fingerprint_deltas(*(rows.columns[name] for name in ("us", "level", "delta", "occurrence")))
    parts = [claims.clear().with_columns(rows=pl.lit(0, pl.Int64), content=pl.lit(0, pl.Int64))]
    for (stream_id,), mine in claims.group_by("stream_id", maintain_order=True):
        own = rows.columns["stream"] == stream_id
        market = markets.number(mine["ticker"])
        parts.append(count_claims(mine, market, held.timeline, rows.keys[own], contents[own]))
    return pl.concat(parts)


def _find_comparable(
    name: str, rows: pa.Table, held: _Held, claimed: Mapping[str, _ClaimedKeys]
) -> npt.NDArray[np.bool_]:
    """Return which rows (of DELTAS) lie where this gatherer and another claim their market."""
    keys = held.timeline.key(rows.column("market").to_numpy(), rows.column("us").to_numpy())
    if name not in claimed:
        return np.zeros(len(keys), dtype=np.bool_)
    others = np.zeros(len(keys), dtype=np.bool_)
    for other, ranges in claimed.items():
        if other != name:
            others |= ranges.contain(keys)
    return others & claimed[name].contain(keys)


def _whole_minutes(claims: pl.DataFrame, edges: Interval, minutes: int) -> Ints:
    """Return 1 for each minute of the hour all through which a gatherer claims some book, and 0 for the others."""
    found = np.zeros(minutes, dtype=np.int64)
    for low, high in union(claims.select("from_us", "to_us").iter_rows()):
        found[-(-(low - edges[0]) // _MINUTE_US) : max(0, high - edges[0]) // _MINUTE_US] = 1
    return found


def _slice_deltas(by_gatherer: Mapping[str, pa.Table], rows_at_once: int) -> Iterator[dict[str, pa.Table]]:
    """Cut rows (of DELTAS) by time into parts of about `rows_at_once` rows; rows of one time stay together."""
    if not by_gatherer:
        return
    times = {name: rows.column("us").to_numpy() for name, rows in by_gatherer.items()}
    every = np.sort(np.concatenate(list(times.values())))
    edges = [every[0], *np.unique(every[rows_at_once::rows_at_once]), every[-1] + 1]
    for low, high in pairwise(dict.fromkeys(edges)):
        yield {
            name: rows.filter(pa.array((times[name] >= low) & (times[name] < high)))
            for name, rows in by_gatherer.items()
        }
