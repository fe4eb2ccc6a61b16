"""Models what is open in the ledger after the last commit, as the process that wrote it expects. Pure.

The model applies what the statements of a commit do, so that it can be compared with the database: open sessions and
streams, the last number of each open stream, and of each stream how many book subscriptions are open and where they
started.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from kalshi_platform.gatherer.ingest.ledger import BookSubscription, Ledger

_SHOWN = 3


@dataclass(frozen=True)
class OpenState:
    """Holds what is open.

    `streams`: stream → last committed number (None: none yet); `members`: stream → (open books, sum of their seq_from).
    """

    sessions: frozenset[int] = frozenset()
    streams: Mapping[int, int | None] = field(default_factory=dict)
    members: Mapping[int, tuple[int, int]] = field(default_factory=dict)


class OpenLedger:
    """Keeps what one process has open. For its writer's thread."""

    def __init__(self) -> None:
        self._sessions: set[int] = set()
        self._streams: dict[int, int | None] = {}
        self._session_of: dict[int, int] = {}
        self._members: dict[int, dict[str, int]] = {}
        # What a repeated batch must not open again: sessions and streams, book subscriptions of streams that have
        # ended, and of those that have not the ones that have ended. What was ended in the database alone may go on
        # here.
        self._over: set[int] = set()
        self._finished: set[int] = set()
        self._ended: dict[int, dict[str, int]] = {}
        self._count = 0

    @property
    def subscriptions(self) -> int:
        """Return the number of open book subscriptions of all streams."""
        return self._count

    def is_claimed(self, ledger: Ledger) -> bool:
        """Return whether this commit has numbers of a stream with book subscriptions."""
        return any(segment.stream_id in self._members for segment in ledger.segments)

    def apply(self, ledger: Ledger) -> None:
        """Apply a commit of `ledger`; applying it again changes nothing."""
        self._sessions |= {each.session_id for each in ledger.sessions_opened} - self._over
        for opened in ledger.streams_opened:
            if opened.stream_id not in self._over:
                self._streams.setdefault(opened.stream_id, None)
                self._session_of[opened.stream_id] = opened.session_id
        for segment in ledger.segments:
            if segment.stream_id in self._streams:
                self._streams[segment.stream_id] = max(self._streams[segment.stream_id] or 0, segment.seq_to)
        for ending in ledger.endings:
            seq = self._members.get(ending.stream_id, {}).get(ending.ticker)
            if seq is not None and seq < ending.before:
                self._end_one(ending.stream_id, ending.ticker, seq)
        for book_subscription in ledger.book_subscriptions:
            self._apply_start(book_subscription)
        for ended in ledger.streams_ended:
            self._over.add(ended.stream_id)
            self._finished.add(ended.stream_id)
            self._streams.pop(ended.stream_id, None)
            self._session_of.pop(ended.stream_id, None)
            self._ended.pop(ended.stream_id, None)
        closed = {each.session_id for each in ledger.sessions_closed}
        self._over |= closed
        self._sessions -= closed

    def end_book_subscriptions(self) -> None:
        """End every book subscription, as the database did."""
        for stream_id, members in self._members.items():
            self._ended.setdefault(stream_id, {}).update(members)
        self._members, self._count = {}, 0

    def end_former(self, own_sessions: Iterable[int]) -> None:
        """End everything that is not of these sessions, as the database did: former processes left it in the spool."""
        own = set(own_sessions)
        self._over |= self._sessions - own
        self._sessions &= own
        # A stream without a recorded opening is of a former process, too.
        for stream_id in [each for each in self._streams if self._session_of.get(each) not in own]:
            self._over.add(stream_id)
            del self._streams[stream_id]
        for stream_id in [each for each in self._members if self._session_of.get(each) not in own]:
            members = self._members.pop(stream_id)
            self._ended.setdefault(stream_id, {}).update(members)
            self._count -= len(members)

    def end_all(self) -> None:
        """End everything, as the database did."""
        self.end_book_subscriptions()
        self._over |= self._sessions | self._streams.keys()
        self._sessions, self._streams = set(), {}

    def state(self) -> OpenState:
        """Return what should be open in the database."""
        members = {stream: (len(each), sum(each.values())) for stream, each in self._members.items()}
        return OpenState(frozenset(self._sessions), dict(self._streams), members)

    def starts(self) -> list[tuple[int, str, int]]:
        """Return every open book subscription: stream, ticker, seq_from."""
        return [
            (stream, ticker, seq)
            for stream, members in self._members.items()
            for ticker, seq in members.items()
        ]  # fmt: skip

    def _apply_start(self, book_subscription: BookSubscription) -> None:
        stream_id, ticker, seq = book_subscription.stream_id, book_subscription.ticker, book_subscription.seq_from
        if stream_id in self._finished:
            return
        if book_subscription.seq_to is not None:
            if self._members.get(stream_id, {}).get(ticker) == seq:
                self._end_one(stream_id, ticker, seq)
            self._remember_end(stream_id, ticker, seq)
        elif seq > self._ended.get(stream_id, {}).get(ticker, 0):
            members = self._members.setdefault(stream_id, {})
            self._count += ticker not in members
            members[ticker] = seq

    def _end_one(self, stream_id: int, ticker: str, seq: int) -> None:
        members = self._members[stream_id]
        del members[ticker]
        self._count -= 1
        if not members:
            del self._members[stream_id]
        self._remember_end(stream_id, ticker, seq)

    def _remember_end(self, stream_id: int, ticker: str, seq: int) -> None:
        ended = self._ended.setdefault(stream_id, {})
        ended[ticker] = max(seq, ended.get(ticker, 0))


def difference(expected: OpenState, found: OpenState, *, former_is_closed: bool) -> str | None:
    """Describe how `found`, the database's state, differs from `expected`; None if it does not.

    Before `former_is_closed` a former process's sessions are still open there, and only missing entries count.
    """
    differences: list[str] = []
    _compare("sessions", expected.sessions, found.sessions, differences, former_is_closed=former_is_closed)
    _compare("streams", expected.streams.keys(), found.streams.keys(), differences, former_is_closed=former_is_closed)
    for stream, last in expected.streams.items():
        found_last = found.streams.get(stream)
        if stream in found.streams and found_last != last:
            differences.append(f"stream {stream} is committed to {last}, and to {found_last} there")
    different = {stream: each for stream, each in expected.members.items() if found.members.get(stream) != each}
    unexpected_streams = (
        [stream for stream in found.members if stream not in expected.members] if former_is_closed else []
    )
    for stream in [*different, *unexpected_streams][:_SHOWN]:
        expected_books, found_books = expected.members.get(stream, (0, 0))[0], found.members.get(stream, (0, 0))[0]
        others = " (not the same ones)" if expected_books == found_books else ""
        differences.append(f"stream {stream}: {expected_books} books are followed, {found_books} there{others}")
    return "; ".join(differences) or None


def _compare(
    what: str, expected: AbstractSet[int], found: AbstractSet[int], differences: list[str], *, former_is_closed: bool
) -> None:
    missing, unexpected = expected - found, found - expected if former_is_closed else set[int]()
    if missing:
        differences.append(f"{what} not open there: {_shown_ids(missing)}")
    if unexpected:
        differences.append(f"{what} open only there: {_shown_ids(unexpected)}")


def _shown_ids(ids: AbstractSet[int]) -> str:
    shown = ", ".join(str(each) for each in sorted(ids)[:_SHOWN])
    return shown if len(ids) <= _SHOWN else f"{shown} and {len(ids) - _SHOWN} more"
