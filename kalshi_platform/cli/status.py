"""`kalshi-platform status`: what runs, how far the merge is, what production holds."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import typer

from kalshi_platform.cli.running import tell
from kalshi_platform.errors import KalshiPlatformError

_STALE_AT_MOST = 10


def status(
    json_output: bool = typer.Option(False, "--json", help="Print one JSON object instead of a table."),
) -> None:
    """Show gatherers, merge and production; exit 1 when a gatherer or the merge is not alive."""
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_deduplicator, state_dir
    from kalshi_platform.local.platform_status import platform_status

    settings = load_deduplicator()
    found: dict[str, Any] = platform_status(settings, state_dir(), SYSTEM_CLOCK)
    found["lake"] = lake_figures(settings.production_url, SYSTEM_CLOCK.now())
    if json_output:
        typer.echo(json.dumps(found, indent=2, default=str))
    else:
        _print(found)
    if found["problems"] or not all(service["alive"] for service in found["services"].values()):
        raise typer.Exit(1)


def lake_figures(production_url: str, now: datetime) -> dict[str, Any]:
    """What of the lake's last week is not what production's closes say; `problem`: why that cannot be said."""
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake.stale import stale_lately

    try:
        stale = stale_lately(load_lake(), production_url, now)
    except KalshiPlatformError as error:
        return {"stale": [], "problem": str(error)}
    return {
        "stale": [
            {
                "table": each.partition.table.key,
                "partition": each.partition.key,
                "reason": each.reason,
                "exportable": each.exportable,
            }
            for each in stale
        ],
        "problem": None,
    }


def _print_lake(lake: dict[str, Any]) -> None:
    if lake["problem"] is not None:
        tell(f"{'lake':<20} cannot be asked: {lake['problem']}")
        return
    stale = lake["stale"]
    if not stale:
        tell(f"{'lake':<20} the last week is what production has closed")
        return
    tell(f"{'lake':<20} {len(stale)} partitions are to be exported: kalshi-platform export --stale")
    for each in stale[:_STALE_AT_MOST]:
        lost = "" if each["exportable"] else "; production has lost rows of it, so that a person must decide"
        tell(f"{'':<20} {each['table']} {each['partition']}: {each['reason']}{lost}")
    if len(stale) > _STALE_AT_MOST:
        tell(f"{'':<20} and {len(stale) - _STALE_AT_MOST} more")


def _print(found: dict[str, Any]) -> None:
    for name, service in found["services"].items():
        age = "never heard of" if service["age_s"] is None else f"heard {service['age_s']:.0f} s ago"
        state = str(service["state"]).replace("_", " ")
        tell(f"{name:<20} {'alive' if service['alive'] else 'NOT ALIVE':<10} {state:<12} {age}")
        for line in service["lines"]:
            tell(f"{'':<20} {line}")
    for problem in found["problems"]:
        typer.echo(f"! {problem}")
    for gatherer, behind in found["batches_behind"].items():
        tell(f"{'merge of ' + gatherer:<20} {'unknown' if behind is None else f'{behind} batches behind'}")
    for table, rows in found["production_rows"].items():
        tell(f"{table:<20} {rows:>14,} rows merged")
    if found["last_closed_hour"] is not None:
        _print_hour(found["last_closed_hour"])
    _print_lake(found["lake"])


def _print_hour(closed: dict[str, Any]) -> None:
    share = "no market recorded" if closed["coverage_share"] is None else f"{closed['coverage_share']:.2%} complete"
    tell(
        f"{'last closed hour':<20} {closed['hour']:%Y-%m-%d %H:00} UTC: {share}; books: {closed['books_proved']:,}"
        f" proved, {closed['books_unproved']:,} unproved, {closed['books_failed']:,} failed"
    )
    for alarm in closed["alarms"]:
        tell(f"{'':<20} ! {alarm}")
