"""Defines the ingest's counters, for heartbeats and reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from kalshi_platform.monitoring.metrics import LatencyHistogram


@dataclass
class IngestCounters:
    """Counts since the start; the ingest's thread writes it, others read."""

    blocks: int = 0
    """Blocks read from the journal."""
    frames: int = 0
    commits: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    dead_letters: int = 0
    scale_contradictions: int = 0
    out_of_bounds: int = 0
    unwritable: int = 0
    damages: int = 0
    """Parts of the journal that could not be read."""
    last_commit_ns: int = 0
    batch_no: int = 0
    """Batch number of the last commit."""
    book_subscriptions: int = 0
    """Open book subscriptions of the committed ledger."""
    last_claim_s: float | None = None
    """When a commit last had numbers of a stream with book subscriptions, by the monotonic clock."""
    compared_s: float | None = None
    """When the position in the database was last read, by the monotonic clock."""
    ledger_alarm: str | None = None
    ledger_alarm_s: float | None = None
    """How the database last differed from what was committed, and when that was found."""
    database_error: str | None = None
    database_failure: str | None = None
    """The kind of the failure that lasts: `unreachable`, `read only`, `wrong password`, …"""
    outages: int = 0
    commit_latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    """From the receipt of a commit's oldest record to the commit."""
