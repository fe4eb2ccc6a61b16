"""Defines the settings of the deduplicator."""

from __future__ import annotations

from dataclasses import dataclass, field

from kalshi_platform.monitoring.settings import AlertSettings, EndpointSettings
from kalshi_platform.setting import setting


@dataclass(frozen=True)
class GathererSource:
    """One gatherer as the deduplicator sees it: a name and two databases to read."""

    name: str
    timeseries_url: str = field(repr=False)
    catalog_url: str = field(repr=False)


@dataclass(frozen=True)
class DeduplicatorSettings:
    """Where to read, where to write, how often and how much at once.

    `rows_per_pass`: rows of all gatherers together that one pass holds in memory, about 1 kB each with all the copies
    that reading, deduplicating and writing make; a whole book counts as many rows as its size is worth (see source).
    `max_out_of_orderness_us`: how far the exchange times of later frames of one stream may go back (W, decision 0005).
    `source_timeout_s`: a gatherer that has not answered by then is left to a later pass; `close_timeout_s` is the
    same for each question of an hour's close, which reads more. The live merge also brings the catalogs of all
    gatherers together every `catalog_interval_s`, and serves metrics and health at `endpoint`.
    `least_agreement`: the share of comparable rows that gatherers must have in common, else an alarm is recorded.
    `rest_age_us`, `clock_skew_us`: how old a polled book may be when it is answered, and how far apart our clocks and
    the exchange's may be; the book proof compares polled books with everything in between.
    """

    production_url: str = field(
        repr=False,
        metadata=setting(
            "KALSHI_PRODUCTION_DATABASE_URL",
            "the production database",
            kind="database_url",
            secret=True,
            default="a local one under `up`, else required",
        ),
    )
    sources: tuple[GathererSource, ...]
    interval_s: float = field(
        default=5.0, metadata=setting("KALSHI_MERGE_INTERVAL_S", "time between merges", unit="s", low=0.1, high=3600)
    )
    max_out_of_orderness_us: int = field(
        default=1_000_000,
        metadata=setting(
            "KALSHI_TIME_MARGIN_S",
            "how far apart the exchange's times of neighbouring frames may be; coverage claims and checkpoints keep"
            " this distance from every time, a market's own too",
            unit="s",
            low=0.001,
            high=60,
            scale=1_000_000,
        ),
    )
    rows_per_pass: int = field(
        default=120_000,
        metadata=setting(
            "KALSHI_MERGE_ROWS_PER_PASS",
            "rows of all gatherers together that one pass of the merge holds in memory, about 1 kB each",
            unit="rows",
            low=1_000,
            high=100_000_000,
        ),
    )
    close_bucket_rows: int = field(
        default=500_000,
        metadata=setting(
            "KALSHI_CLOSE_BUCKET_ROWS",
            "rows of all gatherers together that one bucket of markets holds in memory while an hour is closed",
            unit="rows",
            low=1,
            high=100_000_000,
        ),
    )
    close_parallel: int = field(
        default=2,
        metadata=setting(
            "KALSHI_CLOSE_PARALLEL",
            "how many buckets of markets the close of an hour works on side by side",
            low=1,
            high=64,
        ),
    )
    source_timeout_s: float = 30.0
    close_timeout_s: float = 600.0
    heartbeat_interval_s: float = 5.0
    catalog_interval_s: float = 300.0
    retry_max_s: float = 30.0
    check_trades: bool = field(
        default=True,
        metadata=setting(
            "KALSHI_CHECK_TRADES",
            "whether the close of an hour compares its trades with the exchange's own listing (public REST), and"
            " completes them",
        ),
    )
    least_agreement: float = field(
        default=0.9,
        metadata=setting(
            "KALSHI_LEAST_AGREEMENT",
            "share of comparable rows that gatherers must have in common, else an alarm is recorded",
            low=0,
            high=1,
        ),
    )
    rest_age_us: int = field(
        default=5_000_000,
        metadata=setting(
            "KALSHI_REST_AGE_S",
            "how old a polled book may be when it is answered; the book proof allows for it",
            unit="s",
            low=0,
            high=60,
            scale=1_000_000,
        ),
    )
    clock_skew_us: int = field(
        default=2_000_000,
        metadata=setting(
            "KALSHI_CLOCK_SKEW_S",
            "how far apart our clocks and the exchange's may be; the book proof allows for it",
            unit="s",
            low=0,
            high=60,
            scale=1_000_000,
        ),
    )
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    alerts: AlertSettings = field(default_factory=AlertSettings)

    @property
    def rows_of_each(self) -> int:
        """What each gatherer may fill of `rows_per_pass`."""
        return max(1, self.rows_per_pass // max(1, len(self.sources)))
