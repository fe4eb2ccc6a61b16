"""Defines what a deployment is made of: its gatherers, the role of a code location, the folder of this host."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from kalshi_platform.setting import setting


@dataclass(frozen=True)
class Role:
    """What a code location serves: everything, one gatherer (`gatherer` is its name), or all but the gatherers."""

    kind: str = "all"
    gatherer: str | None = None

    def serves_gatherer(self, name: str) -> bool:
        """Whether this code location runs the gatherer `name`."""
        return self.kind == "all" or self.gatherer == name

    def serves_platform(self) -> bool:
        """Whether this code location runs merge, close and exports."""
        return self.kind in ("all", "platform")


@dataclass(frozen=True, kw_only=True)
class DeploymentSettings:
    """Settings that belong to no single room."""

    gatherers: tuple[str, ...] = field(
        default=("g1", "g2", "g3"), metadata=setting("KALSHI_GATHERERS", "names of the gatherers", kind="gatherers")
    )
    role: str = field(
        default="all",
        metadata=setting("KALSHI_ROLE", "what a code location serves: `all`, `platform` or `gatherer:NAME`"),
    )
    state_dir: Path = field(
        default=Path("data/state"),
        metadata=setting("KALSHI_STATE_DIR", "folder of this host's journals, locks and heartbeat files"),
    )
    partitions_start: datetime = field(
        default=datetime(2026, 1, 1, tzinfo=UTC),
        metadata=setting("KALSHI_PARTITIONS_START", "the first hour that Dagster offers as a partition"),
    )
    close_buckets: int = field(
        default=1,
        metadata=setting(
            "KALSHI_CLOSE_BUCKETS",
            "into how many buckets of markets Dagster divides the close of an hour, a run each; 1: one run closes it",
            low=1,
            high=64,
        ),
    )
    dagster_database_url: str | None = field(
        default=None,
        repr=False,
        metadata=setting(
            "DAGSTER_DATABASE_URL",
            "the database of Dagster's own storage; without one Dagster keeps SQLite files in the state folder",
            kind="database_url",
            secret=True,
            default="a local one under `up`",
        ),
    )
    stop_limit_s: float = field(
        default=180.0,
        metadata=setting(
            "KALSHI_STOP_LIMIT_S",
            "how long `up` waits at its end for a service that still writes; one that makes no progress is killed"
            " after 15 s",
            unit="s",
            low=15,
            high=3600,
        ),
    )


@dataclass(frozen=True, kw_only=True)
class GathererLogins:
    """Further logins for a gatherer's two databases, each with fewer or more rights than the gatherer itself."""

    timeseries_read_url: str | None = field(
        default=None,
        repr=False,
        metadata=setting(
            "KALSHI_{GATHERER}_TIMESERIES_READ_DATABASE_URL",
            "how the merge, closes and retention reach a gatherer's rows: a login that is a member of `kalshi_merge`,"
            " and of `kalshi_retention` where retention runs",
            kind="database_url",
            secret=True,
            default="`KALSHI_<NAME>_TIMESERIES_DATABASE_URL`",
        ),
    )
    catalog_read_url: str | None = field(
        default=None,
        repr=False,
        metadata=setting(
            "KALSHI_{GATHERER}_CATALOG_READ_DATABASE_URL",
            "the same for its series, events and markets",
            kind="database_url",
            secret=True,
            default="`KALSHI_<NAME>_CATALOG_DATABASE_URL`",
        ),
    )
    timeseries_owner_url: str | None = field(
        default=None,
        repr=False,
        metadata=setting(
            "KALSHI_{GATHERER}_TIMESERIES_OWNER_DATABASE_URL",
            "how `migrate` reaches a gatherer's rows: the owner of the tables. No service needs it",
            kind="database_url",
            secret=True,
            default="`KALSHI_<NAME>_TIMESERIES_DATABASE_URL`",
        ),
    )
    catalog_owner_url: str | None = field(
        default=None,
        repr=False,
        metadata=setting(
            "KALSHI_{GATHERER}_CATALOG_OWNER_DATABASE_URL",
            "the same for its series, events and markets",
            kind="database_url",
            secret=True,
            default="`KALSHI_<NAME>_CATALOG_DATABASE_URL`",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class ProductionLogins:
    """A further login for production."""

    production_owner_url: str | None = field(
        default=None,
        repr=False,
        metadata=setting(
            "KALSHI_PRODUCTION_OWNER_DATABASE_URL",
            "how `migrate` reaches production: the owner of the tables. No service needs it",
            kind="database_url",
            secret=True,
            default="`KALSHI_PRODUCTION_DATABASE_URL`",
        ),
    )
