"""Polls whole books over REST: every minute for all subscribed markets, and at once for markets that lost a frame.

Kalshi answers at most 100 markets per request (docs.kalshi.com, API reference, read 2026-11-22) and grants a budget of
requests. Markets that do not fit into a minute's share are left to the next one: gapped markets go first, then those
whose book changed since its last request, then others.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from kalshi_platform.clock import Clock, wait_until_s
from kalshi_platform.errors import ConnectionLost, KalshiPlatformError
from kalshi_platform.exchange.budget import REQUEST_TOKENS
from kalshi_platform.gatherer.journal.writer import NO_SESSION, JournalWriter
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.gatherer.status.reports import BooksPolled
from kalshi_platform.gatherer.status.status import PollerStatus
from kalshi_platform.market.catalog import BooksAnswer, EndpointCosts
from kalshi_platform.market.frames import FrameBatch, FrameKind, RestBooksReceived
from kalshi_platform.market.records import NO_STREAM, BookDelta, Record, SnapshotSource
from kalshi_platform.market.times import US_PER_S, datetime_from_us
from kalshi_platform.monitoring.event_log import event_logger

BOOKS_PER_REQUEST = 100
_PATH = "/markets/orderbooks"
_FAILURES_IN_A_ROW = 3
_QUIET_POLLS = 10
_PAUSE_DEADLINES = 2
OnBooks: TypeAlias = Callable[[BooksAnswer, SnapshotSource, int | None], None]
"""Records an answer with whole books: what it is for, and the time of its snapshots (None: that of the answer)."""
_log = event_logger(__name__)


class BooksClient(Protocol):
    """Describes the part of the REST client that polling needs."""

    def books(self, tickers: Sequence[str]) -> BooksAnswer:
        """Return the books of up to 100 markets."""


def poll_once(
    rest: BooksClient,
    tickers: Sequence[str],
    put: OnBooks,
    clock: Clock,
    snapshot_ts_us: int,
    max_requests: int | None = None,
    stop: threading.Event | None = None,
    tokens_per_request: float = REQUEST_TOKENS,
) -> BooksPolled:
    """Request the books of `tickers`, in their order, by at most `max_requests` requests, and `put` the answers.

    `snapshot_ts_us` is the poll's minute and the time of every snapshot. Failed requests are counted; three in a row
    end the poll.
    """
    started_at = clock.now()
    requested = stored = failed = requests = in_a_row = 0
    for batch in _batches(tickers):
        if in_a_row >= _FAILURES_IN_A_ROW or (max_requests is not None and requests >= max_requests):
            break
        if stop is not None and stop.is_set():
            break
        requests += 1
        requested += len(batch)
        try:
            answer = rest.books(batch)
            put(answer, "rest", snapshot_ts_us)
        except KalshiPlatformError as error:
            failed += len(batch)
            in_a_row += 1
            _log.warning("rest_books_failed", error=error)
            continue
        in_a_row = 0
        stored += len(answer.books)
    return BooksPolled(
        minute=datetime_from_us(snapshot_ts_us),
        subscribed=len(tickers),
        asked=requested,
        stored=stored,
        skipped=len(tickers) - requested,
        failed=failed,
        requests=requests,
        started_at=started_at,
        finished_at=clock.now(),
        tokens=requests * tokens_per_request,
    )


def cost_of_books(costs: EndpointCosts) -> float:
    """Return the tokens that one request of books costs."""
    named = (cost for (method, path), cost in costs.by_endpoint.items() if method == "GET" and path.endswith(_PATH))
    return next(named, costs.default_cost)


def record_books(
    journal: JournalWriter, answer: BooksAnswer, source: SnapshotSource, snapshot_ts_us: int | None
) -> None:
    """Append an answer with whole books to the journal. Raises JournalUnwritable."""
    batch = FrameBatch([answer.body], [answer.answered_at_ns], [NO_STREAM], [0], [int(FrameKind.REST_BOOKS)])
    batch.marks.append((0, RestBooksReceived(source, answer.requested_at_ns, snapshot_ts_us)))
    journal.append(NO_SESSION, batch)


@dataclass(frozen=True)
class PollBudget:
    """Holds the read tokens per second of this process, and the tokens of one request of books."""

    refill_per_s: float = 200.0
    tokens_per_request: float = REQUEST_TOKENS


class BookActivity:
    """Keeps when each book last changed, in microseconds; the ingest's thread writes it, the poller reads."""

    def __init__(self) -> None:
        self.last_delta_us: dict[str, int] = {}
        """Receive time of the last delta by ticker."""

    def observe(self, records: Sequence[Record]) -> None:
        """Record which books change; called with all records that are decoded."""
        for record in records:
            if type(record) is BookDelta:
                self.last_delta_us[record.ticker] = record.received_at_ns // 1_000


