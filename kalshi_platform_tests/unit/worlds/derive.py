"""Claims and checkpoints as the product derives them, of many worlds at once.

The product works on one stream at a time. To pay for its frames once and not per stream, streams are laid behind each
other into one: each with numbers and tickers of its own, so that no rule can connect two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from kalshi_platform.deduplicator.coverage import checkpoints
from kalshi_platform.deduplicator.coverage import claims as coverage
from kalshi_platform.deduplicator.coverage.streams.check_snapshots import RUN_CHECKS, check_snapshots, hash_snapshots
from kalshi_platform.deduplicator.coverage.streams.seq_ranges import clip_to_range, merge_segments
from kalshi_platform.deduplicator.coverage.streams.stream_ledger import StreamLedger
from kalshi_platform.deduplicator.coverage.streams.stream_window import find_edge_segments
from kalshi_platform.deduplicator.coverage.streams.unknown_frames import (
    UNKNOWN,
    find_doubted,
    pair_doubted,
    truncate_subscriptions,
)
from kalshi_platform.market.fold import LEVEL_TYPES
from kalshi_platform.market.intervals import Interval, intersection, union
from kalshi_platform.market.records import BookDelta
from kalshi_platform_tests.unit.worlds.moments import Checkpoint, Moment, StreamPart
from kalshi_platform_tests.unit.worlds.venue import INDEX, MARGIN_US, START_US, Levels

_STREAM = 1_000_000
"""Numbers of one stream stay below this …"""
_TIME = 10_000_000
"""… and its times are within this."""
_ROWS_AT_ONCE = 300
"""So that streams are scanned in many blocks."""
_LOOK_AROUND = 5 * MARGIN_US
_SEGMENTS = {"stream_id": pl.Int64, "seq_from": pl.Int64, "seq_to": pl.Int64}
_BOOK_SUBSCRIPTIONS = {
    "stream_id": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int32, "seq_from": pl.Int64, "seq_to": pl.Int64,
}  # fmt: skip
_DELTAS = {
    "seq": pl.Int64, "exchange_us": pl.Int64, "ticker": pl.String, "exchange_index": pl.Int32,
    "side": pl.String, "price_e4": pl.Int32, "delta_e2": pl.Int64,
}  # fmt: skip
_SNAPSHOTS: dict[str, Any] = {"ticker": pl.String, "seq": pl.Int64, **LEVEL_TYPES}


rows_of_claims: list[pl.DataFrame] = []
"""The deltas that claims were last derived from: the product's rule needs no more of them than their feed's times."""


def derive(moments: Sequence[Moment], max_out_of_orderness_us: int = MARGIN_US) -> None:
    """Fill in the claims and checkpoints of all moments."""
    laid = _Laid()
    claimed: list[tuple[Moment, Interval]] = []
    checkpointed: list[Moment] = []
    for each in moments:
        for stream in each.streams:
            for window in each.windows:
                laid.add_claimed(stream, window, len(claimed))
                claimed.append((each, window))
            laid.add_checkpointed(stream, len(checkpointed))
            checkpointed.append(each)
    united: dict[int, dict[str, list[Interval]]] = {}
    for name, intervals in laid.claims(max_out_of_orderness_us).items():
        place, ticker = _split(name)
        each, window = claimed[place]
        own = [(start - place * _TIME, end - place * _TIME) for start, end in intervals]
        united.setdefault(id(each), {}).setdefault(ticker, []).extend(intersection(own, [window]))
    for each in moments:
        each.claims = {ticker: union(parts) for ticker, parts in united.get(id(each), {}).items()}
    for name, time, book in laid.checkpoints(max_out_of_orderness_us):
        place, ticker = _split(name)
        checkpointed[place].checkpoints.append(Checkpoint(ticker, time - place * _TIME, book))


def as_they_stand(stream: StreamPart) -> list[tuple[str, int, int | None]]:
    """The book subscriptions of a stream after unknown messages took theirs, as the close of an hour reads them."""
    if not stream.unknown:
        return stream.book_subscriptions
    timed = {**_SEGMENTS, "low_us": pl.Int64, "high_us": pl.Int64}
    segments = pl.DataFrame([(1, *each) for each in stream.segments], schema=timed, orient="row")
    members = [(1, ticker, INDEX[ticker], low, high) for ticker, low, high in stream.book_subscriptions]
    ledger = StreamLedger(segments, pl.DataFrame(members, schema=_BOOK_SUBSCRIPTIONS, orient="row"))
    frames = [(each.seq, each.frame_type, each.ticker) for each in stream.unknown]
    unknown = pl.DataFrame(frames, schema=UNKNOWN, orient="row")
    doubted = find_doubted(clip_to_range(ledger.book_subscriptions, merge_segments(segments)), unknown)
    found = pair_doubted(ledger, doubted, (-_TIME, _TIME))
    checks = pl.DataFrame(schema=RUN_CHECKS)
    if found.height:
        books = [
            (
                each.ticker,
                each.seq,
                *([level[part] for level in side] for side in (each.yes, each.no) for part in (0, 1)),
            )
            for each in stream.snapshots
        ]
        deltas = [(each.seq, each.ticker, each.side, each.price_e4, each.delta_e2) for each in stream.deltas]
        schema = {name: _DELTAS[name] for name in ("seq", "ticker", "side", "price_e4", "delta_e2")}
        checks = check_snapshots(
            found,
            hash_snapshots(pl.DataFrame(books, schema=_SNAPSHOTS, orient="row")),
            [pl.DataFrame(deltas, schema=schema, orient="row")],
        )
    standing_ones = truncate_subscriptions(ledger.book_subscriptions, doubted, unknown, checks)
    return standing_ones.select("ticker", "seq_from", "seq_to").rows()


class _Laid:
    """Streams behind each other."""

    def __init__(self) -> None:
        self._ledgers: tuple[_Ledgers, _Ledgers] = _Ledgers(), _Ledgers()
        self._snapshots: list[tuple[object, ...]] = []

    def add_claimed(self, stream: StreamPart, window: Interval, place: int) -> None:
        self._ledgers[0].add(stream, place, _rows_around(stream, window))

    def add_checkpointed(self, stream: StreamPart, place: int) -> None:
        self._ledgers[1].add(stream, place, stream.deltas)
        for each in stream.snapshots:
            sides = [[level[part] for level in side] for side in (each.yes, each.no) for part in (0, 1)]
            self._snapshots.append((_name(place, each.ticker), place * _STREAM + each.seq, *sides))

    def claims(self, max_out_of_orderness_us: int) -> dict[str, list[Interval]]:
        segments, book_subscriptions, deltas = self._ledgers[0].frames()
        columns = deltas.select("seq", "exchange_us", "ticker", "exchange_index")
        rows_of_claims.append(columns)
        del rows_of_claims[:-1]
        return coverage.claim_intervals(
            book_subscriptions, segments, columns, max_out_of_orderness_us, rows_at_once=_ROWS_AT_ONCE
        )

    def checkpoints(self, max_out_of_orderness_us: int) -> list[tuple[str, int, Levels]]:
        segments, book_subscriptions, deltas = self._ledgers[1].frames()
        snapshots = pl.DataFrame(self._snapshots, schema=_SNAPSHOTS, orient="row")
        located = checkpoints.locate(
            clip_to_range(book_subscriptions, merge_segments(segments)), deltas, 2**60, max_out_of_orderness_us
        )
        assert located.pending.is_empty()
        found = []
        for row in checkpoints.fold_checkpoints(located.found, snapshots, deltas).iter_rows(named=True):
            book = {
                (side, price): size
                for side in ("yes", "no")
                for price, size in zip(row[f"{side}_price_e4"], row[f"{side}_count_e2"], strict=True)
            }
            found.append((row["ticker"], row["complete_from_us"], book))
        return found


def _rows_around(stream: StreamPart, window: Interval) -> list[BookDelta]:
    """The rows that the close of an hour reads of a stream: of the hour, around it, and the nearest commits beyond."""
    inner = window[0] - _LOOK_AROUND, window[1] + _LOOK_AROUND
    if all(inner[0] <= each.exchange_ts_us - START_US < inner[1] for each in stream.deltas):
        return stream.deltas
    rows = [(1, *segment) for segment in stream.segments]
    segments = pl.DataFrame(rows, schema={**_SEGMENTS, "low_us": pl.Int64, "high_us": pl.Int64}, orient="row")
    single = len({INDEX[ticker] for ticker, _, _ in stream.book_subscriptions}) <= 1
    edges = find_edge_segments(segments, inner, single=single).select("seq_from", "seq_to").rows()
    return [
        each
        for each in stream.deltas
        if inner[0] <= each.exchange_ts_us - START_US < inner[1] or any(low <= each.seq <= high for low, high in edges)
    ]


class _Ledgers:
    def __init__(self) -> None:
        self._segments: list[tuple[int, int, int]] = []
        self._book_subscriptions: list[tuple[int, str, int, int, int | None]] = []
        self._deltas: list[tuple[object, ...]] = []

    def add(self, stream: StreamPart, place: int, deltas: Sequence[BookDelta]) -> None:
        base = place * _STREAM
        self._segments += [(place, base + low, base + high) for low, high, _, _ in stream.segments]
        self._book_subscriptions += [
            (place, _name(place, ticker), INDEX[ticker], base + low, None if high is None else base + high)
            for ticker, low, high in as_they_stand(stream)
        ]
        members = {ticker for ticker, _, _ in stream.book_subscriptions}
        for each in deltas:
            time = each.exchange_ts_us - START_US
            if each.ticker in members:
                name, index = _name(place, each.ticker), INDEX[each.ticker]
                shifted = time + place * _TIME
                self._deltas.append((base + each.seq, shifted, name, index, each.side, each.price_e4, each.delta_e2))

    def frames(self) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
        return (
            pl.DataFrame(self._segments, schema=_SEGMENTS, orient="row"),
            pl.DataFrame(self._book_subscriptions, schema=_BOOK_SUBSCRIPTIONS, orient="row"),
            pl.DataFrame(self._deltas, schema=_DELTAS, orient="row"),
        )


def _name(place: int, ticker: str) -> str:
    return f"{place}|{ticker}"


def _split(name: str) -> tuple[int, str]:
    place, _, ticker = name.partition("|")
    return int(place), ticker
