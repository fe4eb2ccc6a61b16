"""Adds trends to a status: rates, durations, growth within a minute."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from kalshi_platform.gatherer.status.reports import StreamsCommitted
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.monitoring.shortfall import LastMinute, Shortfall

_SHORTEST_S = 1.0


class RateMeter:
    """Measures the growth per second of named totals between updates at least a second apart. For one thread."""

    def __init__(self, now_s: float) -> None:
        self._at = now_s
        self._totals: dict[str, int] = {}
        self.per_s: Mapping[str, float] | None = None
        """Rates of the last update, None before it; the mapping is replaced, never changed."""

    def update(self, totals: Mapping[str, int], now_s: float) -> None:
        """Measure the growth up to these totals; a new name counts from 0."""
        passed_s = now_s - self._at
        if passed_s < _SHORTEST_S:
            return
        self.per_s = {name: round((total - self._totals.get(name, 0)) / passed_s, 1) for name, total in totals.items()}
        self._at, self._totals = now_s, dict(totals)


class StatusTrends:
    """Measures changes between heartbeats; `update` is for one thread, `add_to` for any."""

    def __init__(self, now_s: float) -> None:
        """Start measuring; `now_s` is monotonic here and below."""
        self._started_s = now_s
        self._rates = RateMeter(now_s)
        self._books_short = Shortfall()
        self._ledger_short = Shortfall()
        self._dead_letters = LastMinute()

    def update(self, status: GathererStatus, now_s: float) -> None:
        """Measure up to this status; called once for each heartbeat."""
        messages = {f"messages {name}": each.messages for name, each in status.channels.items()}
        ingest, ledger = status.ingest, status.ledger
        rows = {} if ingest is None else {f"rows {table}": count for table, count in ingest.rows.items()}
        self._rates.update({**messages, **rows}, now_s)
        self._dead_letters.update(_dead_letters(status), now_s)
        followed = status.followed_markets or 0
        self._books_short.update(followed, status.desired_markets or 0, now_s)
        # While the database is behind the journal so is the ledger, which other fields show.
        is_written = ingest is not None and ingest.is_current
        in_ledger = ledger.subscriptions or 0 if is_written and ledger is not None else 0
        self._ledger_short.update(in_ledger, followed if is_written else 0, now_s)

    def add_to(self, status: GathererStatus, now_s: float) -> None:
        """Set the fields of a status that need more than one moment."""
        status.uptime_s = round(now_s - self._started_s, 1)
        status.short_of_books_s = self._books_short.lasted_s(now_s)
        status.dead_letters_last_minute = self._dead_letters.growth
        per_s = self._rates.per_s
        for name, channel in status.channels.items():
            channel.per_s = None if per_s is None else per_s.get(f"messages {name}")
        if status.ingest is not None and per_s is not None:
            rows_per_s = (rate for name, rate in per_s.items() if name.startswith("rows "))
            status.ingest.rows_per_s = round(sum(rows_per_s), 1)
        if status.ledger is not None:
            status.ledger.short_of_books_s = self._ledger_short.lasted_s(now_s)


class StreamCounts:
    """Keeps the totals of the last report of committed streams. For one thread at a time."""

    def __init__(self, since: datetime) -> None:
        self._since = since
        self._rows: dict[str, int] = {}
        self._totals = (0, 0, 0)

    def report(self, status: GathererStatus, until: datetime) -> StreamsCommitted:
        """Return what was committed since the last call."""
        ingest = status.ingest
        rows = {} if ingest is None else ingest.rows
        totals = (
            0 if ingest is None else ingest.commits,
            sum(each.gaps for each in status.connections.values()),
            sum(each.reconnects for each in status.connections.values()),
        )
        report = StreamsCommitted(
            since=self._since,
            until=until,
            rows={table: count - self._rows.get(table, 0) for table, count in rows.items()},
            commits=totals[0] - self._totals[0],
            gaps=totals[1] - self._totals[1],
            reconnects=totals[2] - self._totals[2],
            lag_p50_ms=None if ingest is None else ingest.lag_p50_ms,
            lag_p99_ms=None if ingest is None else ingest.lag_p99_ms,
        )
        self._since, self._rows, self._totals = until, rows, totals
        return report


def _dead_letters(status: GathererStatus) -> int:
    """Return the dead letters since the start: messages that could not be read, and records that were quarantined."""
    ingest = status.ingest
    return 0 if ingest is None else ingest.dead_letters + ingest.out_of_bounds + ingest.unwritable