class SnapshotPoller:
    """Polls at the start of every interval, from a thread of its own."""

    def __init__(
        self,
        settings: GathererSettings,
        rest: BooksClient,
        clock: Clock,
        put: OnBooks,
        subscribed: Callable[[], Collection[str]],
        out_of_sync: Callable[[], Collection[str]],
        on_polled: Callable[[BooksPolled], None],
        activity: BookActivity,
    ) -> None:
        """Set up the poller; `subscribed` returns all followed markets, `out_of_sync` those that lost a frame."""
        self._settings = settings
        self._rest = rest
        self._clock = clock
        self._put = put
        self._subscribed = subscribed
        self._out_of_sync = out_of_sync
        self._on_polled = on_polled
        self._last_delta = activity.last_delta_us
        # By ticker, in microseconds: the last poll that requested it, and the last answer (before it the first poll).
        self._last_requested: dict[str, int] = {}
        self._last_answered: dict[str, int] = {}
        self._status = PollerStatus()

    def run(self, stop: threading.Event, budget: PollBudget) -> None:
        """Poll at every start of an interval until `stop`."""
        interval_us = int(self._settings.snapshot_interval_s * US_PER_S)
        last_us = 0
        while True:
            now_us = self._clock.now_ns() // 1_000
            start_us = now_us // interval_us * interval_us
            # A clock that was set back must not stop polling; one that jitters at a minute's turn was not set.
            is_new = start_us > last_us or now_us < last_us - interval_us // 2
            if is_new and self._subscribed():
                last_us = start_us
                self.poll(start_us, stop, budget)
                continue
            due_us = now_us + US_PER_S // 5 if is_new else start_us + interval_us
            if self._clock.wait(stop, wait_until_s(self._clock, (due_us - now_us) / US_PER_S) + 0.001):
                return

    def poll(self, minute_us: int, stop: threading.Event, budget: PollBudget) -> BooksPolled:
        """Poll once, the most uncertain markets first; return the report."""
        order = self.order(minute_us)
        most = self.max_requests(budget)
        answered: list[str] = []

        def put(answer: BooksAnswer, source: SnapshotSource, snapshot_ts_us: int | None) -> None:
            self._put(answer, source, snapshot_ts_us)
            answered.extend(answer.books)

        report = poll_once(self._rest, order, put, self._clock, minute_us, most, stop, budget.tokens_per_request)
        self._last_requested.update(dict.fromkeys(order[: report.asked], minute_us))
        for ticker in order:
            self._last_answered.setdefault(ticker, minute_us)
        self._last_answered.update(dict.fromkeys(answered, minute_us))
        current = set(order)
        for times in (self._last_requested, self._last_answered, self._last_delta):
            # A copy: the ingest adds deltas meanwhile.
            for ticker in times.copy().keys() - current:
                times.pop(ticker, None)
        if order:
            oldest_us = min(self._last_answered[ticker] for ticker in order)
            age_s = (self._clock.now_ns() // 1_000 - oldest_us) / US_PER_S
            report = dataclasses.replace(report, oldest_age_s=age_s)
        if report.skipped:
            why = "the gatherer stops" if stop.is_set() else "requests keep failing"
            if report.requests >= most:
                why = "they did not fit into the budget"
            _log.info(
                "rest_books_skipped",
                gatherer=self._settings.name,
                skipped=report.skipped,
                markets=len(order),
                reason=why,
            )
        self._status = PollerStatus(
            minute=report.minute,
            subscribed=report.subscribed,
            stored=report.stored,
            skipped=report.skipped,
            failed=report.failed,
            requests=report.requests,
            tokens=report.tokens,
            took_s=round((report.finished_at - report.started_at).total_seconds(), 3),
            oldest_age_s=report.oldest_age_s,
            skipped_total=(self._status.skipped_total or 0) + report.skipped,
        )
        self._on_polled(report)
        return report

    def status(self) -> PollerStatus:
        """Return how the last poll went."""
        return self._status

    def order(self, now_us: int) -> list[str]:
        """Return the subscribed markets: gapped ones, then active ones, then others; each by age of the last request.

        A market is active with a delta since its last request (of equally old requests the one with the later delta
        goes first), and, so that quiet ones get their turn, when it was not requested for 10 intervals.
        """
        out_of_sync = set(self._out_of_sync())
        patience_us = int(_QUIET_POLLS * self._settings.snapshot_interval_s * US_PER_S)

        def rank(ticker: str) -> tuple[int, int, int, str]:
            requested, delta = self._last_requested.get(ticker, 0), self._last_delta.get(ticker, 0)
            is_active = delta >= requested or requested + patience_us <= now_us
            return (0 if ticker in out_of_sync else 1 if is_active else 2, requested, -delta, ticker)

        return sorted(self._subscribed(), key=rank)

    def max_requests(self, budget: PollBudget) -> int:
        """Return the requests that the share of the budget allows in one interval, at least one."""
        tokens = budget.refill_per_s * self._settings.poll_share * self._settings.snapshot_interval_s
        return max(1, int(tokens / budget.tokens_per_request))


class Recovery:
    """Fetches books over REST for markets whose snapshot did not come, and subscribes them again."""

    def __init__(
        self,
        settings: GathererSettings,
        rest: BooksClient,
        clock: Clock,
        put: OnBooks,
        resubscribe_missing: Callable[[Sequence[str]], None],
    ) -> None:
        """Set up recovery; `resubscribe_missing` subscribes markets again where they still lack a snapshot."""
        self.recovered = 0
        """Books stored as `rest_recovery`."""
        self._settings = settings
        self._rest = rest
        self._clock = clock
        self._put = put
        self._resubscribe_missing = resubscribe_missing
        self._waiting: dict[str, float] = {}
        self._requested_at: dict[str, float] = {}
        self._wake = threading.Condition()

    def request(self, tickers: Sequence[str]) -> None:
        """Queue markets to recover, without waiting; a market is fetched at most once in two snapshot deadlines."""
        pause_s = _PAUSE_DEADLINES * self._settings.snapshot_deadline_s
        with self._wake:
            now = self._clock.monotonic()
            self._requested_at = {ticker: at for ticker, at in self._requested_at.items() if at + pause_s > now}
            for ticker in tickers:
                self._waiting.setdefault(ticker, self._requested_at.get(ticker, now - pause_s) + pause_s)
            self._wake.notify_all()

    def run(self, stop: threading.Event) -> None:
        """Serve the requests until `stop`."""
        while not stop.is_set():
            with self._wake:
                now = self._clock.monotonic()
                tickers = [ticker for ticker, due in self._waiting.items() if due <= now][:BOOKS_PER_REQUEST]
                for ticker in tickers:
                    del self._waiting[ticker]
                    self._requested_at[ticker] = now
                if not tickers:
                    self._wake.wait(0.25)
            if not tickers:
                continue
            try:
                answer = self._rest.books(tickers)
                self._put(answer, "rest_recovery", None)
            except KalshiPlatformError as error:
                _log.warning("recovery_books_failed", gatherer=self._settings.name, error=error)
                if isinstance(error, ConnectionLost) and stop.is_set():
                    return
            else:
                self.recovered += len(answer.books)
            # Only the new subscription restores the claim; it must not depend on REST.
            self._resubscribe_missing(tickers)
            self._clock.wait(stop, 0.05 * random.random())  # noqa: S311 - jitter


def _batches(tickers: Sequence[str]) -> Iterator[Sequence[str]]:
    for low in range(0, len(tickers), BOOKS_PER_REQUEST):
        yield tickers[low : low + BOOKS_PER_REQUEST]
