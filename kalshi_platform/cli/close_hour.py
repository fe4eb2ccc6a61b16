"""`kalshi-platform close-hour`: one hour of production made final."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import typer

from kalshi_platform.errors import ConfigurationError

_HOUR = re.compile(r"(\d{4}-\d\d-\d\d)[T _-](\d\d)(?::?00)?(?:Z|\+00:00)?")


def close_hour(
    hour_text: str = typer.Argument(..., metavar="HOUR", help="The UTC hour, e.g. 2026-11-23T10."),
) -> None:
    """Merge one hour again from all gatherers, make its book anchors, compare its trades with the exchange's listing,
    and mark it closed (safe to repeat)."""
    from kalshi_platform.cli.backfill_trades import described, public_rest
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_bounds, load_deduplicator
    from kalshi_platform.deduplicator.close_hour import close_hour as close

    hour = parse_hour(hour_text)
    settings = load_deduplicator()
    typer.echo(f"closing {hour:%Y-%m-%d %H:00} UTC from {', '.join(source.name for source in settings.sources)}")
    rest = public_rest() if settings.check_trades else None
    done = close(settings, hour, SYSTEM_CLOCK, load_bounds(), rest=rest)
    rows = ", ".join(f"{count:,} {table}" for table, count in done.rows.items() if count) or "no rows"
    new = sum(done.inserted.values())
    typer.echo(f"production holds {rows}; {new:,} of them new; {done.anchors:,} book anchors")
    if done.trades is not None:
        typer.echo(f"trades against the exchange's listing: {described(done.trades)}")
    if done.gatherers_missed:
        typer.echo(f"away, so their part is missing: {', '.join(done.gatherers_missed)}", err=True)
    if not done.final:
        typer.echo("the hour has not ended: merged, but not marked as closed")
    if done.gatherers_missed:
        raise typer.Exit(1)


def parse_hour(text: str) -> datetime:
    """`2026-11-23T10`, `2026-11-23 10:00`, `2026-11-23-10:00`: a whole UTC hour. Raises ConfigurationError."""
    match = _HOUR.fullmatch(text.strip())
    problem = f"{text!r} is not a whole hour: write it as 2026-11-23T10 (UTC)"
    if match is None:
        raise ConfigurationError([problem])
    try:
        return datetime.fromisoformat(f"{match[1]}T{match[2]}:00").replace(tzinfo=UTC)
    except ValueError as error:
        raise ConfigurationError([problem]) from error
