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
        metadata=setting("KALSHI_STATE_DIR", "folder of this host's spools, locks and heartbeat files"),
    )
    partitions_start: datetime = field(
        default=datetime(2026, 1, 1, tzinfo=UTC),
        metadata=setting("KALSHI_PARTITIONS_START", "the first hour that Dagster offers as a partition"),
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
