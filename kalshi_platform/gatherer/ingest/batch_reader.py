"""Reads the journal into batches: the records of consecutive blocks that one transaction commits.

Whoever owns the database says where to begin, and what the ledger has open there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from kalshi_platform.gatherer.ingest.decoder import Decoded, Decoder
from kalshi_platform.gatherer.ingest.fence import START, place
from kalshi_platform.gatherer.ingest.ingest_counters import IngestCounters
from kalshi_platform.gatherer.ingest.open_streams import OpenStream
from kalshi_platform.gatherer.journal.block_format import Block, Damage, Position
from kalshi_platform.gatherer.journal.reader import JournalReader
from kalshi_platform.gatherer.journal.writer import NO_SESSION, JournalWriter
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.records import Record
from kalshi_platform.monitoring.event_log import event_logger

_WARM_UP_S = 120.0
_log = event_logger(__name__)


@dataclass
class Batch:
    """Holds what is committed next: the records of the blocks from one position to another."""

    start: Position
    end: Position
    repeated: bool
    """Whether some of the records may be in the database."""
    received_ns: int = 0
    records: list[Record] = field(default_factory=list)
    blocks: list[tuple[int, int, Position]] = field(default_factory=list)
    """Where the records of each block begin and end, and where the block ends in the journal."""
    book_subscriptions: int = 0


@dataclass(frozen=True, kw_only=True)
class IngestCallbacks:
    """Holds what the ingest calls, from its thread, when blocks say something that others must know."""

    own_sessions: Callable[[], Collection[int]] = tuple
    """Returns the sessions of this process."""
    on_books_lost: Callable[[int, Sequence[str]], None] = lambda _session_id, _tickers: None
    """Receives a session and markets whose book subscription the decoder ended: they need a snapshot."""
    on_lost_claim: Callable[[Sequence[str]], None] = lambda _: None
    """Receives markets whose book subscription was ended because the database refuses something of them."""
    on_lost_sessions: Callable[[], None] = lambda: None
    """Called when the ledger may lack the start of open sessions: every session must end, and another one start."""
    on_alarm: Callable[[str, str], None] = lambda _kind, _detail: None
    on_records: Callable[[Sequence[Record]], None] = lambda _: None
    """Receives all records decoded for the first time, in their order; `on_frames` the frames of each session."""
    on_frames: Callable[[int, Sequence[bytes]], None] = lambda _session_id, _payloads: None


class Undecodable(Exception):
    """Reports that a block made the decoder fail, which has read a part of it."""


class BatchReader:
    """Reads one journal while it is written; for one thread, except `is_lagging`."""

    def __init__(
        self, settings: GathererSettings, journal: JournalWriter, callbacks: IngestCallbacks, counters: IngestCounters
    ) -> None:
        """Set up the reader; `begin_at` comes before the first `read`."""
        self.is_lagging = False
        """Whether more waited in the journal than the last batch took."""
        self.read_to: Position | None = None
        """The end of the journal when it was last read to its end."""
        self._settings = settings
        self._journal = journal
        self._callbacks = callbacks
        self._counters = counters
        self._reader = JournalReader(journal.folder)
        self._decoder: Decoder | None = None
        self._undecodable: dict[Position, str] = {}
        """Blocks that made the decoder fail, by where they begin, with what stands in their place."""
        self._reached = START
        """The furthest position that was decoded: records before it may be in the database."""
        self._rows = settings.flush_rows

    @property
    def has_begun(self) -> bool:
        """Return whether `read` goes on behind the last batch; otherwise `begin_at` must come first."""
        return self._decoder is not None

    def oldest(self) -> Position:
        """Return where the oldest block is, or the first one will be. Raises OSError."""
        return self._reader.oldest() or self._journal.end

    def forget(self) -> None:
        """Forget where it stands."""
        self._decoder = None

    def forget_if_large(self, batch: Batch) -> None:
        """Forget where it stands, so that smaller batches come, where this one was large."""
        if len(batch.records) > self._settings.flush_rows and len(batch.blocks) > 1:
            self._decoder = None

    def begin_at(
        self,
        start: Position,
        sessions: Mapping[int, int],
        streams: Iterable[OpenStream],
        on_before: Callable[[Sequence[Record]], None],
    ) -> None:
        """Begin at a position, with what is open in the ledger there: sessions with their start, and streams.

        The last blocks before it are decoded again, for the numbers of equal rows; `on_before` receives their records.
        """
        settings, reader = self._settings, self._reader
        decoder = Decoder(settings.market_filter.shard, settings.dead_letters_per_minute)
        reader.seek(reader.before(start, _WARM_UP_S))
        while reader.position < start:
            item = reader.next()
            if item is None:
                break
            on_before(self._decode(decoder, item)[0].records)
        decoder.set_open(sessions, streams)
        decoder.dead_letters = decoder.scale_contradictions = 0
        reader.seek(start)
        self._decoder, self._rows, self.is_lagging = decoder, settings.flush_rows, True

    def read(self) -> Batch | None:
        """Decode blocks up to the rows and bytes of one commit; None where there is none.

        After an error the place is forgotten: blocks were read that are in no batch. Raises Undecodable, OSError.
        """
        try:
            return self._read()
        except Exception:
            self._decoder = None
            raise

    def close(self) -> None:
        """Close the file that is read."""
        self._reader.close()

    def _read(self) -> Batch | None:
        settings, reader, decoder, counters = self._settings, self._reader, self._decoder, self._counters
        assert decoder is not None  # noqa: S101 - a mistake of the caller
        end, start = self._journal.end, reader.position
        batch = Batch(start, start, repeated=start < self._reached)
        size, self.is_lagging = 0, True
        while len(batch.records) < self._rows and size < settings.flush_bytes:
            item = reader.next() if reader.position < end else None
            if item is None:
                self.read_to, self.is_lagging = end, False
                break
            size += item.end.offset - item.position.offset
            self._add(decoder, item, batch)
        # Large commits cost less per row: with small ones a lag might never end.
        self._rows = min(settings.lag_rows, 2 * self._rows) if self.is_lagging else settings.flush_rows
        batch.book_subscriptions = decoder.book_subscriptions
        counters.dead_letters += decoder.dead_letters
        counters.scale_contradictions += decoder.scale_contradictions
        decoder.dead_letters = decoder.scale_contradictions = 0
        return None if batch.end == start else batch

    def _decode(self, decoder: Decoder, item: Block | Damage) -> tuple[Decoded, Block | Damage]:
        """Decode a block, or what stands in its place; return that, too.

        Raises Undecodable where the decoder fails: no fault of ours may hold up what stands behind the block, so it
        counts as one that cannot be read, from the next decoder on.
        """
        problem = self._undecodable.get(item.position)
        if problem is not None and isinstance(item, Block):
            size = item.end.offset - item.position.offset
            item = Damage(item.position, item.end, item.position.segment, size, problem)
        try:
            return decoder.decode(item), item
        except Exception as error:
            if isinstance(item, Damage):
                raise
            _log.exception("block_not_decoded", gatherer=self._settings.name, block=place(item.position))
            self._undecodable[item.position] = f"it cannot be decoded: {type(error).__name__}: {error}"
            raise Undecodable from error

    def _add(self, decoder: Decoder, item: Block | Damage, batch: Batch) -> None:
        """Add the records of a block, or of what stands in its place, to the batch."""
        decoded, item = self._decode(decoder, item)
        low, batch.end = len(batch.records), item.end
        batch.records += decoded.records
        batch.blocks.append((low, len(batch.records), item.end))
        if isinstance(item, Block):
            batch.received_ns = item.received_at_ns
            self._counters.blocks += 1
            self._counters.frames += len(item.batch.payloads)
        else:
            self._counters.damages += not item.is_torn
        if item.position >= self._reached:
            self._notify(decoded, item)
        self._reached = max(self._reached, item.end)

    def _notify(self, decoded: Decoded, item: Block | Damage) -> None:
        """Pass on what newly decoded blocks mean for other parts."""
        callbacks = self._callbacks
        for alarm in decoded.alarms:
            _log.warning(alarm.kind, gatherer=self._settings.name, detail=alarm.detail)
            callbacks.on_alarm(alarm.kind, alarm.detail)
        if decoded.damaged_sessions and not decoded.damaged_sessions.isdisjoint(callbacks.own_sessions()):
            callbacks.on_lost_sessions()
        if isinstance(item, Block):
            if decoded.lost_claims:
                callbacks.on_books_lost(item.session_id, decoded.lost_claims)
            if item.session_id != NO_SESSION:
                callbacks.on_frames(item.session_id, item.batch.payloads)
        callbacks.on_records(decoded.records)
