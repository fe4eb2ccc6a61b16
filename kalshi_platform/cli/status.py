"""`kalshi-platform status`: shows what runs, how far the merge is, what production holds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.errors import KalshiPlatformError

if TYPE_CHECKING:
    from kalshi_platform.local.platform_status import ClosedHour, PlatformStatus

_STALE_AT_MOST = 10


@dataclass(frozen=True)
class StalePartition:
    """A partition of the lake that is older than production's close of its time.

    `exportable`: False where production has lost rows of it, so that a person must decide.
    """

    table: str
    partition: str
    reason: str
    exportable: bool


@dataclass(frozen=True)
class LakeStatus:
    """What is stale of the lake's last week; `problem`: why that cannot be said."""

    stale: Sequence[StalePartition]
    problem: str | None


def status(
    json_output: bool = typer.Option(False, "--json", help="Print one JSON object instead of a table."),
) -> None:
    """Show gatherers, merge and production; exit 1 when a gatherer or the merge is not alive."""
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_deduplicator, state_dir
    from kalshi_platform.local.platform_status import platform_status

    settings = load_deduplicator()
    found = platform_status(settings, state_dir(), SYSTEM_CLOCK)
    lake = read_lake_status(settings.production_url, SYSTEM_CLOCK.now())
    if json_output:
        content = {**dataclasses.asdict(found), "lake": dataclasses.asdict(lake)}
        typer.echo(json.dumps(content, indent=2, default=_to_json))
    else:
        print_status(found, lake)
    if found.problems or not all(service.alive for service in found.services.values()):
        raise typer.Exit(1)


def read_lake_status(production_url: str, now: datetime) -> LakeStatus:
    """Compare the lake's last week with production's closes."""
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake.stale import stale_lately

    try:
        stale = stale_lately(load_lake(), production_url, now)
    except KalshiPlatformError as error:
        return LakeStatus([], str(error))
    return LakeStatus(
        [
            StalePartition(each.partition.dataset.key, each.partition.key, each.reason, each.exportable)
            for each in stale
        ],
        None,
    )


def print_status(found: PlatformStatus, lake: LakeStatus) -> None:
    """Print a table for people."""
    for name, service in found.services.items():
        age = "never heard of" if service.age_s is None else f"heard {service.age_s:.0f} s ago"
        state = service.state.replace("_", " ")
        print_line(f"{name:<20} {'alive' if service.alive else 'NOT ALIVE':<10} {state:<12} {age}")
        for line in service.lines:
            print_line(f"{'':<20} {line}")
    for problem in found.problems:
        print_line(f"! {problem}")
    for gatherer, behind in found.batches_behind.items():
        print_line(f"{'merge of ' + gatherer:<20} {'unknown' if behind is None else f'{behind} batches behind'}")
    for table, rows in found.production_rows.items():
        print_line(f"{table:<20} {rows:>14,} rows merged")
    if found.last_closed_hour is not None:
        _print_hour(found.last_closed_hour)
    _print_lake(lake)


def _print_hour(closed: ClosedHour) -> None:
    share = "no market recorded" if closed.coverage_share is None else f"{closed.coverage_share:.2%} complete"
    print_line(
        f"{'last closed hour':<20} {closed.hour:%Y-%m-%d %H:00} UTC: {share}; books: {closed.books_proved:,}"
        f" proved, {closed.books_unproved:,} unproved, {closed.books_failed:,} failed"
    )
    for alarm in closed.alarms:
        print_line(f"{'':<20} ! {alarm}")


def _print_lake(lake: LakeStatus) -> None:
    if lake.problem is not None:
        print_line(f"{'lake':<20} cannot be read: {lake.problem}")
        return
    if not lake.stale:
        print_line(f"{'lake':<20} the last week is what production has closed")
        return
    print_line(f"{'lake':<20} {len(lake.stale)} partitions are to be exported: kalshi-platform export --stale")
    for each in lake.stale[:_STALE_AT_MOST]:
        lost = "" if each.exportable else "; production has lost rows of it, so that a person must decide"
        print_line(f"{'':<20} {each.table} {each.partition}: {each.reason}{lost}")
    if len(lake.stale) > _STALE_AT_MOST:
        print_line(f"{'':<20} and {len(lake.stale) - _STALE_AT_MOST} more")


def _to_json(value: object) -> Any:
    """Convert the statuses of services and, as `str` does, times."""
    import msgspec

    return msgspec.to_builtins(value) if isinstance(value, msgspec.Struct) else str(value)
