"""Defines the settings of one gatherer; `kalshi_platform.config` fills them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.market.parts import WHOLE, MarketPart
from kalshi_platform.monitoring.heartbeat import FILE_NAME as HEARTBEAT_FILE
from kalshi_platform.monitoring.settings import AlertSettings, EndpointSettings
from kalshi_platform.setting import setting

DEAD_LETTERS_PER_MINUTE = 100


@dataclass(frozen=True)
class MarketFilter:
    """Selects the markets to follow: empty tuples admit everything, several lists must all admit a market."""

    series: tuple[str, ...] = field(
        default=(), metadata=setting("KALSHI_SERIES", "follow only series with these tickers (globs)", default="all")
    )
    categories: tuple[str, ...] = field(
        default=(), metadata=setting("KALSHI_CATEGORIES", "follow only these categories (exact names)", default="all")
    )
    tickers: tuple[str, ...] = field(
        default=(), metadata=setting("KALSHI_TICKERS", "follow only markets with these tickers (globs)", default="all")
    )
    include_combos: bool = field(
        default=False, metadata=setting("KALSHI_COMBOS", "whether multivariate combos are followed, too")
    )
    shard: MarketPart = field(
        default=WHOLE,
        metadata=setting(
            "KALSHI_{GATHERER}_MARKET_SHARD",
            "the part of the markets of which the gatherer records books, trades and tickers: the i-th of n, by a hash"
            " of the ticker; lifecycle and catalog are recorded of all",
            also=("KALSHI_MARKET_SHARD",),
            kind="market_part",
            default="`1/1`: all",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class GathererSettings:
    """Holds the settings of one gatherer: its name, databases, folder and limits. Spans in seconds."""

    name: str
    timeseries_url: str = field(
        repr=False,
        metadata=setting(
            "KALSHI_{GATHERER}_TIMESERIES_DATABASE_URL",
            "the database of a gatherer's rows",
            kind="database_url",
            secret=True,
            default="a local one under `up`, else required",
        ),
    )
    catalog_url: str = field(
        repr=False,
        metadata=setting(
            "KALSHI_{GATHERER}_CATALOG_DATABASE_URL",
            "the database of a gatherer's series, events and markets",
            kind="database_url",
            secret=True,
            default="a local one under `up`, else required",
        ),
    )
    state_dir: Path
    market_filter: MarketFilter = MarketFilter()

    connections: int = field(
        default=1,
        metadata=setting(
            "KALSHI_BOOK_CONNECTIONS",
            "WebSocket connections that share the books of a gatherer, at least; trades, tickers and lifecycle have one"
            " of their own",
            low=1,
            high=100,
        ),
    )
    # Kalshi's limit of a connection is 500,000; that of a subscription is not published, and 10,000 are known to work.
    markets_per_connection: int = field(
        default=10_000,
        metadata=setting(
            "KALSHI_MARKETS_PER_CONNECTION",
            "books on one connection; more markets open more connections",
            low=1,
            high=500_000,
        ),
    )
    # Offsets keep connections and gatherers from doing it at the same time.
    rotate_connections_s: float = field(
        default=12 * 3600.0,
        metadata=setting(
            "KALSHI_ROTATE_HOURS",
            "about how often a connection is replaced by a fresh one, which holds all its snapshots before the old one"
            " is closed; 0 = never",
            unit="h",
            low=0,
            high=24 * 365,
            scale=3600.0,
        ),
    )
    handover_overlap_s: float = 4.0
    """How long both the old and the new connection of a market record it, once the new one has its snapshot.

    More than twice the margin of the merge (1 s by default), else there is a hole between their claims.
    """
    handover_patience_s: float = 120.0
    """Longest wait for deltas of a quiet feed, and for the snapshots of the new connection."""
    rebalance_after_s: float = 30.0
    """Markets are moved between connections when none came or went for so long, not while a listing fills them.

    Without such a calm they are moved when the connections were uneven for ten times as long.
    """
    commands_per_s: float = 50.0
    command_bytes_per_s: float = 1_000_000.0
    """Limits of one connection; a command of 500 markets has about 15 kB.

    No environment variable: the exchange sets the limit.
    """
    follow_books: bool = True
    """Whether books are recorded, besides trades, tickers and lifecycle."""
    stagger_s: float = 0.0
    """Added to every reconnect delay; a different value per gatherer keeps them from dropping out together."""
    reconnect_min_s: float = 0.5
    reconnect_max_s: float = 30.0
    reconnect_spacing_s: float = 0.25
    """About the time between handshakes of one gatherer: connections cut at once reconnect one by one."""
    refused_backoff_s: float = 60.0
    """Pause after HTTP 401 or 403: repeating a wrong key faster changes nothing."""
    silence_limit_s: float = 60.0
    """A connection with subscriptions that delivered no frame for so long is replaced, whatever its pings."""

    flush_rows: int = 20_000
    flush_interval_s: float = 0.15
    flush_bytes: int = 16 * 1024**2
    """Bytes of the journal that a commit has at most, about: books of thousands of levels are few and large.

    No environment variable: it bounds a transaction, not the machine.
    """
    lag_rows: int = 40_000
    """Rows that a commit has at most, about, while the database is behind the journal; they grow from `flush_rows`."""
    # An hour of 2,000 messages a second is about 2 GiB, and a tenth of that once it is compressed.
    journal_max_bytes: int = field(
        default=100 * 1024**3,
        metadata=setting(
            "KALSHI_JOURNAL_MAX_GIB",
            "what a gatherer's journal may use on disk; what is not in the database yet stays there",
            unit="GiB",
            low=0.01,
            high=100_000,
            scale=1024**3,
            replaces="KALSHI_SPOOL_MAX_GIB",
        ),
    )
    # A database may live on the same disk.
    journal_min_free_bytes: int = field(
        default=1024**3,
        metadata=setting(
            "KALSHI_JOURNAL_MIN_FREE_GIB",
            "what a gatherer leaves free on that disk",
            unit="GiB",
            low=0,
            high=100_000,
            scale=1024**3,
            replaces="KALSHI_SPOOL_MIN_FREE_GIB",
        ),
    )
    archive_frames: bool = field(
        default=True,
        metadata=setting(
            "KALSHI_ARCHIVE_FRAMES",
            "whether finished segments of the journal go to the lake (`raw/frames`) before they are removed",
            default="`yes` where KALSHI_LAKE_ROOT is set",
        ),
    )
    journal_keep_s: float = field(
        default=24 * 3600.0,
        metadata=setting(
            "KALSHI_JOURNAL_KEEP_HOURS",
            "how long segments of the journal stay on the gatherer's disk, once they are in the database and in the"
            " lake; less where room is needed",
            unit="h",
            low=0,
            high=24 * 365,
            scale=3600.0,
        ),
    )
    journal_segment_bytes: int = 64 * 1024**2
    """A file of the journal is full at this size. No environment variable: only the number of files depends on it."""
    journal_sync_interval_s: float = 1.0
    """How often what was received is made to survive a power cut; while the database is behind, `flush_interval_s`."""
    database_retry_max_s: float = 5.0
    statement_timeout_s: float = 60.0
    """A statement that runs longer in the timeseries database (waiting for a lock, for example) counts as an outage."""
    ledger_compare_interval_s: float = 60.0
    """How often the position in the database is compared with the last commit, also when nothing is to be committed."""
    stop_timeout_s: float = 15.0
    """How long a stop may commit the rest of the journal; what is left is committed after the next start."""

    dead_letters_per_minute: int = field(
        default=DEAD_LETTERS_PER_MINUTE,
        metadata=setting(
            "KALSHI_DEAD_LETTERS_PER_MINUTE",
            "of each minute, reason and connection so many messages that could not be read are kept with their bytes"
            " (`dead_letters`); the rest is counted (`dead_letter_counts`)",
            low=1,
            high=10**6,
        ),
    )
    dead_letter_days: float = field(
        default=30.0,
        metadata=setting(
            "KALSHI_DEAD_LETTER_DAYS",
            "how long dead letters and their counts are kept",
            unit="days",
            low=1,
            high=36_600,
        ),
    )

    snapshot_interval_s: float = field(
        default=60.0,
        metadata=setting(
            "KALSHI_SNAPSHOT_INTERVAL_S",
            "how often all books that are followed are polled over REST, besides the stream",
            unit="s",
            low=1,
            high=86_400,
        ),
    )
    snapshot_deadline_s: float = 10.0
    """After so long without a new snapshot, a market that lost a frame gets its book over REST and is resubscribed."""
    poll_share: float = 0.5
    """Share of this process's read budget for polling books (0 … 1); syncs, single markets and recovery use the rest.

    This process's budget is itself a share of the account's (ExchangeSettings.rest_share).
    """
    reconcile_interval_s: float = 300.0
    events_interval_s: float = 600.0
    catalog_follow_interval_s: float = 2.0
    """How often the catalog tables are polled for changes of other processes."""
    close_grace_s: float = 5.0
    """How long after `close_time` a market is still followed before REST is read to confirm the close."""
    fetch_attempts: int = 8
    status_wait_max_s: float = 300.0
    """Longest wait between two reads of the status of an inactive exchange."""
    heartbeat_interval_s: float = 5.0
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    """Where `/metrics` and `/healthz` are served, if anywhere."""
    alerts: AlertSettings = field(default_factory=AlertSettings)
    """Where this gatherer's alarms are posted, if anywhere."""
    timeseries_setting: str = "timeseries_url"
    catalog_setting: str = "catalog_url"
    """What a person changes to correct a URL: messages name it."""
    lease_patience_s: float = 5.0
    """How long the name may be held by another session before it counts as taken: a server needs a moment to notice
    that a killed process is gone."""

    def __post_init__(self) -> None:
        problems = [
            f"gatherer {self.name}: {name} must be {rule}"
            for name, rule, holds in (
                ("name", "letters, digits, - and _", _is_plain(self.name)),
                ("connections", "at least 1", self.connections >= 1),
                ("markets_per_connection", "at least 1", self.markets_per_connection >= 1),
                ("rotate_connections_s", "0 (never) or more", self.rotate_connections_s >= 0),
                ("flush_rows", "at least 1", self.flush_rows >= 1),
                ("lag_rows", "at least flush_rows", self.lag_rows >= self.flush_rows),
                ("flush_bytes", "at least 1", self.flush_bytes >= 1),
                ("flush_interval_s", "above 0", self.flush_interval_s > 0),
                ("journal_max_bytes", "above 0", self.journal_max_bytes > 0),
                ("journal_min_free_bytes", "0 or more", self.journal_min_free_bytes >= 0),
                ("statement_timeout_s", "above 0", self.statement_timeout_s > 0),
                ("ledger_compare_interval_s", "above 0", self.ledger_compare_interval_s > 0),
                ("snapshot_interval_s", "above 0", self.snapshot_interval_s > 0),
                ("poll_share", "above 0 and at most 1", 0 < self.poll_share <= 1),
                ("dead_letters_per_minute", "at least 1", self.dead_letters_per_minute >= 1),
                ("dead_letter_days", "at least 1", self.dead_letter_days >= 1),
                ("heartbeat_interval_s", "above 0", self.heartbeat_interval_s > 0),
            )
            if not holds
        ]
        if problems:
            raise ConfigurationError(problems)

    @property
    def folder(self) -> Path:
        """Return the folder of this gatherer's journal, lock and heartbeat file."""
        return self.state_dir / self.name

    @property
    def heartbeat_file(self) -> Path:
        """Return the file with the heartbeat, which is readable while the database is unavailable."""
        return self.folder / HEARTBEAT_FILE

    @property
    def service(self) -> str:
        """Return the name of this gatherer in heartbeats and service_switches."""
        return f"gatherer/{self.name}"


def _is_plain(name: str) -> bool:
    return bool(name) and all(char.isascii() and (char.isalnum() or char in "-_") for char in name)
