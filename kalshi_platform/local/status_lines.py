"""Makes lines for people of the status of a service. Pure."""

from __future__ import annotations

from kalshi_platform.deduplicator.live.status import DeduplicatorStatus
from kalshi_platform.gatherer.status.status import GathererStatus, IngestStatus, JournalStatus, PollerStatus
from kalshi_platform.market.parts import WHOLE
from kalshi_platform.monitoring.process_usage import ProcessStatus

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def gatherer_lines(status: GathererStatus) -> list[str]:
    """Return what it follows, how fast and how late; then what is wrong, each with a `!`. Parts may be missing."""
    lines = []
    if status.desired_markets is not None:
        lines.append(_following(status))
    if status.ingest is not None:
        lines.append(_writing(status.ingest, status.journal or JournalStatus()))
    if status.process is not None:
        lines.append(_using(status.process, status.poller))
    if status.note and not status.reasons:
        lines.append(status.note)
    return [*lines, *wrong_lines(status)]


def wrong_lines(status: GathererStatus | DeduplicatorStatus) -> list[str]:
    """Return what is wrong with a service, a line each."""
    return [f"! {text}" for text in (*status.reasons, *status.troubles)]


def byte_text(count: float | None) -> str:
    """A size for people."""
    if count is None:
        return "?"
    step = 0
    while count >= 1024 and step < len(_UNITS) - 1:
        count, step = count / 1024, step + 1
    return f"{count:.0f} {_UNITS[step]}" if step == 0 or count >= 10 else f"{count:.1f} {_UNITS[step]}"


def _following(status: GathererStatus) -> str:
    suspects = f", {status.suspect_markets:,} wait for a snapshot" if status.suspect_markets else ""
    rates = {name: each.per_s for name, each in status.channels.items() if each.per_s}
    shown = ", ".join(f"{name} {rate:,.0f}" for name, rate in sorted(rates.items(), key=lambda each: -each[1]))
    messages = f"; {sum(rates.values()):,.0f} messages/s ({shown})" if rates else ""
    gaps = sum(each.gaps for each in status.connections.values())
    reconnects = sum(each.reconnects for each in status.connections.values())
    ledger = status.ledger
    in_ledger = "" if ledger is None or ledger.subscriptions is None else f" ({ledger.subscriptions:,} in the ledger)"
    shard = "" if status.market_shard == str(WHOLE) else f" of shard {status.market_shard}"
    return (
        f"follows {status.followed_markets or 0:,} of {status.desired_markets or 0:,} books{shard}{in_ledger}{suspects}"
        f"{messages}; gaps {gaps:,}, reconnects {reconnects:,}"
    )


def _writing(ingest: IngestStatus, journal: JournalStatus) -> str:
    rows = f"{ingest.rows_per_s:,.0f} rows/s" if ingest.rows_per_s is not None else "rows/s not known yet"
    lag = "" if ingest.lag_p99_ms is None else (
        f", receipt to commit {ingest.lag_p50_ms or 0:,.0f} ms (p99 {ingest.lag_p99_ms:,.0f},"
        f" most {ingest.lag_max_ms or 0:,.0f})"
    )  # fmt: skip
    limit = journal.limit_bytes
    size = byte_text(journal.bytes_on_disk) + (f" of {byte_text(limit)}" if limit else "")
    return f"{rows}{lag}; journal {size}, {byte_text(ingest.behind_bytes)} not in the database"


def _using(process: ProcessStatus, poller: PollerStatus | None) -> str:
    used = f"{byte_text(process.rss_bytes)} of memory, {process.threads} threads, {process.open_files} open files"
    if poller is None or poller.oldest_age_s is None:
        return used
    skipped = f", {poller.skipped:,} not polled" if poller.skipped else ""
    return f"{used}; oldest REST book {poller.oldest_age_s:.0f} s{skipped}"
