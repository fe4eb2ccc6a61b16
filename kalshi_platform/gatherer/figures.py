"""Counters of threads → plain figures for heartbeats and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.assembly import Parts
from kalshi_platform.gatherer.connections import ConnectionCounters
from kalshi_platform.gatherer.fleet import Slot
from kalshi_platform.gatherer.reports import BooksPolled, Report, StreamsCommitted
from kalshi_platform.gatherer.writer import Writer


class Figures:
    """What happened since the last report, and the last poll."""

    def __init__(self, clock: Clock) -> None:
        self.polls: dict[str, Any] = {}
        """The last poll of books: minute, resolution and what was skipped."""
        self._clock = clock
        self._since = clock.now()
        self._rows: dict[str, int] = {}
        self._totals = (0, 0, 0)

    def note(self, report: Report) -> None:
        """Keep what the heartbeat shows of a report."""
        if isinstance(report, BooksPolled):
            self.polls = {
                "minute": report.minute.isoformat(),
                "subscribed": report.subscribed,
                "stored": report.stored,
                "skipped": report.skipped,
                "failed": report.failed,
                "requests": report.requests,
                "tokens": report.tokens,
                "took_s": round((report.finished_at - report.started_at).total_seconds(), 3),
                "oldest_age_s": report.oldest_age_s,
                "skipped_total": self.polls.get("skipped_total", 0) + report.skipped,
            }

    def status(self, parts: Parts) -> dict[str, Any]:
        """Figures of all parts, as of now."""
        router = parts.router
        return {
            "followed": router.followed(),
            "wanted": len(router.wanted),
            "suspects": len(router.suspects()),
            "markets": dict(parts.registry.counts()),
            "connections": {each.name: connection(each.counters) for each in parts.connections},
            "fleet": dataclasses.asdict(parts.fleet.counters),
            "writer": None if router.writer is None else writer(router.writer),
            "catalog": {
                "last_synced": dict(parts.keeper.last_synced),
                "database_error": parts.keeper.database_error,
                "fetched": parts.fetcher.fetched,
                "not_visible": parts.fetcher.not_visible,
                "refused": parts.store.refused,
            },
            "books": {"recovered": parts.recovery.recovered, **self.polls},
            "alarms": dict(router.alarms),
            "lease": parts.lock.has_lease,
        }

    def streams(self, writer: Writer | None, connections: Sequence[Slot]) -> StreamsCommitted:
        """Return what was committed since the last call."""
        until = self._clock.now()
        rows = dict(writer.counters.rows) if writer is not None else {}
        commits = writer.counters.commits if writer is not None else 0
        totals = (
            commits,
            sum(each.counters.gaps for each in connections),
            sum(each.counters.reconnects for each in connections),
        )
        lags = list(writer.counters.lags_ms) if writer is not None else []
        report = StreamsCommitted(
            since=self._since,
            until=until,
            rows={table: count - self._rows.get(table, 0) for table, count in rows.items()},
            commits=totals[0] - self._totals[0],
            gaps=totals[1] - self._totals[1],
            reconnects=totals[2] - self._totals[2],
            lag_p50_ms=quantile(lags, 0.5),
            lag_p99_ms=quantile(lags, 0.99),
        )
        self._since, self._rows, self._totals = until, rows, totals
        return report


def connection(counters: ConnectionCounters) -> dict[str, Any]:
    """Figures of one connection."""
    return {
        "state": counters.state,
        "frames": counters.frames,
        "sessions": counters.sessions,
        "reconnects": counters.reconnects,
        "refused": counters.refused,
        "gaps": counters.gaps,
        "duplicates": counters.duplicates,
        "dead_letters": counters.dead_letters,
        "scale_contradictions": counters.scale_contradictions,
        "last_data": _iso(counters.last_data_ns),
        "last_error": counters.last_error,
    }


def writer(writer: Writer) -> dict[str, Any]:
    """Figures of the writer. Lags: from the receipt of a commit's oldest record to the commit, over the last ones."""
    counters = writer.counters
    lags = list(counters.lags_ms)
    return {
        "queued": writer.queued(),
        "spool_bytes": writer.spool_bytes(),
        "records": counters.records_put,
        "commits": counters.commits,
        "rows": dict(counters.rows),
        "spooled": counters.spooled,
        "replayed": counters.replayed,
        "out_of_bounds": counters.out_of_bounds,
        "unwritable": counters.unwritable,
        "last_commit": _iso(counters.last_commit_ns),
        "database_error": counters.database_error,
        "disk_error": counters.disk_error,
        "stalled": writer.is_stalled,
        "stalls": counters.stalls,
        "lag_p50_ms": quantile(lags, 0.5),
        "lag_p99_ms": quantile(lags, 0.99),
    }


def quantile(values: Iterable[float], share: float) -> float | None:
    """The value below which `share` of the values lie; None of none."""
    ordered = sorted(values)
    if not ordered:
        return None
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)


def _iso(value_ns: int) -> str | None:
    return None if value_ns == 0 else datetime.fromtimestamp(value_ns / 1e9, UTC).isoformat()
