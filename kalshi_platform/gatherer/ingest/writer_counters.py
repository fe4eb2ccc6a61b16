"""Defines the writer's counters, for heartbeats and reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from kalshi_platform.monitoring.metrics import LatencyHistogram


@dataclass
class WriterCounters:
    """Counts since the start; the writer's thread writes it, others read."""

    records_put: int = 0
    commits: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    out_of_bounds: int = 0
    unwritable: int = 0
    spooled: int = 0
    replayed: int = 0
    most_held: int = 0
    """Most records that were in memory at once."""
    most_held_bytes: int = 0
    """About the bytes of memory that was."""
    last_commit_ns: int = 0
    batch_no: int = 0
    """Batch number of the last commit."""
    subscriptions: int = 0
    """Open book subscriptions of the committed ledger."""
    last_claim_s: float | None = None
    """When a commit last had numbers of a stream with book subscriptions, by the monotonic clock."""
    compared_s: float | None = None
    """When the ledger was last compared with what was committed, by the monotonic clock."""
    ledger_alarm: str | None = None
    ledger_alarm_s: float | None = None
    """What the last difference was, and when it was found."""
    database_error: str | None = None
    database_failure: str | None = None
    """The kind of the failure that lasts: `unreachable`, `read only`, `wrong password`, …"""
    outages: int = 0
    disk_error: str | None = None
    spool_alarms: int = 0
    """How often the spool passed one of its alarm levels."""
    spool_damages: int = 0
    stalls: int = 0
    commit_latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    """From the receipt of a commit's oldest record to the commit."""
