"""Runs WebSocket connections, each in its thread: open, subscribe, receive, put batches of frames, and reconnect.

Books are spread over several connections; trades, tickers and lifecycle have one of their own. A session is used by its
thread only; other threads set the desired state, which that thread applies. The connection pool decides which markets a
connection follows, and when it is replaced by a fresh one.
"""

from __future__ import annotations

import dataclasses
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kalshi_platform.backoff import Backoff
from kalshi_platform.clock import Clock
from kalshi_platform.errors import (
    AuthenticationFailed,
    ConnectionLost,
    JournalUnwritable,
    KalshiPlatformError,
    UnparsableMessage,
)
from kalshi_platform.exchange.pacing import RateLimitedQueue
from kalshi_platform.exchange.parse.messages import DeltaBody, parse_frame
from kalshi_platform.exchange.protocol.pending_snapshots import RepeatedLosses
from kalshi_platform.exchange.protocol.session import Alarm, Session, SessionConfig, SessionCounters
from kalshi_platform.exchange.settings import ExchangeSettings
from kalshi_platform.exchange.websocket import WebSocketConnection
from kalshi_platform.gatherer.capture.connect_pacing import ConnectThrottle
from kalshi_platform.gatherer.ids import IdSource
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.market.frames import FrameBatch, FrameKind
from kalshi_platform.market.records import BookSubscriptionStarted, SessionClosed, SessionOpened
from kalshi_platform.monitoring.event_log import event_logger

LIFECYCLE_CHANNEL = "market_lifecycle_v2"
FEED_CHANNELS = ("trade", "ticker", LIFECYCLE_CHANNEL)
COMBO_CHANNEL = "multivariate_market_lifecycle"
_TICK_S = 0.5
_LASTING_S = 10.0
_WAIT_STEP_S = 0.5
_log = event_logger(__name__)


@dataclass
class ConnectionCounters:
    """Counts since the start over all sessions of one connection; `reconnects` are sessions after the first."""

    state: str = "closed"
    frames: int = 0
    sessions: int = 0
    reconnects: int = 0
    refused: int = 0
    gaps: int = 0
    duplicates: int = 0
    last_data_ns: int = 0
    last_data_s: float = 0.0
    """Receive time of the last data frame by the monotonic clock."""
    resubscribed_rarely: int = 0
    """Markets that now lose their claim again and again: their snapshots are requested ever more rarely."""
    last_error: str | None = None


