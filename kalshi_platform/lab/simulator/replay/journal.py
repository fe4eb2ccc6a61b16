"""Makes of a gatherer's journal, or of single segments, recorded messages in the order of their receipt.

What several connections of the gatherer received is played once: while a line hands its markets over
to another one, both receive them. A book follows one stream, the first that has it; when that ends, the next one goes
on, with what it received beyond the first.

A book begins as its first snapshot. Where changes come before that, as in a segment from the middle of a recording, it
begins as that snapshot, or the first answer of REST, minus the changes before it.
"""

from __future__ import annotations

import json
import re
import sys
import uuid
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lab.simulator.engine.book import NO, SIDES, YES
from kalshi_platform.lab.simulator.engine.payloads import DOLLARS, count_text
from kalshi_platform.lab.simulator.replay.capture import ANSWERS, recorded_frame, recorded_levels
from kalshi_platform.lab.simulator.replay.journal_segments import Frame, JournalSegment, Mark, read_segment
from kalshi_platform.lab.simulator.replay.recorded import MARKET_KINDS, Json, Recorded, StartState

_REST_BOOKS = 8
_PLAYED = frozenset({0, 3})
"""Kinds of frames that are played: messages, also of unknown types. Responses to commands are the exchange's own."""
_TICKER = re.compile(rb'"market_ticker":\s*"([^"\\]+)"')
_SNAPSHOT, _DELTA = "orderbook_snapshot", "orderbook_delta"
_REMEMBERED_NS = 60 * 10**9
"""How far two connections may lie apart in what they received."""


class Merge:
    """Makes one sequence of messages out of what several streams received. Pure."""

    def __init__(self) -> None:
        # Streams with the book of a market, the leading one first; what the others hold ready; streams of sessions.
        self._streams: dict[str, list[int]] = {}
        self._held: dict[str, deque[tuple[int, Recorded]]] = {}
        self._sessions: dict[int, set[int]] = {}
        # How often a message was played, and received by each stream, with the time of the last.
        self._played: Counter[int] = Counter()
        self._received: Counter[tuple[int, int]] = Counter()
        self._times: deque[tuple[int, int, int]] = deque()

    def add(self, frame: Frame, message: Recorded) -> Iterator[Recorded]:
        """Take a message; yield what is to be played now."""
        self._forget(frame.received_at_ns)
        stream, ticker = frame.stream_id, message.ticker
        self._sessions.setdefault(frame.session_id, set()).add(stream)
        streams = self._streams.setdefault(ticker, []) if message.kind in (_SNAPSHOT, _DELTA) else []
        if message.kind == _SNAPSHOT:
            if stream not in streams:
                streams.append(stream)
            if streams[0] == stream:
                yield message
            return
        key = _key(message)
        self._received[stream, key] += 1
        self._times.append((frame.received_at_ns, key, stream))
        occurrence = self._received[stream, key]
        if streams and stream in streams[1:]:
            self._held.setdefault(ticker, deque()).append((occurrence, message))
        elif occurrence > self._played[key]:
            self._played[key] += 1
            yield message

    def end(self, mark: Mark) -> Iterator[Recorded]:
        """Take a mark; where it ends the leading stream of a book, yield what the next one has beyond it."""
        content = mark.content
        if mark.name == "BookSubscriptionEnded":
            yield from self._end(content["ticker"], {content["stream_id"]})
        elif mark.name == "StreamEnded":
            yield from self._end_streams({content["stream_id"]})
        elif mark.name == "SessionClosed":
            yield from self._end_streams(self._sessions.pop(content["session_id"], set()))
        elif mark.name == "GathererStarted":
            yield from self.end_all()

    def end_all(self) -> Iterator[Recorded]:
        """End every stream, as the end of a process does."""
        yield from self._end_streams({stream for streams in self._streams.values() for stream in streams})
        self._sessions.clear()

    def _end_streams(self, ended: set[int]) -> Iterator[Recorded]:
        for ticker in [ticker for ticker, streams in self._streams.items() if ended & set(streams)]:
            yield from self._end(ticker, ended)

    def _end(self, ticker: str, ended: set[int]) -> Iterator[Recorded]:
        streams = self._streams.get(ticker, [])
        if not streams:
            return
        leading = streams[0]
        self._streams[ticker] = streams = [stream for stream in streams if stream not in ended]
        if streams[:1] == [leading]:
            return
        for occurrence, message in self._held.pop(ticker, ()):
            key = _key(message)
            if occurrence > self._played[key]:
                self._played[key] += 1
                yield message

    def _forget(self, now_ns: int) -> None:
        while self._times and self._times[0][0] < now_ns - _REMEMBERED_NS:
            _, key, stream = self._times.popleft()
            self._received.pop((stream, key), None)
            self._played.pop(key, None)
        for held in self._held.values():
            while held and held[0][1].received_at_ns < now_ns - _REMEMBERED_NS:
                held.popleft()


def _key(message: Recorded) -> int:
    return hash((message.kind, message.body))


