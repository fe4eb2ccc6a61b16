"""`kalshi-platform status`: shows what runs, how far the merge is, what production holds."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import typer

from kalshi_platform.cli.console import print_line
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
    found["lake"] = summarise_lake(settings.production_url, SYSTEM_CLOCK.now())
    if json_output:
        typer.echo(json.dumps(found, indent=2, default=str))
    else:
        _print(found)
    if found["problems"] or not all(service["alive"] for service in found["services"].values()):
        raise typer.Exit(1)


def summarise_lake(production_url: str, now: datetime) -> dict[str, Any]:
    """List partitions of the lake's last week that are older than production's closes; `problem`: why it cannot."""
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
        print_line(f"{'lake':<20} cannot be read: {lake['problem']}")
        return
    stale = lake["stale"]
    if not stale:
        print_line(f"{'lake':<20} the last week is what production has closed")
        return
    print_line(f"{'lake':<20} {len(stale)} partitions are to be exported: kalshi-platform export --stale")
    for each in stale[:_STALE_AT_MOST]:
        lost = "" if each["exportable"] else "; production has lost rows of it, so that a person must decide"
        print_line(f"{'':<20} {each['table']} {each['partition']}: {each['reason']}{lost}")
    if len(stale) > _STALE_AT_MOST:
        print_line(f"{'':<20} and {len(stale) - _STALE_AT_MOST} more")


def _print(found: dict[str, Any]) -> None:
    for name, service in found["services"].items():
        age = "never heard of" if service["age_s"] is None else f"heard {service['age_s']:.0f} s ago"
        state = str(service["state"]).replace("_", " ")
        print_line(f"{name:<20} {'alive' if service['alive'] else 'NOT ALIVE':<10} {state:<12} {age}")
        for line in service["lines"]:
            print_line(f"{'':<20} {line}")
    for problem in found["problems"]:
        typer.echo(f"! {problem}")
    for gatherer, behind in found["batches_behind"].items():
        print_line(f"{'merge of ' + gatherer:<20} {'unknown' if behind is None else f'{behind} batches behind'}")
    for table, rows in found["production_rows"].items():
        print_line(f"{table:<20} {rows:>14,} rows merged")
    if found["last_closed_hour"] is not None:
        _print_hour(found["last_closed_hour"])
    _print_lake(found["lake"])


def _print_hour(closed: dict[str, Any]) -> None:
    share = "no market recorded" if closed["coverage_share"] is None else f"{closed['coverage_share']:.2%} complete"
    print_line(
        f"{'last closed hour':<20} {closed['hour']:%Y-%m-%d %H:00} UTC: {share}; books: {closed['books_proved']:,}"
        f" proved, {closed['books_unproved']:,} unproved, {closed['books_failed']:,} failed"
    )
    for alarm in closed["alarms"]:
        print_line(f"{'':<20} ! {alarm}")
