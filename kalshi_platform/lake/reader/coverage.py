"""Which time of a market's record is complete, hour by hour, and why the rest is not.

A hole is a span in which order-book deltas of the market may be missing. What is complete is said by `raw/coverage`;
the reasons of the rest come from `processed/coverage` where the day is there, made from the same closes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import polars as pl
import pyarrow as pa

from kalshi_platform.errors import HoleInRange, LakeArchived, LakeCorrupt
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.layout import partition_at, partitions_between
from kalshi_platform.lake.reader.source import AbsentPartition, Found, Hot, Published, Selection, Source
from kalshi_platform.market import intervals
from kalshi_platform.market.intervals import Interval
from kalshi_platform.market.times import datetime_from_us, us_from_datetime

DELTAS, COVERAGE = DATASETS["raw/orderbook_deltas"], DATASETS["raw/coverage"]
EXPLAINED = DATASETS["processed/coverage"]

NOT_COVERED = "not covered"
NOT_IN_LAKE = "the hour is not in the lake"
NOT_CLOSED = "the hour is not closed yet"
NO_COVERAGE = "raw/coverage of the hour is not in the lake"
OTHER_CLOSE = "deltas and coverage are of different closes of the hour"
DROPPED = "rows were dropped before the export"
NOT_OPEN = frozenset({"the market was not open yet", "the market was closed"})
"""Reasons of spans in which a market had no book: of these no delta is missing."""

HOLES = {
    "ticker": pl.String,
    "from_ts": pl.Datetime("us", "UTC"),
    "to_ts": pl.Datetime("us", "UTC"),
    "reason": pl.String,
}


class CoverageHole(NamedTuple):
    """A span [from_us, to_us) of a market in which deltas may be missing; `ticker` None: of every market."""

    ticker: str | None
    from_us: int
    to_us: int
    reason: str


@dataclass
class HourCoverage:
    """An hour, [start_us, end_us). `reason`: why nothing is known of it; else what is complete, by ticker.

    `explained`: by ticker, the holes with their reasons, where they are known for all markets of the day.
    """

    start_us: int
    end_us: int
    reason: str | None = None
    covered: Mapping[str, list[Interval]] = field(default_factory=dict)
    explained: Mapping[str, list[CoverageHole]] | None = None

    def holes_of(self, ticker: str) -> Iterator[CoverageHole]:
        """Yield the holes of a market within the hour, ascending."""
        if self.reason is not None:
            yield CoverageHole(ticker, self.start_us, self.end_us, self.reason)
        elif self.explained is not None and ticker in self.explained:
            yield from self.explained[ticker]
        else:
            for low, high in intervals.holes(self.covered.get(ticker, []), (self.start_us, self.end_us)):
                yield CoverageHole(ticker, low, high, NOT_COVERED)


def read_hours(
    source: Source, start: datetime, end: datetime, tickers: Sequence[str] | None, *, explain: bool = True
) -> list[HourCoverage]:
    """Read what is complete in each hour of [start, end), of some markets or of all."""
    explained = _Explained(source, tickers) if explain else None
    return [
        _read_hour(source, found, tickers, explained, (start, end)) for found in list(source.find(DELTAS, start, end))
    ]


def find_holes(
    source: Source, start: datetime, end: datetime, tickers: Sequence[str] | None = None, *, explain: bool = True
) -> list[CoverageHole]:
    """Find the holes of markets within [start, end), by ticker and ascending; those that touch for one reason are one.

    Without `tickers`: of every market that has coverage or deltas in the range; if none has, a hole has no ticker.
    """
    if start >= end:
        return []
    hours = read_hours(source, start, end, tickers, explain=explain)
    by_market = _holes_by_market(source, hours, start, end, tickers)
    if tickers is None and not by_market:
        everywhere = (CoverageHole(None, hour.start_us, hour.end_us, hour.reason) for hour in hours if hour.reason)
        return list(_joined(everywhere))
    return [hole for ticker in sorted(by_market) for hole in by_market[ticker]]


def holes_by_market(
    source: Source, start: datetime, end: datetime, tickers: Sequence[str] | None = None
) -> dict[str, list[CoverageHole]]:
    """The holes of each market within [start, end), also of those that have none; see `find_holes`."""
    return _holes_by_market(source, read_hours(source, start, end, tickers), start, end, tickers)


def _holes_by_market(
    source: Source, hours: Sequence[HourCoverage], start: datetime, end: datetime, tickers: Sequence[str] | None
) -> dict[str, list[CoverageHole]]:
    wanted = tickers if tickers is not None else _markets_of(source, hours, start, end)
    return {ticker: list(_joined(hole for hour in hours for hole in hour.holes_of(ticker))) for ticker in set(wanted)}


def require_whole(holes: Iterable[CoverageHole], what: str, *, allow_unclosed: bool = False) -> None:
    """Raise HoleInRange for the first of the holes in which a market had a book."""
    real = [hole for hole in holes if is_real(hole, allow_unclosed=allow_unclosed)]
    if not real:
        return
    first = real[0]
    more = f" and {len(real) - 1} more" if len(real) > 1 else ""
    start, end = datetime_from_us(first.from_us), datetime_from_us(first.to_us)
    span = f"{first.ticker or 'every market'} from {start.isoformat()} to {end.isoformat()}"
    raise HoleInRange(
        f"{what}: {span} ({first.reason}){more};"
        ' read with holes="mark" to get what is there, or list them with holes()',
        ticker=first.ticker,
        from_ts=start,
        to_ts=end,
        reason=first.reason,
    )


def is_real(hole: CoverageHole, *, allow_unclosed: bool) -> bool:
    """Whether deltas may be missing; those of an hour that is not closed yet are no hole where they are wanted."""
    return hole.reason not in NOT_OPEN and not (allow_unclosed and hole.reason == NOT_CLOSED)


def holes_frame(holes: Sequence[CoverageHole]) -> pl.DataFrame:
    """Holes as a frame: ticker, from_ts, to_ts, reason."""
    columns = {
        "ticker": [hole.ticker for hole in holes],
        "from_ts": [hole.from_us for hole in holes],
        "to_ts": [hole.to_us for hole in holes],
        "reason": [hole.reason for hole in holes],
    }
    raw = {"ticker": pl.String, "from_ts": pl.Int64, "to_ts": pl.Int64, "reason": pl.String}
    return pl.DataFrame(columns, schema=raw).cast(HOLES)  # type: ignore[arg-type]


def mark_segments(rows: pl.DataFrame, holes: Sequence[CoverageHole], time_column: str) -> pl.DataFrame:
    """Add `segment` and `in_hole` to rows sorted by ticker and time.

    Rows of one market with the same `segment` have no hole of it between them; `in_hole`: others beside the row may be
    missing.
    """
    frame = holes_frame([hole for hole in holes if hole.reason not in NOT_OPEN and hole.ticker is not None])
    if frame.is_empty():
        return rows.with_columns(segment=pl.lit(0, pl.Int32), in_hole=pl.lit(False))
    counted = frame.select(
        "ticker",
        pl.col("from_ts").alias("_from"),
        pl.col("to_ts").alias("_to"),
        segment=pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("ticker"),
    ).sort("_from")
    marked = (
        rows.with_row_index("_row")
        .sort(time_column)
        .join_asof(
            counted, left_on=time_column, right_on="_from", by="ticker", strategy="backward", check_sortedness=False
        )
        .sort("_row")
    )
    return marked.with_columns(
        segment=pl.col("segment").fill_null(0), in_hole=(pl.col(time_column) < pl.col("_to")).fill_null(False)
    ).drop("_row", "_from", "_to")


def _joined(holes: Iterable[CoverageHole]) -> Iterator[CoverageHole]:
    last: CoverageHole | None = None
    for hole in holes:
        if last is not None and last.to_us == hole.from_us and last.reason == hole.reason:
            last = last._replace(to_us=hole.to_us)
            continue
        if last is not None:
            yield last
        last = hole
    if last is not None:
        yield last


def _read_hour(
    source: Source,
    deltas: Found,
    tickers: Sequence[str] | None,
    explained: _Explained | None,
    within: tuple[datetime, datetime],
) -> HourCoverage:
    partition = deltas.partition
    start, end = max(partition.start, within[0]), min(partition.end, within[1])
    hour = HourCoverage(us_from_datetime(start), us_from_datetime(end))
    hour.reason = _unknown(deltas)
    if hour.reason is not None:
        return hour
    found = source.find_one(partition_at(COVERAGE, partition.start))
    if isinstance(found, AbsentPartition):
        whole = isinstance(deltas, Published) and deltas.manifest.coverage_share == 1
        # Every market of it was complete, as version 0.1.0 says too, which had no coverage in the lake.
        hour.reason = None if whole else NO_COVERAGE
        hour.covered = _Everything((hour.start_us, hour.end_us)) if whole else {}
        return hour
    columns = ("ticker", "from_ts", "to_ts")
    wanted = Selection(partition.start, partition.end, None if tickers is None else tuple(tickers), columns)
    try:
        rows, by = source.read(found, wanted)
    except LakeArchived:
        # Raw files go to the archive after a month; what the day says of the same close is read instead.
        of_day = None if explained is None else explained.of_hour(partition.start, _closes(found), hour)
        if of_day is None or _closes(found) != _closes(deltas):
            raise
        hour.covered, hour.explained = of_day.covered, of_day.holes
        return hour
    if _closes(by) != _closes(deltas):
        hour.reason = OTHER_CLOSE
        return hour
    if rows.num_rows and isinstance(deltas, Published) and deltas.manifest.coverage_share is None:
        hour.reason = DROPPED
        return hour
    hour.covered = _intervals(rows, hour)
    if explained is not None:
        of_day = explained.of_hour(partition.start, _closes(by), hour)
        hour.explained = None if of_day is None else of_day.holes
    return hour


def _unknown(deltas: Found) -> str | None:
    if isinstance(deltas, AbsentPartition):
        return NOT_CLOSED if deltas.reason == "open" else NOT_IN_LAKE
    if isinstance(deltas, Hot):
        return None if deltas.is_closed else NOT_CLOSED
    return NOT_CLOSED if deltas.manifest.state == "open" else None


def _closes(found: Published | Hot | Found) -> Mapping[str, str]:
    if isinstance(found, AbsentPartition):
        return {}
    return found.closes if isinstance(found, Hot) else found.manifest.closes


def _intervals(rows: pa.Table, hour: HourCoverage) -> dict[str, list[Interval]]:
    frame = pl.DataFrame(rows).select("ticker", pl.col("from_ts").dt.epoch("us"), pl.col("to_ts").dt.epoch("us"))
    covered: dict[str, list[Interval]] = defaultdict(list)
    for ticker, low, high in frame.iter_rows():
        covered[ticker].append((max(low, hour.start_us), min(high, hour.end_us)))
    return {ticker: intervals.union(each) for ticker, each in covered.items()}


class _Everything(dict[str, list[Interval]]):
    """The coverage of an hour in which every market is complete."""

    def __init__(self, whole: Interval) -> None:
        super().__init__()
        self._whole = [whole]

    def get(self, _ticker: str, _default: object = None) -> list[Interval]:
        return self._whole


class _Day(NamedTuple):
    """What `processed/coverage` says of a time, by ticker; a market that it knows is in both."""

    covered: dict[str, list[Interval]]
    holes: dict[str, list[CoverageHole]]


class _Explained:
    """Coverage and holes of days with their reasons, from `processed/coverage`, of the days that are there."""

    def __init__(self, source: Source, tickers: Sequence[str] | None) -> None:
        self._source = source
        self._tickers = None if tickers is None else tuple(tickers)
        self._days: dict[datetime, tuple[Mapping[str, str], _Day]] = {}

    def of_hour(self, start: datetime, closes: Mapping[str, str], hour: HourCoverage) -> _Day | None:
        """What is said of an hour; None where it is not known, or said of another close of it."""
        midnight = start.replace(hour=0)
        if midnight not in self._days:
            self._days[midnight] = self._read(midnight)
        of_day, (covered, holes) = self._days[midnight]
        if not closes or any(of_day.get(name) != close for name, close in closes.items()):
            return None
        whole = [(hour.start_us, hour.end_us)]
        cut: dict[str, list[CoverageHole]] = {}
        for ticker, each in holes.items():
            parts = (
                hole._replace(from_us=max(hole.from_us, hour.start_us), to_us=min(hole.to_us, hour.end_us))
                for hole in each
            )
            cut[ticker] = [hole for hole in parts if hole.from_us < hole.to_us]
        return _Day({ticker: intervals.intersection(each, whole) for ticker, each in covered.items()}, cut)

    def _read(self, midnight: datetime) -> tuple[Mapping[str, str], _Day]:
        nothing: tuple[Mapping[str, str], _Day] = {}, _Day({}, {})
        found = self._source.find_one(partition_at(EXPLAINED, midnight))
        if not isinstance(found, Published) or found.manifest.state != "closed":
            return nothing
        columns = ("ticker", "from_ts", "to_ts", "state", "reason")
        selection = Selection(found.partition.start, found.partition.end, self._tickers, columns)
        try:
            table, by = self._source.read(found, selection)
        except LakeCorrupt:  # the reasons are words; what is complete is read elsewhere
            return nothing
        frame = pl.DataFrame(table).select(
            "ticker", pl.col("from_ts").dt.epoch("us"), pl.col("to_ts").dt.epoch("us"), "state", "reason"
        )
        day = _Day(defaultdict(list), defaultdict(list))
        for ticker, low, high, state, reason in frame.iter_rows():
            spans, holes = day.covered[ticker], day.holes[ticker]
            if state == "hole":
                holes.append(CoverageHole(ticker, low, high, reason or NOT_COVERED))
            else:
                spans.append((low, high))
        # Proven and claimed spans may touch.
        return _closes(by), _Day({ticker: intervals.union(each) for ticker, each in day.covered.items()}, day.holes)


def _markets_of(source: Source, hours: Sequence[HourCoverage], start: datetime, end: datetime) -> set[str]:
    """The markets that a range is known to hold: those with coverage, and those with deltas."""
    markets = {ticker for hour in hours for ticker in (*hour.covered, *(hour.explained or ()))}
    for partition, hour in zip(partitions_between(DELTAS, start, end), hours, strict=True):
        found = source.find_one(partition)
        if hour.explained is None and not isinstance(found, AbsentPartition):
            markets |= source.markets_of(found, Selection(start, end))
    return markets