class JournalSource:
    """The messages of segments, in their order. `to_us`: what was received from then on is not played."""

    def __init__(self, segments: Sequence[JournalSegment], to_us: int = 0) -> None:
        """Read the state before the first message. Raises ConfigurationError."""
        self._segments = segments
        self._to_ns = to_us * 1_000 or None
        self.channels: frozenset[str] = frozenset()
        self._start = self._read_start()

    def start(self) -> StartState:
        """Return every market of the journal, and its first book."""
        return self._start

    def messages(self) -> Iterator[Recorded]:
        """Yield the messages in the order of their receipt, each once."""
        merge = Merge()
        for item in self._items():
            if isinstance(item, Mark):
                yield from merge.end(item)
                continue
            message = _message(item)
            if message is not None:
                yield from merge.add(item, message)
        yield from merge.end_all()

    def describe(self) -> Json:
        """Return whose journal it is, and how many segments."""
        return {"gatherer": self._segments[0].info["gatherer"], "segments": len(self._segments)}

    def _items(self) -> Iterator[Frame | Mark]:
        for segment in self._segments:
            for item in read_segment(segment):
                if isinstance(item, Mark) or self._to_ns is None or item.received_at_ns < self._to_ns:
                    yield item

    def _read_start(self) -> StartState:
        first = FirstBooks()
        ids: dict[str, str] = {}
        channels: set[str] = set()
        first_ns = 0
        merge = Merge()
        for item in self._items():
            if isinstance(item, Mark):
                first.add_all(merge.end(item))
                continue
            if item.kind == _REST_BOOKS:
                first.add_answer(item.payload)
                continue
            first_ns = min(first_ns or item.received_at_ns, item.received_at_ns)
            # Nothing is new in nearly all frames: changes of a book whose beginning is known.
            found = _TICKER.search(item.payload) if _DELTA.encode() in item.payload[:64] else None
            if found is not None and found[1].decode() in first.books:
                continue
            message = _message(item)
            if message is None:
                continue
            channels.add(message.channel)
            if message.kind in MARKET_KINDS and message.ticker and message.ticker not in ids:
                market_id = json.loads(message.body).get("market_id")
                ids[message.ticker] = str(market_id or uuid.uuid5(uuid.NAMESPACE_OID, message.ticker))
            first.add_all(merge.add(item, message))
        if not channels:
            raise ConfigurationError([f"the journal {self._segments[0].path} holds no data frames"])
        self.channels = frozenset(channels)
        return StartState(ids, first_ns // 1_000, first.found(), frozenset(first.pending))


class FirstBooks:
    """Finds the book of each market before the first message. Pure."""

    def __init__(self) -> None:
        self.books: dict[str, Json] = {}
        """By ticker the `msg` of a snapshot."""
        self.pending: set[str] = set()
        """Markets that begin with a snapshot."""
        self._changes: dict[str, Counter[tuple[int, int]]] = {}
        self._answered: dict[str, Json] = {}

    def add_all(self, messages: Iterable[Recorded]) -> None:
        """Take messages in the order in which they are played."""
        for message in messages:
            ticker = message.ticker
            if ticker in self.books:
                continue
            if message.change is not None:
                side, price, change = message.change
                self._changes.setdefault(ticker, Counter())[side, price] += change
            elif message.kind == _SNAPSHOT:
                if ticker in self._changes:
                    self.books[ticker] = self._before(ticker, message.msg)
                else:
                    self.books[ticker] = message.msg
                    self.pending.add(ticker)

    def add_answer(self, body: bytes) -> None:
        """Take an answer of REST with books, for markets without a snapshot; each was so at about this moment."""
        try:
            answered = json.loads(body)["orderbooks"]
            books = {str(each["ticker"]): each["orderbook_fp"] for each in answered}
        except (ValueError, KeyError, TypeError):
            return
        for ticker, book in books.items():
            if ticker in self._changes and ticker not in self.books and ticker not in self._answered:
                self._answered[ticker] = self._before(ticker, book)

    def found(self) -> dict[str, Json]:
        """Return what was found at the end."""
        return {**self._answered, **self.books}

    def _before(self, ticker: str, msg: Json) -> Json:
        """Return a book minus the changes before it; of a level that would be below zero nothing is known."""
        changes = self._changes[ticker]
        body: Json = {}
        for side in (YES, NO):
            levels = Counter(recorded_levels(msg, side))
            for (of, price), change in changes.items():
                if of == side:
                    levels[price] -= change
            body[f"{SIDES[side]}_dollars_fp"] = [
                [DOLLARS[price], count_text(size)] for price, size in sorted(levels.items()) if size > 0
            ]
        return body


def _message(frame: Frame) -> Recorded | None:
    """Return a frame made ready; None for a response, and for bytes that are no message."""
    if frame.kind not in _PLAYED:
        return None
    try:
        content = json.loads(frame.payload)
        kind = sys.intern(str(content.get("type", "")))
    except (ValueError, AttributeError):
        return None
    return None if kind in ANSWERS else recorded_frame(kind, content.get("msg"), frame.received_at_ns)
