"""Rules that look simpler and are wrong, each to be put in for the product's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import polars as pl
import pyarrow as pa

from kalshi_platform.deduplicator.coverage import checkpoints
from kalshi_platform.deduplicator.coverage.streams.unknown_frames import truncate_subscriptions
from kalshi_platform.exchange.protocol.session import Session, SessionConfig
from kalshi_platform.exchange.protocol.session_model import SessionOutput
from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform.gatherer.ingest.open_streams import Stream
from kalshi_platform.market.identity import OccurrenceCounter
from kalshi_platform.market.records import BookDelta, StreamOpened
from kalshi_platform_tests.unit.worlds.derive import rows_of_claims
from kalshi_platform_tests.unit.worlds.tables import GathererTables, arrow
from kalshi_platform_tests.unit.worlds.world import NewRows

Bounds = Callable[[pl.DataFrame, pl.DataFrame, int, int], pl.DataFrame]
_bounds, _books = checkpoints.watermarks, checkpoints.fold_checkpoints


def counted_per_gatherer(counter: OccurrenceCounter) -> Decoder:
    """Equal deltas are numbered over all streams that the gatherer has or had."""
    decoder = Decoder()
    streams = decoder._open
    opened = streams._open

    def open_counted(mark: StreamOpened) -> Stream:
        stream = opened(mark)
        stream.occurrences = counter
        return stream

    streams._open = open_counted  # type: ignore[method-assign, assignment]
    return decoder


class FollowedToTheAck(Session):
    """A deleted market is followed until the exchange says that it is."""

    def __init__(self, session_id: int, new_stream_id: Callable[[], int], config: SessionConfig | None = None) -> None:
        super().__init__(session_id, new_stream_id, config)
        self._leaving: list[str] = []

    def unsubscribe_books(self, tickers: Iterable[str]) -> None:
        tickers = list(tickers)
        self._leaving += tickers
        self._subscriptions.unsubscribe(tickers, self._now_ns)

    def receive_all(self, frames: Iterable[tuple[bytes, int]], now_ns: int) -> SessionOutput:
        received = super().receive_all(frames, now_ns)
        # What is being deleted and not acknowledged, nobody but the session itself needs to know.
        left = [ticker for ticker in self._leaving if ticker not in self._subscriptions._deleting]
        for stream in self._streams:
            self._streams.end_book_subscriptions(stream, left, stream.last_seq, "unsubscribed")
        self._leaving = [ticker for ticker in self._leaving if ticker not in left]
        for _, mark in self.pop_batch().marks:
            received.batch.mark(mark)
        return received


def closed_at_the_start(
    spans: pl.DataFrame, deltas: pl.DataFrame, read_to: int, max_out_of_orderness_us: int
) -> pl.DataFrame:
    """S itself is claimed."""
    return _bounds(spans, deltas, read_to, max_out_of_orderness_us).with_columns(pl.col("complete_from_us") - 1)


def closed_at_the_end(
    spans: pl.DataFrame, deltas: pl.DataFrame, read_to: int, max_out_of_orderness_us: int
) -> pl.DataFrame:
    """E itself is claimed."""
    return _bounds(spans, deltas, read_to, max_out_of_orderness_us).with_columns(pl.col("complete_until_us") + 1)


def without_margin(spans: pl.DataFrame, deltas: pl.DataFrame, read_to: int, _margin_us: int) -> pl.DataFrame:
    """Neighbouring frames are believed to be in the order of their times."""
    return _bounds(spans, deltas, read_to, 0)


def without_margin_of_its_own(
    spans: pl.DataFrame, deltas: pl.DataFrame, read_to: int, max_out_of_orderness_us: int
) -> pl.DataFrame:
    """A market's own first and last times are believed to be in order, those of others not."""
    rows = deltas if "ticker" in deltas.columns else rows_of_claims[-1]
    own = (
        spans.select("ticker", "seq", "seq_end")
        .join(rows.select("ticker", "exchange_us", pl.col("seq").alias("_seq")), on="ticker")
        .filter((pl.col("_seq") > pl.col("seq")) & (pl.col("_seq") <= pl.min_horizontal("seq_end", pl.lit(read_to))))
        .sort("_seq")
        .group_by("ticker", "seq")
        .agg(pl.col("exchange_us").first().alias("_first"), pl.col("exchange_us").last().alias("_last"))
    )
    found = _bounds(spans, deltas, read_to, max_out_of_orderness_us).join(own, on=["ticker", "seq"], how="left")
    return found.with_columns(
        complete_from_us=pl.min_horizontal("complete_from_us", "_first"),
        complete_until_us=pl.max_horizontal("complete_until_us", "_last"),
    ).drop("_first", "_last")


def from_the_next_delta(starts: pl.DataFrame, snapshots: pl.DataFrame, deltas: pl.DataFrame) -> pl.DataFrame:
    """The snapshot as it is, and every delta from S on."""
    return _books(starts.with_columns(pl.col("complete_from_us") - 1), snapshots, deltas.clear())


def by_time(column: str) -> NewRows:
    """A cursor over a time of the rows, in place of the numbers of the batches that brought them."""

    def newer(tables: GathererTables, cursor: int, _rows_per_pass: int) -> tuple[int, pa.Table | None]:
        def time_of(row: BookDelta) -> int:
            time: int = getattr(row, column)
            return time

        rows = [row for row, _ in tables.deltas.values() if time_of(row) > cursor]
        return max([cursor, *map(time_of, rows)]), arrow(rows)

    return newer


def passed_over(book_subscriptions: pl.DataFrame, *_: pl.DataFrame) -> pl.DataFrame:
    """What nobody can read changed nothing."""
    return book_subscriptions


def believed_without_proof(
    book_subscriptions: pl.DataFrame, doubted: pl.DataFrame, unknown: pl.DataFrame, checks: pl.DataFrame
) -> pl.DataFrame:
    """Only a snapshot that contradicts the one before counts against an unknown message."""
    failed = checks.filter(~pl.col("passed")).select("ticker", "seq")
    return truncate_subscriptions(
        book_subscriptions, doubted.join(failed, on=["ticker", "seq"], how="semi"), unknown, checks
    )
