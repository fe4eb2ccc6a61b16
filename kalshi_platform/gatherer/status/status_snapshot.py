"""Counters of threads → plain figures for heartbeats and reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.gatherer.assembly import Parts
from kalshi_platform.gatherer.capture.connection_slot import ConnectionSlot
from kalshi_platform.gatherer.capture.connections import ConnectionCounters
from kalshi_platform.gatherer.ingest.writer import Writer
from kalshi_platform.gatherer.status.channel_counters import ChannelTraffic, Traffic, summed
from kalshi_platform.gatherer.status.latency_histogram import quantile
from kalshi_platform.gatherer.status.rate_meter import Rates
from kalshi_platform.gatherer.status.reports import BooksPolled, Report, StreamsCommitted
from kalshi_platform.monitoring.process_usage import process_usage
from kalshi_platform.monitoring.shortfall import LastMinute, Shortfall


class Figures:
    """What happened since the last report, and the last poll."""

    def __init__(self, clock: Clock) -> None:
        self.polls: dict[str, Any] = {}
        """The last poll of books: minute, resolution and what was skipped."""
        self._clock = clock
        self._since = clock.now()
        self._rows: dict[str, int] = {}
        self._totals = (0, 0, 0)
        self._rates = Rates(clock.monotonic())
        self._books_short = Shortfall()
        self._ledger_short = Shortfall()
        self._dead_letters = LastMinute()

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

    def look(self, parts: Parts) -> None:
        """Measure the rates since the last look. For one thread, once per heartbeat."""
        messages = {f"messages {name}": each.messages for name, each in summed(tuple(parts.traffic.values())).items()}
        writer = parts.router.writer
        rows = {f"rows {table}": count for table, count in ({} if writer is None else writer.counters.rows).items()}
        now_s = self._clock.monotonic()
        self._rates.look({**messages, **rows}, now_s)
        self._dead_letters.update(dead_letters(parts), now_s)
        followed = parts.router.followed()
        self._books_short.update(followed, len(parts.router.wanted), now_s)
        # While something waits to be written the ledger lags behind, which is told by other figures.
        is_written = writer is not None and not writer.database_is_away and not writer.spool_bytes()
        self._ledger_short.update(writer.counters.subscriptions if is_written and writer else 0,
                                followed if is_written else 0, now_s)  # fmt: skip

    def status(self, parts: Parts) -> dict[str, Any]:
        """Figures of all parts, as of now."""
        router, now_s = parts.router, self._clock.monotonic()
        return {
            "followed": router.followed(),
            "wanted": len(router.wanted),
            "short_of_books_s": self._books_short.lasted_s(now_s),
            "ledger": None
            if router.writer is None
            else {
                **ledger(router.writer, now_s),
                "short_of_books_s": self._ledger_short.lasted_s(now_s),
            },
            "dead_letters_last_minute": self._dead_letters.growth,
            "suspects": len(router.out_of_sync()),
            "markets": dict(parts.registry.counts()),
            "channels": channels(summed(tuple(parts.traffic.values())), self._rates, now_s),
            "connections": {
                each.name: connection(each.counters, parts.traffic.get(each.name), now_s) for each in parts.connections
            },
            "fleet": dataclasses.asdict(parts.fleet.counters),
            "writer": None if router.writer is None else writer(router.writer, self._rates),
            "catalog": {
                "last_synced": dict(parts.keeper.last_synced),
                "database_error": parts.keeper.database_error,
                "fetched": parts.fetcher.fetched,
                "not_visible": parts.fetcher.not_visible,
                "refused": parts.store.refused,
                "failing": dict(parts.keeper.failing),
                "left_out": parts.keeper.left_out,
                "unfit_fields": sum(parts.rest.faults.unfit.values()),
                "mended_values": parts.rest.faults.mended,
                "cut_listings": parts.rest.faults.cut_listings,
            },
            "books": {"recovered": parts.recovery.recovered, **self.polls},
            "clock": parts.clocks.figures(),
            "alarms": dict(router.alarms),
            "problems": [
                *parts.checks.problems(),
                *parts.clocks.problems(),
                *parts.open_transactions.problems(),
            ],
            "lease": parts.lock.has_lease,
            "process": process_usage(),
        }

    def streams(self, writer: Writer | None, connections: Sequence[ConnectionSlot]) -> StreamsCommitted:
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


def channels(traffic: Mapping[str, ChannelTraffic], rates: Rates, now_s: float) -> dict[str, Any]:
    """Figures of each channel over all connections."""
    return {
        name: {
            "messages": each.messages,
            "per_s": rates.per_s.get(f"messages {name}"),
            "last_message_age_s": age_s(each.last_s, now_s),
        }
        for name, each in traffic.items()
    }


def connection(counters: ConnectionCounters, traffic: Traffic | None, now_s: float) -> dict[str, Any]:
    """Figures of one connection; ages in seconds, None before the first message."""
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
        "last_data_age_s": age_s(counters.last_data_s if counters.last_data_ns else None, now_s),
        "asked_rarely": counters.asked_rarely,
        "last_message_age_s": {
            name: age_s(each.last_s, now_s) for name, each in ({} if traffic is None else traffic.channels()).items()
        },
        "last_error": counters.last_error,
    }


def writer(writer: Writer, rates: Rates) -> dict[str, Any]:
    """Figures of the writer. Lags: from the receipt of a commit's oldest record to the commit, over the last ones."""
    counters = writer.counters
    lags = list(counters.lags_ms)
    rows_per_s = [rate for name, rate in rates.per_s.items() if name.startswith("rows ")]
    fill = writer.spool_fill()
    return {
        "queued": writer.queued(),
        "most_held": counters.most_held,
        "held_bytes": writer.held_bytes(),
        "most_held_bytes": counters.most_held_bytes,
        "spool_bytes": fill.used,
        "spool_limit_bytes": fill.capacity,
        "spool_fill_percent": round(100 * fill.share, 1) if fill.used else 0.0,
        "spool_alarms": counters.spool_alarms,
        "spool_damages": counters.spool_damages,
        "rows_per_s": round(sum(rows_per_s), 1) if rates.over_s else None,
        "records": counters.records_put,
        "commits": counters.commits,
        "batch_no": counters.batch_no,
        "rows": dict(counters.rows),
        "spooled": counters.spooled,
        "replayed": counters.replayed,
        "out_of_bounds": counters.out_of_bounds,
        "unwritable": counters.unwritable,
        "last_commit": _iso(counters.last_commit_ns),
        "database_error": counters.database_error,
        "database_failure": counters.database_failure,
        "outages": counters.outages,
        "disk_error": counters.disk_error,
        "stalled": writer.is_stalled,
        "stalls": counters.stalls,
        "lag_p50_ms": quantile(lags, 0.5),
        "lag_p99_ms": quantile(lags, 0.99),
        "lag_max_ms": round(max(lags), 1) if lags else None,
        "lag_buckets": {
            "up_to_s": counters.lags_ms.buckets(),
            "count": counters.lags_ms.number,
            "total_s": round(counters.lags_ms.total_s, 3),
        },
    }


def ledger(writer: Writer, now_s: float) -> dict[str, Any]:
    """What the ledger holds; ages in seconds. `alarm`: how it differed from what was committed, the last time."""
    counters = writer.counters
    return {
        "subscriptions": counters.subscriptions,
        "last_claim_age_s": age_s(counters.last_claim_s, now_s),
        "compared_age_s": age_s(counters.compared_s, now_s),
        "alarm": counters.ledger_alarm,
        "alarm_age_s": age_s(counters.ledger_alarm_s, now_s),
    }


def dead_letters(parts: Parts) -> int:
    """Messages put aside since the start: what could not be read, and what could not be stored as it was."""
    writer = parts.router.writer
    stored = 0 if writer is None else writer.counters.out_of_bounds + writer.counters.unwritable
    return stored + sum(each.counters.dead_letters for each in parts.connections)


def age_s(then_s: float | None, now_s: float) -> float | None:
    """Seconds since a moment of the monotonic clock; None if it never was."""
    return None if then_s is None else round(max(0.0, now_s - then_s), 1)


def _iso(value_ns: int) -> str | None:
    return None if value_ns == 0 else datetime.fromtimestamp(value_ns / 1e9, UTC).isoformat()
