"""What the writer counts, for heartbeats and reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from kalshi_platform.monitoring.metrics import LatencyHistogram


@dataclass
class WriterCounters:
    """Totals since the start. The writer's thread counts, others read."""

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
    """About how many bytes of memory that was."""
    last_commit_ns: int = 0
    batch_no: int = 0
    """Of the last commit."""
    subscriptions: int = 0
    """Markets that the committed ledger follows, once for each stream."""
    last_claim_s: float | None = None
    """When a commit last brought numbers of a stream in which markets are followed, by the monotonic clock."""
    compared_s: float | None = None
    """When the ledger was last compared with what was committed."""
    ledger_alarm: str | None = None
    ledger_alarm_s: float | None = None
    """How and when they differed the last time."""
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
