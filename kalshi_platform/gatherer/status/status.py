"""Defines the status of a gatherer, of which heartbeat, health, metrics and status lines are views.

Its JSON is the `details` of the heartbeat. A reader of another version's JSON ignores unknown fields; a field that is
missing there has its default, so None stands for "not reported", and a part that is None does not exist (yet). Ages and
spans are in seconds (`_s`), latencies in milliseconds (`_ms`), times ISO 8601 in UTC; counters count since the process
started.
"""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import Struct, field

from kalshi_platform.monitoring.metrics import LatencyBuckets
from kalshi_platform.monitoring.process_usage import ProcessStatus

_CURRENT_S = 5.0


class ChannelStatus(Struct, kw_only=True):
    """Describes one channel over all connections; `per_s` is the rate since the heartbeat before."""

    messages: int = 0
    per_s: float | None = None
    last_message_age_s: float | None = None


class ConnectionStatus(Struct, kw_only=True):
    """Describes one connection and those that it replaced; `state` is that of the present one."""

    state: str = ""
    frames: int = 0
    sessions: int = 0
    reconnects: int = 0
    refused: int = 0
    """Handshakes refused for the signature."""
    gaps: int = 0
    duplicates: int = 0
    last_data: datetime | None = None
    last_data_age_s: float | None = None
    asked_rarely: int = 0
    """Markets that lose their claim again and again: their snapshots are requested ever more rarely."""
    last_message_age_s: dict[str, float] = {}
    """Ages by channel, for those that had a message."""
    last_error: str | None = None


class ConnectionPoolStatus(Struct, kw_only=True):
    """Counts what the pool did with its connections."""

    rotations: int = 0
    rotations_given_up: int = 0
    moved_markets: int = 0


class LedgerStatus(Struct, kw_only=True):
    """Describes the committed ledger; `alarm` is how it last differed from what was committed."""

    subscriptions: int | None = None
    """Open book subscriptions of the ledger."""
    last_claim_age_s: float | None = None
    compared_age_s: float | None = None
    alarm: str | None = None
    alarm_age_s: float | None = None
    short_of_books_s: float | None = None
    """How long it has lacked followed books; None while it does not."""


class IngestStatus(Struct, kw_only=True):
    """Describes what of the journal is in the database; recent latencies are from a receipt to its commit."""

    segment: int = 0
    offset: int = 0
    """The position in the database: the segment of the journal, and the byte in it."""
    behind_bytes: int = 0
    """Bytes of the journal that are not in the database."""
    behind_s: float = 0.0
    """Since the last message in the database was received; 0 while nothing waits."""
    rows_per_s: float | None = None
    frames: int = 0
    commits: int = 0
    batch_no: int = 0
    """Batch number of the last commit."""
    rows: dict[str, int] = {}
    """New rows committed, by table."""
    dead_letters: int = 0
    """Messages that could not be read."""
    scale_contradictions: int = 0
    """Books whose no-side prices are on another scale than was asked for."""
    out_of_bounds: int = 0
    unwritable: int = 0
    damages: int = 0
    """Parts of the journal that could not be read."""
    last_commit: datetime | None = None
    database_error: str | None = None
    database_failure: str | None = None
    """The kind of the failure that lasts: `unreachable`, `read only`, `wrong password`, …"""
    outages: int = 0
    lag_p50_ms: float | None = None
    lag_p99_ms: float | None = None
    lag_max_ms: float | None = None
    lag_buckets: LatencyBuckets = field(default_factory=LatencyBuckets)

    @property
    def is_current(self) -> bool:
        """Return whether the database takes commits, and has what was received some seconds ago."""
        return self.database_error is None and self.behind_s < _CURRENT_S


class JournalStatus(Struct, kw_only=True):
    """Describes the journal on disk."""

    segment: int = 0
    """The segment that is written."""
    bytes_on_disk: int = 0
    limit_bytes: int | None = None
    fill_percent: float = 0.0
    fill_alarms: int = 0
    """How often it passed one of its fill levels."""
    unwritable: str | None = None
    """Why nothing can be written, with the remedy: nothing is received then."""
    stalls: int = 0
    """How often it became unwritable."""


class CatalogStatus(Struct, kw_only=True):
    """Describes the syncs of series, events and markets, the refreshes of markets, and faults of REST answers."""

    last_synced: dict[str, str] = {}
    """When the last whole sync ended, by listing."""
    database_error: str | None = None
    failing: dict[str, str] = {}
    """Why a listing failed or what it lacks, by listing."""
    left_out: int = 0
    refused: int = 0
    fetched: int = 0
    not_visible: int = 0
    unfit_fields: int = 0
    mended_values: int = 0
    cut_listings: int = 0


class PollerStatus(Struct, kw_only=True, omit_defaults=True):
    """Describes the last poll of books over REST (no fields before the first one), and books recovered."""

    minute: datetime | None = None
    subscribed: int | None = None
    stored: int | None = None
    skipped: int | None = None
    failed: int | None = None
    requests: int | None = None
    tokens: float | None = None
    took_s: float | None = None
    oldest_age_s: float | None = None
    skipped_total: int | None = None
    recovered: int | None = None


class ClockStatus(Struct, kw_only=True):
    """Holds the seconds by which this machine's clock is ahead (negative: behind); None: not known."""

    ahead_of_exchange_s: float | None = None
    ahead_of_database_s: float | None = None


class GathererStatus(Struct, kw_only=True):
    """Describes a gatherer at one moment."""

    state: str = ""
    uptime_s: float | None = None
    note: str = ""
    """What the gatherer waits for, or empty."""
    market_shard: str = "1/1"
    """The part of the markets that it records."""
    followed_markets: int | None = field(name="followed", default=None)
    desired_markets: int | None = field(name="wanted", default=None)
    suspect_markets: int = field(name="suspects", default=0)
    """Markets that lost a frame and wait for a snapshot."""
    short_of_books_s: float | None = None
    """How long too few books have been followed without a gain; None while there are enough."""
    dead_letters_last_minute: int = 0
    markets: dict[str, int] = {}
    """Markets of the registry, by state."""
    channels: dict[str, ChannelStatus] = {}
    connections: dict[str, ConnectionStatus] = {}
    connection_pool: ConnectionPoolStatus | None = field(name="fleet", default=None)
    ledger: LedgerStatus | None = None
    journal: JournalStatus | None = None
    ingest: IngestStatus | None = None
    catalog: CatalogStatus | None = None
    poller: PollerStatus | None = field(name="books", default=None)
    clock: ClockStatus | None = None
    alarms: dict[str, int] = {}
    """Alarms by kind."""
    alerts_waiting: int = 0
    """Alerts that wait to be delivered."""
    problems: list[str] = []
    """What is wrong with databases, clocks and the delivery of alerts, a clause each."""
    has_database_lock: bool = field(name="lease", default=False)
    process: ProcessStatus | None = None
    health: str = ""
    """`ok`, `degraded` or `not recording`; empty where it is not reported."""
    reasons: list[str] = []
    """Why it does not record everything it should, a clause each."""
    troubles: list[str] = []
    """What else needs attention, a clause each."""


def age_s(then_s: float | None, now_s: float) -> float | None:
    """Return the seconds since a moment of the monotonic clock; None if it never was."""
    return None if then_s is None else round(max(0.0, now_s - then_s), 1)


def time_of_ns(moment_ns: int) -> datetime | None:
    """Return a moment in nanoseconds since the epoch as a time; None for 0, which stands for never."""
    return None if moment_ns == 0 else datetime.fromtimestamp(moment_ns / 1e9, UTC)
