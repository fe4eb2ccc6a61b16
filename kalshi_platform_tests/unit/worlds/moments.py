"""A close of a world: what the ledgers and production hold at one moment, and what is derived from them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from kalshi_platform.market.intervals import Interval
from kalshi_platform.market.records import BookDelta, BookSnapshot, UnknownFrame
from kalshi_platform_tests.unit.worlds.tables import GathererTables, Key
from kalshi_platform_tests.unit.worlds.venue import START_US, Levels, Venue


@dataclass(frozen=True)
class Checkpoint:
    """A book that folds start from: the one at the end of `time`."""

    ticker: str
    time: int
    book: Levels


@dataclass
class StreamPart:
    """What one snapshot of a gatherer's database holds of one stream.

    Segments: (seq_from, seq_to, least and greatest time of deltas or None); book subscriptions: (ticker, seq_from,
    seq_to).
    """

    segments: list[tuple[int, int, int | None, int | None]] = field(default_factory=list)
    book_subscriptions: list[tuple[str, int, int | None]] = field(default_factory=list)
    deltas: list[BookDelta] = field(default_factory=list)
    snapshots: list[BookSnapshot] = field(default_factory=list)
    unknown: list[UnknownFrame] = field(default_factory=list)


@dataclass
class Moment:
    """What one close reads and derives.

    `streams`: of all gatherers. `rows`: the keys in production after all that was merged. `windows`: the stretches of
    time that are closed one by one, as hours are. `left`: how many rows the live merge missed, or another order of
    merging gave and this one did not. `shards`: in a world without faults, the markets of each connection.
    """

    venue: Venue
    streams: list[StreamPart]
    rows: Sequence[Key]
    windows: Sequence[Interval]
    shards: Sequence[tuple[str, ...]] = ()
    left: int = 0
    claims: dict[str, list[Interval]] = field(default_factory=dict)
    checkpoints: list[Checkpoint] = field(default_factory=list)


def streams_of(tables: GathererTables) -> list[StreamPart]:
    """What a gatherer's tables hold, stream by stream."""
    parts: dict[int, StreamPart] = {}
    for segment in tables.segments.values():
        low, high = (
            None if time is None else time - START_US
            for time in (segment.exchange_ts_min_us, segment.exchange_ts_max_us)
        )
        part = parts.setdefault(segment.stream_id, StreamPart())
        part.segments.append((segment.seq_from, segment.seq_to, low, high))
    for each in tables.book_subscriptions.values():
        member = each.ticker, each.seq_from, each.seq_to
        parts.setdefault(each.stream_id, StreamPart()).book_subscriptions.append(member)
    for delta, _ in tables.deltas.values():
        parts.setdefault(delta.stream_id, StreamPart()).deltas.append(delta)
    for snapshot in tables.snapshots.values():
        parts.setdefault(snapshot.stream_id, StreamPart()).snapshots.append(snapshot)
    for frame in tables.unknown.values():
        parts.setdefault(frame.stream_id, StreamPart()).unknown.append(frame)
    return list(parts.values())


def all_streams(tables: Iterable[GathererTables]) -> list[StreamPart]:
    return [part for each in tables for part in streams_of(each)]