class Connection:
    """Keeps one connection open until `stop` or `close_after_handover`."""

    def __init__(
        self,
        name: str,
        settings: GathererSettings,
        exchange: ExchangeSettings,
        clock: Clock,
        ids: IdSource,
        stop: threading.Event,
        put_batch: Callable[[int, FrameBatch], None],
        on_alarm: Callable[[Connection, Alarm], None],
        channels: Sequence[str] = (),
        throttle: ConnectThrottle | None = None,
        may_receive: Callable[[], bool] = lambda: True,
    ) -> None:
        """Set up the connection.

        `put_batch` records what the session of a number gives, in order, or raises JournalUnwritable; `on_alarm`
        receives gaps and missing snapshots; neither may block for long. All connections of the gatherer share
        `throttle`. While `may_receive` returns False no session is open, because nothing could store what it receives.
        """
        self.name = name
        self.counters = ConnectionCounters()
        self._settings = settings
        self._exchange = exchange
        self._clock = clock
        self._ids = ids
        self._stop = stop
        self._put_batch = put_batch
        self._on_alarm = on_alarm
        self._channels = tuple(channels)
        self._may_receive = may_receive
        self._throttle = throttle or ConnectThrottle(settings.reconnect_spacing_s, random.random)
        agent = f"{exchange.user_agent} ({settings.name} {name})"
        self._socket = WebSocketConnection(
            dataclasses.replace(exchange, user_agent=agent), clock, f"{settings.name} {name}"
        )
        self._lock = threading.Lock()
        # Set by other threads: the whole set of books (replaced, never changed), and markets to subscribe again.
        self._target: Mapping[str, int] = {}
        self._to_resubscribe: set[str] = set()
        self._resubscribe_at_ns: dict[str, int] = {}
        self._repeated_losses = RepeatedLosses()
        self._to_resubscribe_missing: set[str] = set()
        self._lost_books: list[tuple[int, Sequence[str]]] = []
        self._books: Mapping[str, int] = {}
        self._counted = SessionCounters()
        self._followed: frozenset[str] = frozenset()
        self._out_of_sync: frozenset[str] = frozenset()
        self._unresponsive: frozenset[str] = frozenset()
        self._open_channels: frozenset[str] = frozenset()
        self._feed_times: dict[int, tuple[int, int]] | None = None
        self._resubscribed: set[str] = set()
        self._retired: str | None = None
        self._thread: threading.Thread | None = None

    # -- called from any thread

    def set_markets(self, markets: Mapping[str, int]) -> None:
        """Follow exactly these markets (ticker → exchange_index), now and after every reconnect."""
        with self._lock:
            if markets != self._target:
                self._target = dict(markets)

    def resubscribe(self, tickers: Sequence[str]) -> None:
        """Unsubscribe these markets and subscribe them again, for a snapshot that starts a new book subscription.

        Markets that lose their claim soon after it are resubscribed ever more rarely.
        """
        with self._lock:
            self._to_resubscribe.update(tickers)

    def resubscribe_missing(self, tickers: Sequence[str]) -> None:
        """Resubscribe those of these markets that have no open book subscription when the thread applies it."""
        with self._lock:
            self._to_resubscribe_missing.update(tickers)

    def books_lost(self, session_id: int, tickers: Sequence[str]) -> None:
        """Request snapshots of books of which the decoder lost a frame, if that session is still open."""
        if self.is_open:
            with self._lock:
                self._lost_books.append((session_id, tickers))

    def followed(self) -> frozenset[str]:
        """Return the markets with an open book subscription, as of the last half second."""
        return self._followed

    def out_of_sync(self) -> frozenset[str]:
        """Return the markets that lost a frame and have no new snapshot yet."""
        return self._out_of_sync

    def unresponsive(self) -> frozenset[str]:
        """Return the markets that sent no snapshot to repeated requests; refused ones are not among them."""
        return self._unresponsive

    @property
    def is_open(self) -> bool:
        """Return whether a session is open."""
        return self.counters.state == "open"

    @property
    def has_channels(self) -> bool:
        """Return whether every channel of this connection is open."""
        return self._open_channels.issuperset(self._channels)

    def start_overlap_tracking(self) -> None:
        """Start recording exchange times of deltas (`feed_times`) and new book subscriptions (`resubscribed`)."""
        self._resubscribed = set()
        self._feed_times = {}

    def resubscribed(self) -> frozenset[str]:
        """Return the markets whose book subscription started since `start_overlap_tracking`."""
        return frozenset(self._resubscribed)

    def feed_times(self) -> Mapping[int, tuple[int, int]]:
        """Return, by exchange_index, the exchange times (µs) of the first and latest delta since tracking started."""
        return dict(self._feed_times or {})

    def close_after_handover(self, reason: str) -> None:
        """Close for good, because another connection carries the markets; `reason` is written to the session."""
        self._retired = reason

    def start(self) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, name=f"{self._settings.name} {self.name}", daemon=True)
        self._thread.start()

    def is_running(self) -> bool:
        """Return whether the thread may still put batches."""
        return self._thread is not None and self._thread.is_alive()

    def join(self, timeout_s: float) -> None:
        """Wait for the thread, which ends after `stop` or `close_after_handover`, its session closed and put."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    # -- the connection's thread

    def _run(self) -> None:
        backoff = self._new_backoff()
        while not self._is_over():
            if not self._channels and not self._target:
                # A book connection without books would be idle.
                self._clock.wait(self._stop, 0.1)
                continue
            if not self._may_receive():
                self.counters.state = "stalled"
                self._clock.wait(self._stop, 0.1)
                continue
            delay = backoff.next() + self._settings.stagger_s * random.random()  # noqa: S311 - jitter
            self._wait(self._throttle.delay(self._clock.monotonic()))
            if self._is_over():
                break
            try:
                self.counters.state = "connecting"
                self._socket.open()
                if self._run_session():
                    backoff = self._new_backoff()
                    delay = backoff.next() + self._settings.stagger_s * random.random()  # noqa: S311
            except AuthenticationFailed as error:
                self.counters.refused += 1
                delay = self._settings.refused_backoff_s * (1 + 0.2 * random.random())  # noqa: S311
                self._report_failure(error, delay)
            except KalshiPlatformError as error:
                self._report_failure(error, delay)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not end capture: reconnect
                name, consequence = self._settings.name, "it is opened again"
                _log.exception("connection_failed", gatherer=name, connection=self.name, consequence=consequence)
                self.counters.last_error = f"{type(error).__name__}: {error}"
            if not self._is_over():
                self.counters.state = "waiting"
                self._wait(delay)
        self.counters.state = "closed"

    def _is_over(self) -> bool:
        return self._retired is not None or self._stop.is_set()

    def _wait(self, seconds: float) -> None:
        """Wait, but not beyond the end of the connection."""
        until = self._clock.monotonic() + seconds
        while not self._is_over() and (left := until - self._clock.monotonic()) > 0.001:
            self._clock.wait(self._stop, min(left, _WAIT_STEP_S))

    def _run_session(self) -> bool:
        """Run one session to its end; return whether it lasted, which resets the backoff."""
        deadline_s = self._settings.snapshot_deadline_s
        config = SessionConfig(snapshot_deadline_s=deadline_s, ack_deadline_s=deadline_s, attempts=1)
        session = Session(self._ids.new_session_id(), self._ids.new_id, config)
        self._counted = SessionCounters()
        opened_ns, opened_s = self._clock.now_ns(), self._clock.monotonic()
        # First: when all open sessions must end, because the ledger lost their start, this one must be among them.
        self.counters.state = "open"
        opened = FrameBatch()
        opened.mark(SessionOpened(session.session_id, self.name, self._exchange.ws_url, False, opened_ns))
        self._put_batch(session.session_id, opened)
        self.counters.sessions += 1
        self.counters.reconnects = self.counters.sessions - 1
        _log.info("connected", gatherer=self._settings.name, connection=self.name)
        reason = "stopped"
        try:
            self._run_until_closed(session, opened_s)
            reason = self._retired or (reason if self._may_receive() else "stalled")
        except ConnectionLost as error:
            reason = "connection lost"
            self.counters.last_error = str(error)
            _log.warning("connection_lost", gatherer=self._settings.name, connection=self.name, error=error)
        except JournalUnwritable as error:
            reason = "stalled"
            self.counters.last_error = str(error)
        except BaseException as error:
            reason = f"failed: {type(error).__name__}"
            raise
        finally:
            try:
                self._put_end(session, reason)
            finally:
                self._leave(session)
        return session.counters.frames > 0 and self._clock.monotonic() - opened_s > _LASTING_S

    def _put_end(self, session: Session, reason: str) -> None:
        now_ns = self._clock.now_ns()
        ended = SessionClosed(session.session_id, now_ns, reason)
        closed = session.close(now_ns, reason)
        closed.mark(ended)
        try:
            self._put_batch(session.session_id, closed)
        except ValueError:
            # Without the marks before it, whose absence shows: else every segment would restate the session.
            alone = FrameBatch()
            alone.mark(ended)
            self._put_batch(session.session_id, alone)
            raise

    def _leave(self, session: Session) -> None:
        """Close the socket, and forget what was of its session."""
        self._socket.close()
        self._ids.end_session(session.session_id)
        self._add_counts(session)
        self.counters.state = "waiting"
        with self._lock:
            self._lost_books.clear()
        if self._feed_times is not None:
            # The next session starts new book subscriptions, perhaps before `resubscribed` is read.
            self._resubscribed |= self._followed
        self._followed = self._out_of_sync = self._unresponsive = self._open_channels = frozenset()
        self._feed_times = None
        self.counters.resubscribed_rarely = 0

    def _run_until_closed(self, session: Session, opened_s: float) -> None:
        session.tick(_ns(opened_s))
        self._books = {}
        # Every market gets a snapshot now.
        self._resubscribe_at_ns.clear()
        session.subscribe_channels(self._channels)
        settings = self._settings
        commands = RateLimitedQueue(settings.commands_per_s, settings.command_bytes_per_s, self._clock.monotonic())
        # Spans by the monotonic clock: if the wall clock were set back, ticks would stop for as long.
        tick_s = probed_s = opened_s
        while not self._is_over() and self._may_receive():
            self._apply_desired_state(session)
            alarms: list[Alarm] = []
            try:
                commands.add(session.pop_commands())
                self._send(commands)
                first = self._socket.receive()
                if first is not None:
                    received = session.receive_all((first, *self._socket.receive_ready()), _ns(self._clock.monotonic()))
                    self._put(session, received.batch)
                    self._socket.confirm()
                    commands.add(received.commands)
                    alarms += received.alarms
                now_s = self._clock.monotonic()
                if now_s - tick_s >= _TICK_S:
                    tick_s = now_s
                    ticked = session.tick(_ns(now_s))
                    self._put(session, ticked.batch)
                    commands.add(ticked.commands)
                    alarms += ticked.alarms
                    alarms += self._count_resubscribed_rarely(session, now_s)
                    self._publish_state(session)
                    probed_s = self._check_silence(session, now_s, opened_s, probed_s)
                    commands.add(session.pop_commands())
            finally:
                self._put(session, session.pop_batch())
            self._send(commands)
            for alarm in alarms:
                self._on_alarm(self, alarm)

    def _put(self, session: Session, batch: FrameBatch) -> None:
        if batch:
            if self._feed_times is not None:
                self._track_overlap(batch, self._feed_times)
            self._put_batch(session.session_id, batch)

    def _send(self, commands: RateLimitedQueue) -> None:
        if commands:
            for command in commands.pop_ready(self._clock.monotonic()):
                self._socket.send(command)

    def _publish_state(self, session: Session) -> None:
        """Publish the state that other threads read; sets are copied only when they changed."""
        self._add_counts(session)
        if session.book_subscriptions_changed():
            self._followed = frozenset(session.followed())
        self._out_of_sync = frozenset(session.out_of_sync())
        self._unresponsive = frozenset(session.unresponsive())
        self._open_channels = frozenset(session.open_channels())

    def _track_overlap(self, batch: FrameBatch, times: dict[int, tuple[int, int]]) -> None:
        """Take the exchange times of the deltas and the new book subscriptions of a batch, during a handover only."""
        for payload, kind in zip(batch.payloads, batch.kinds, strict=True):
            if kind != FrameKind.DATA:
                continue
            try:
                body = parse_frame(payload).body
            except UnparsableMessage:
                continue
            index = self._books.get(body.ticker) if isinstance(body, DeltaBody) else None
            if index is not None and isinstance(body, DeltaBody):
                moment_us = body.exchange_ts_us
                first_us, last_us = times.get(index, (moment_us, moment_us))
                times[index] = (first_us, max(last_us, moment_us))
        self._resubscribed |= {mark.ticker for _, mark in batch.marks if isinstance(mark, BookSubscriptionStarted)}

    def _apply_desired_state(self, session: Session) -> None:
        with self._lock:
            target, resubscribe, self._to_resubscribe = self._target, self._to_resubscribe, set()
            missing, self._to_resubscribe_missing = self._to_resubscribe_missing, set()
            lost, self._lost_books = self._lost_books, []
        if target is not self._books:
            leaving = [ticker for ticker in self._books if ticker not in target]
            joining = {ticker: index for ticker, index in target.items() if ticker not in self._books}
            if leaving:
                session.unsubscribe_books(leaving)
            if joining:
                session.subscribe_books(joining)
            self._books = target
        for session_id, tickers in lost:
            if session_id == session.session_id:
                session.books_lost(tickers)
        resubscribe = self._due_for_resubscription(resubscribe & target.keys())
        if missing:
            # Followed markets keep their claim: the snapshot came, or was missing on another connection only.
            resubscribe |= missing - session.followed()
        again = {ticker: target[ticker] for ticker in resubscribe if ticker in target}
        if again:
            session.unsubscribe_books(again)
            session.subscribe_books(again)

    def _due_for_resubscription(self, lost: set[str]) -> set[str]:
        now_ns, waiting = _ns(self._clock.monotonic()), self._resubscribe_at_ns
        for ticker in lost - waiting.keys():
            waiting[ticker] = self._repeated_losses.record_loss(ticker, now_ns)
        due = {ticker for ticker, at_ns in waiting.items() if at_ns <= now_ns}
        for ticker in due:
            del waiting[ticker]
        return due

    def _count_resubscribed_rarely(self, session: Session, now_s: float) -> list[Alarm]:
        """Count the markets that lose their claim again and again; return an alarm when there are first ones."""
        before, now = (
            self.counters.resubscribed_rarely,
            session.resubscribed_rarely() + self._repeated_losses.repeated(_ns(now_s)),
        )
        self.counters.resubscribed_rarely = now
        if before or not now:
            return []
        detail = f"{now} markets lose their claim again and again; their snapshots are asked for ever more rarely"
        return [Alarm("asked_rarely", detail)]

    def _check_silence(self, session: Session, now_s: float, opened_s: float, probed_s: float) -> float:
        """Request the open subscriptions now and then; return when they were last requested.

        A silent connection must answer, else this raises ConnectionLost. A busy one is checked because one channel may
        die while the others go on.
        """
        if not self._books and not self._channels:
            return probed_s
        limit_s = self._settings.silence_limit_s
        data_s = max(self._socket.last_data_s, opened_s)
        silent_s = now_s - data_s
        if silent_s > limit_s:
            raise ConnectionLost(f"no data for {silent_s:.0f} s, not even an answer to a question; pings do not count")
        if now_s - max(data_s, probed_s) > limit_s / 3 or now_s - probed_s > limit_s:
            session.list_subscriptions()
            return now_s
        return probed_s

    def _add_counts(self, session: Session) -> None:
        """Add the counts of the session since the last call."""
        counters, now, before = self.counters, session.counters, self._counted
        counters.frames += now.frames - before.frames
        counters.gaps += now.gaps - before.gaps
        counters.duplicates += now.duplicates - before.duplicates
        counters.last_data_ns = self._socket.last_data_ns or counters.last_data_ns
        counters.last_data_s = max(counters.last_data_s, self._socket.last_data_s)
        self._counted = dataclasses.replace(now)

    def _report_failure(self, error: KalshiPlatformError, delay_s: float) -> None:
        self.counters.last_error = str(error)
        _log.warning(
            "connect_failed", gatherer=self._settings.name, connection=self.name, wait_s=round(delay_s, 1), error=error
        )

    def _new_backoff(self) -> Backoff:
        return Backoff(self._settings.reconnect_min_s, self._settings.reconnect_max_s, random.random)


def _ns(monotonic_s: float) -> int:
    """Return monotonic nanoseconds, by which a session counts its deadlines."""
    return int(monotonic_s * 1e9)
