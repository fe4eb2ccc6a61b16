"""`kalshi-platform backfill-trades`: inserts trades of past days from the exchange's own listing."""

from __future__ import annotations

from datetime import UTC, date, datetime

import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.cli.progress import progress_shown
from kalshi_platform.cli.trade_checks import describe_trade_check, open_public_rest
from kalshi_platform.errors import ConfigurationError


def backfill_trades(
    day: str = typer.Argument(..., metavar="DAY", help="The UTC day, e.g. 2026-11-22."),
    to: str = typer.Option("", "--to", metavar="DAY", help="The last day, if there are several; included."),
    resume: bool = typer.Option(False, "--resume", help="Leave out hours that a check has found complete before."),
) -> None:
    """Compare the trades of past days with what the exchange lists, and insert what is missing (safe to repeat).

    No gatherer is needed. Exit 1 when production holds trades or values that the exchange does not list.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_bounds, load_production_url
    from kalshi_platform.deduplicator.trades.backfill import backfill_trades as backfill
    from kalshi_platform.deduplicator.trades.backfill import list_days, list_hours

    first = parse_day(day)
    days = list_days(first, parse_day(to) if to else first)
    if not days:
        raise ConfigurationError([f"--to {to} lies before {day}"])
    production_url, bounds, rest = load_production_url(), load_bounds(), open_public_rest()
    print_line(f"comparing the trades of {days[0]} … {days[-1]} ({len(days)} days) with the exchange's listing")
    with progress_shown("comparing trades"):
        done = backfill(
            production_url,
            rest,
            [hour for each in days for hour in list_hours(each)],
            SYSTEM_CLOCK,
            bounds,
            done_since=datetime.fromtimestamp(0, UTC) if resume else None,
            on_check=lambda check: print_line(f"{check.hour:%Y-%m-%d %H:00}  {describe_trade_check(check)}"),
        )
    print_line(
        f"{len(done.checks)} hours: {done.total('rest_count'):,} trades listed, {done.total('inserted'):,} new;"
        f" {len(done.skipped)} hours skipped"
    )
    if done.total("inserted"):
        print_line(
            "hours that got trades are to be closed (again) and exported: the schedules do, or close-hour, export"
        )
    if done.unproved:
        raise typer.Exit(1)


def parse_day(text: str) -> date:
    """Parse a UTC day, `2026-11-22`. Raises ConfigurationError."""
    try:
        return date.fromisoformat(text.strip())
    except ValueError as error:
        raise ConfigurationError([f"{text!r} is not a day: write it as 2026-11-22 (UTC)"]) from error
