"""Delivers alerts from a thread of its own: nothing that raises one waits for the network, or fails with it.

An alert that cannot be delivered waits, with growing pauses between attempts, up to a day; status, log and the message
that comes at last say so.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from queue import Empty, Full, Queue

from kalshi_platform.backoff import exponential
from kalshi_platform.clock import Clock
from kalshi_platform.errors import KalshiPlatformError, RequestRejected, TransientError
from kalshi_platform.monitoring.alerts.alert import ALERT_TEST, Alert, DueAlert, is_wanted
from kalshi_platform.monitoring.alerts.alert_store import AlertStore
from kalshi_platform.monitoring.alerts.slack import slack_message
from kalshi_platform.monitoring.alerts.webhook import Webhook
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.settings import AlertSettings

_MOST_QUEUED = 1_000
_AT_ONCE = 5
_LONGEST_PAUSE_S = 300.0
_IDLE_S = 3_600.0
_CLAIMED_S = 30.0
_log = event_logger(__name__)


class AlertSender:
    """Sends what is raised here and, with `poll_s`, what other processes left in a shared store.

    Without a webhook in the settings it does nothing. `send` is for any thread.
    """

    def __init__(
        self, settings: AlertSettings, store: AlertStore, clock: Clock, owner: str, poll_s: float | None = None
    ) -> None:
        """`owner` names the process in logs and messages; `poll_s`: how often to look for others' alerts."""
        self._settings = settings
        self._store = store
        self._clock = clock
        self._owner = owner
        self._poll_s = poll_s
        self._webhook = Webhook(settings)
        self._queue: Queue[Alert] = Queue(_MOST_QUEUED)
        self._wake = threading.Event()
        self._spacing = threading.Event()
        """Never set: posts are a second apart."""
        self._closing = False
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._waiting = 0
        self._error: str | None = None
        self._not_before = 0.0

    @property
    def is_enabled(self) -> bool:
        """Whether there is a webhook."""
        return bool(self._settings.webhook_url)

    def send(self, kind: str, subject: str, text: str) -> None:
        """Send an alert soon, unless its kind and subject was sent within the hour. Never waits, never raises."""
        if not self.is_enabled or not is_wanted(kind, self._settings.least_severity):
            return
        try:
            self._queue.put_nowait(Alert(kind, subject, text, self._clock.now()))
        except Full:
            _log.error("alerts_given_up", owner=self._owner, count=1, reason=f"more than {_MOST_QUEUED} wait")
        self._wake.set()

    def problems(self) -> list[str]:
        """Return a clause about alerts that cannot be delivered, if there are any."""
        error = self._error
        return [] if error is None else [f"{self._waiting:,} alerts are not delivered: {error}"]

    @property
    def waiting(self) -> int:
        """Alerts that wait to be delivered, as of the last attempt."""
        return self._waiting

    def start(self) -> None:
        """Start the thread, if there is a webhook."""
        if self.is_enabled and self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"{self._owner} alerts", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float) -> bool:
        """Deliver what waits, at most for `timeout_s`, and end; return whether all was delivered."""
        self._closing = True
        self._wake.set()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        left = self._queue.qsize() + self._waiting
        if left:
            _log.warning("alerts_left", owner=self._owner, count=left, error=self._error)
        return not left and not self._thread.is_alive()

    # -- the thread

    def _run(self) -> None:
        while True:
            is_last = self._closing
            self._wake.clear()
            try:
                self._run_once(ignore_pause=is_last)
            except KalshiPlatformError as error:  # the store's database is away
                self._pause(error)
            except Exception:  # noqa: BLE001 - whatever it is, the next alert has its chance
                self._pause(None)
                _log.exception("alerts_failed", owner=self._owner)
            if is_last:
                return
            if not self._closing:
                self._clock.wait(self._wake, self._wait_s())

    def _run_once(self, *, ignore_pause: bool) -> None:
        raised = self._pop_queued()
        if raised:
            self._store.record(raised)
        if ignore_pause or self._clock.monotonic() >= self._not_before:
            while self._deliver(self._store.claim(_AT_ONCE)):
                pass
        self._waiting = self._store.count_waiting()
        if not self._waiting:  # delivered, maybe by another process
            self._failures, self._error = 0, None

    def _pop_queued(self) -> list[Alert]:
        found: list[Alert] = []
        while True:
            try:
                found.append(self._queue.get_nowait())
            except Empty:
                return found

    def _deliver(self, claimed: Sequence[DueAlert]) -> bool:
        """Post the claimed alerts; return whether to look for more."""
        for number, due in enumerate(claimed):
            kind, subject = due.alert.key
            if not is_wanted(kind, self._settings.least_severity):  # recorded by the merge or a close, for `status`
                self._store.mark_sent(due)
                continue
            try:
                self._webhook.post(slack_message(due, f"{self._owner} on {socket.gethostname()}"))
            except RequestRejected as error:
                _log.error("alert_refused", owner=self._owner, kind=kind, subject=subject, error=error)
            except TransientError as error:
                self._pause(error)
                self._store.release(claimed[number:], str(error))
                return False
            else:
                _log.info("alert_delivered", owner=self._owner, kind=kind, subject=subject, times=due.times)
            self._failures, self._error = 0, None
            self._store.mark_sent(due)
            self._space()
        return bool(claimed)

    def _space(self) -> None:
        self._clock.wait(self._spacing, self._settings.spacing_s)

    def _pause(self, error: KalshiPlatformError | None) -> None:
        """Put the next attempt off: longer with each failure, and at least as long as the receiver says."""
        self._failures += 1
        pause_s = exponential(self._settings.first_pause_s, _LONGEST_PAUSE_S, self._failures - 1)
        if isinstance(error, TransientError) and error.retry_after_s is not None:
            pause_s = max(pause_s, error.retry_after_s)
        self._not_before = self._clock.monotonic() + pause_s
        if error is not None:
            self._error = str(error)
            _log.warning("alert_not_delivered", owner=self._owner, error=error, retry_s=round(pause_s, 1))

    def _wait_s(self) -> float:
        poll_s = _IDLE_S if self._poll_s is None else self._poll_s
        if not self._failures:  # what waits then has been claimed by another process, which may have died
            return min(poll_s, _CLAIMED_S) if self._waiting else poll_s
        return min(poll_s, max(min(1.0, self._settings.first_pause_s), self._not_before - self._clock.monotonic()))


def send_test(settings: AlertSettings, clock: Clock) -> None:
    """Post a test message at once. Raises ConnectionLost and RequestRejected with the receiver's words."""
    alert = Alert(ALERT_TEST, socket.gethostname(), "Alerts of this platform arrive here.", clock.now())
    Webhook(settings).post(slack_message(DueAlert(alert), socket.gethostname()))
