"""`kalshi-platform draw`: one picture of a market's day."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from kalshi_platform.cli.backfill_trades import parse_day
from kalshi_platform.cli.console import print_line
from kalshi_platform.cli.progress import progress_shown
from kalshi_platform.errors import ConfigurationError, MissingPartition

if TYPE_CHECKING:
    import polars as pl

    from kalshi_platform.lake.store import Lake

_DAY = timedelta(days=1)


def draw(
    market: str = typer.Argument(..., metavar="MARKET", help="The market's ticker."),
    day: str = typer.Argument(..., metavar="DAY", help="The UTC day, e.g. 2026-11-23."),
    output: Path = typer.Option(
        None, "--output", "-o", help="The PNG file; MARKET-DAY.png without.", show_default=False
    ),
) -> None:
    """Draw a market's day: price, depth, trades, spread, volume, and what was not recorded.

    Reads processed/quotes, book_1m, trades and markets, and the coverage, from the lake. Exit 1 where they are missing.
    """
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake.store import open_store
    from kalshi_platform.plots.market_day import MarketDay, market_day
    from kalshi_platform.plots.timeline import png

    first = parse_day(day)
    start = datetime(first.year, first.month, first.day, tzinfo=UTC)
    file = output or Path(f"{market}-{first}.png")
    store = open_store(load_lake())
    with progress_shown(f"reading {market}"):
        figures = _read(store, market, start)
    if figures["quotes"].is_empty() and figures["trades"].is_empty():
        raise ConfigurationError([f"the lake has nothing of {market} on {first}: is the ticker right?"])
    heading, facts = _describe(_object(store, market, start), market, start, figures)
    picture = png(market_day(MarketDay(heading, facts, start, start + _DAY, **figures)))
    file.write_bytes(picture)
    print_line(f"{file}: {len(picture):,} bytes")


def _read(store: Lake, market: str, start: datetime) -> dict[str, Any]:
    from kalshi_platform.lake import reader
    from kalshi_platform.lake.reader.coverage import NOT_OPEN
    from kalshi_platform.monitoring.progress import report_each

    end = start + _DAY
    found = reader.holes(store, start, end, [market])
    holes = found.filter(~found["reason"].is_in(list(NOT_OPEN)).fill_null(value=False))
    reads: dict[str, Callable[[], pl.DataFrame]] = {
        "quotes": lambda: reader.quotes(store, start, end, [market], holes="mark"),
        # The book of the day's last minute is dated to its end.
        "books": lambda: reader.books(store, start, end, [market], period="1m", holes="mark"),
        "trades": lambda: reader.trades(store, start, end, [market], layer="processed", holes="mark"),
    }
    frames = {name: reads[name]() for name in report_each("data sets read", list(reads))}
    return {**frames, "holes": list(zip(holes["from_ts"].to_list(), holes["to_ts"].to_list(), strict=True))}


def _object(store: Lake, market: str, start: datetime) -> dict[str, Any]:
    """The market as it was known at the day's end; nothing where the lake does not have it."""
    from kalshi_platform.lake import reader

    try:
        found = reader.markets(store, start, start + _DAY + timedelta(microseconds=1), [market], holes="mark")
    except MissingPartition:
        return {}
    return found.row(0, named=True) if len(found) else {}


def _describe(known: dict[str, Any], market: str, start: datetime, figures: dict[str, Any]) -> tuple[str, str]:
    """The heading, and the line of facts below it."""
    trades: pl.DataFrame = figures["trades"]
    missing = sum(((end - begin) for begin, end in figures["holes"]), timedelta())
    facts = [f"{start:%A %Y-%m-%d}"]
    if known.get("result"):
        value = known.get("settlement_value_dollars")
        facts.append(f"settled {known['result']}" + (f" at ${value:.2f}" if value is not None else ""))
    elif known.get("status"):
        facts.append(str(known["status"]))
    facts.append(f"{len(trades):,} trades, {trades['count_contracts'].sum() or 0:,.0f} contracts")
    facts.append(f"{missing} not recorded" if missing else "recorded throughout")
    title = known.get("title")
    return f"{market} · {title}" if title else market, " · ".join(facts)
