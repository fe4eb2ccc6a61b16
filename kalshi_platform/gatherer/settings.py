"""What one gatherer needs to know. Filled by `kalshi_platform.config`; nothing here reads the environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from kalshi_platform.errors import ConfigurationError


@dataclass(frozen=True)
class MarketFilter:
    """Which markets to follow. Empty tuples admit everything; several lists must all admit a market.

    `series` are globs over series tickers, `categories` exact category names, `tickers` globs over market tickers.
    """

    series: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    tickers: tuple[str, ...] = ()
    include_combos: bool = False


@dataclass(frozen=True, kw_only=True)
class GathererSettings:
    """One gatherer: its name, its pair of databases, its folder and its pace. Spans in seconds."""

    name: str
    timeseries_url: str = field(repr=False)
    catalog_url: str = field(repr=False)
    state_dir: Path
    market_filter: MarketFilter = MarketFilter()

    connections: int = 1
    """WebSocket connections that share the books; trades, tickers and lifecycle have one of their own."""
    follow_books: bool = True
    """False records only trades, tickers and lifecycle."""
    stagger_s: float = 0.0
    """Added to every reconnect delay; a different value per gatherer keeps them from dropping out together."""
    reconnect_min_s: float = 0.5
    reconnect_max_s: float = 30.0
    refused_backoff_s: float = 60.0
    """Pause after HTTP 401 or 403: repeating a wrong key faster changes nothing."""
    silence_limit_s: float = 60.0
    """A connection with subscriptions that delivered no frame for so long is made anew, whatever its pings say."""

    flush_rows: int = 20_000
    flush_interval_s: float = 0.2
    queue_rows: int = 200_000
    """Records held in memory; more go to the spool on disk."""
    spool_segment_bytes: int = 16 * 1024 * 1024
    database_retry_max_s: float = 5.0
    statement_timeout_s: float = 60.0
    """A statement that the timeseries database does not finish within that (it waits for a lock, say) counts as an
    outage: its records go to the spool and are written again later."""
    stop_timeout_s: float = 15.0
    """How long a stop may spend on writing what is left; the rest stays in the spool for the next start."""

    snapshot_interval_s: float = 60.0
    snapshot_deadline_s: float = 10.0
    """A suspect market whose fresh snapshot has not come by then gets its book over REST and a new subscription."""
    poll_share: float = 0.5
    """Part of *this process's* read budget that polling books may spend (0 … 1); the rest is for syncs, single markets
    and recovery. This process's budget is itself a part of the account's (ExchangeSettings.rest_share)."""
    reconcile_interval_s: float = 300.0
    events_interval_s: float = 600.0
    catalog_follow_interval_s: float = 2.0
    """How often the catalog tables are asked for rows that somebody else changed."""
    close_grace_s: float = 5.0
    """How long after `close_time` a market is still followed before REST is asked whether it closed."""
    fetch_attempts: int = 8
    status_wait_max_s: float = 300.0
    """Longest wait before an inactive exchange is asked again."""
    heartbeat_interval_s: float = 5.0
    lease_patience_s: float = 5.0
    """How long the name may be held by another session before it counts as taken: a server needs a moment to notice
    that a killed process is gone."""

    def __post_init__(self) -> None:
        problems = [
            f"gatherer {self.name}: {name} must be {rule}"
            for name, rule, holds in (
                ("name", "letters, digits, - and _", _is_plain(self.name)),
                ("connections", "at least 1", self.connections >= 1),
                ("flush_rows", "at least 1", self.flush_rows >= 1),
                ("queue_rows", "at least flush_rows", self.queue_rows >= self.flush_rows),
                ("flush_interval_s", "above 0", self.flush_interval_s > 0),
                ("statement_timeout_s", "above 0", self.statement_timeout_s > 0),
                ("snapshot_interval_s", "above 0", self.snapshot_interval_s > 0),
                ("poll_share", "above 0 and at most 1", 0 < self.poll_share <= 1),
                ("heartbeat_interval_s", "above 0", self.heartbeat_interval_s > 0),
            )
            if not holds
        ]
        if problems:
            raise ConfigurationError(problems)

    @property
    def folder(self) -> Path:
        """Where this gatherer keeps its spool, lock and heartbeat file."""
        return self.state_dir / self.name

    @property
    def service(self) -> str:
        """The name under which heartbeats and the off switch know this gatherer."""
        return f"gatherer/{self.name}"


def _is_plain(name: str) -> bool:
    return bool(name) and all(char.isascii() and (char.isalnum() or char in "-_") for char in name)
