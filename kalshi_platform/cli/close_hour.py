"""`kalshi-platform close-hour`: makes one hour of production final."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.cli.progress import progress_shown
from kalshi_platform.cli.trade_checks import describe_trade_check, open_public_rest
from kalshi_platform.errors import ConfigurationError, KalshiPlatformError, Unfinished

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.close.close_hour import PartClose
    from kalshi_platform.deduplicator.close.close_record import HourClose
    from kalshi_platform.deduplicator.settings import DeduplicatorSettings
    from kalshi_platform.deduplicator.trades.rest_trades import TradeLister
    from kalshi_platform.market.parts import MarketPart

_HOUR = re.compile(r"(\d{4}-\d\d-\d\d)[T _-](\d\d)(?::?00)?(?:Z|\+00:00)?")
_ALARMS = {
    "book_proof": "books do not come out",
    "claims_disagree": "streams that claim the same time differ",
    "identity_agreement": "gatherers do not agree on what is one and the same message",
    "time_step_back": "exchange times went back by more than the margin",
}
_NAMED_AT_MOST = 10


def close_hour(
    hour_text: str = typer.Argument(..., metavar="HOUR", help="The UTC hour, e.g. 2026-11-23T10."),
    bucket: str = typer.Option(
        "",
        "--bucket",
        metavar="I/N",
        help="Only the I-th of N parts of the markets, on this machine; the hour is closed when all N are done.",
    ),
    fill: bool = typer.Option(
        False,
        "--fill",
        help="First give production's rows what they lack and gatherers have: after an hour was rebuilt from frames.",
    ),
    export: bool = typer.Option(
        True,
        help="Export what the close has made stale in the lake: the hour, and its day where all of that is closed. "
        "Not where no lake is configured.",
    ),
) -> None:
    """Merge one hour again from all gatherers, prove what is complete, and mark it closed (safe to repeat).

    Makes the hour's book checkpoints, states and proves what is complete, and compares its trades with the exchange's
    listing. Exit 1 when a part of that could not be done: the hour has not ended, a gatherer is away, the exchange does
    not say which trades there were.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_bounds, load_deduplicator
    from kalshi_platform.deduplicator.close.close_hour import close_hour as close

    hour, part = parse_hour(hour_text), _parse_part(bucket)
    settings = load_deduplicator()
    if fill and part is not None:
        raise ConfigurationError(["--fill is for the whole hour: leave --bucket out"])
    print_line(f"closing {hour:%Y-%m-%d %H:00} UTC from {', '.join(source.name for source in settings.sources)}")
    if fill:
        _fill(settings, hour)
    rest = open_public_rest() if settings.check_trades else None
    with progress_shown(f"closing {hour:%Y-%m-%dT%H}"):
        if part is None:
            done = close(settings, hour, SYSTEM_CLOCK, load_bounds(), rest=rest)
        else:
            done = _close_part(settings, hour, part, rest)
    rows = ", ".join(f"{count:,} {table}" for table, count in done.rows.items() if count) or "no rows"
    new = sum(done.inserted.values())
    print_line(f"production holds {rows}; {new:,} of them new; {done.checkpoints:,} book checkpoints")
    for line in (*loss_lines(done), *proof_lines(done)):
        print_line(line)
    if done.trades is not None:
        print_line(f"trades against the exchange's listing: {describe_trade_check(done.trades)}")
    remains = _remains(done, trades_wanted=settings.check_trades)
    if done.final:
        remains += _bring_lake_up_to_date(settings.production_url, hour, SYSTEM_CLOCK.now(), export=export)
    if remains:
        raise Unfinished(remains)


def _fill(settings: DeduplicatorSettings, hour: datetime) -> None:
    from kalshi_platform.deduplicator.merge.fill_columns import fill_columns

    with progress_shown(f"filling {hour:%Y-%m-%dT%H}"):
        filled = fill_columns(settings, hour)
    rows = ", ".join(f"{count:,} {table}" for table, count in filled.items()) or "no rows"
    print_line(f"production got values that it lacked: {rows}")


def _parse_part(text: str) -> MarketPart | None:
    from kalshi_platform.market.parts import MarketPart

    try:
        return MarketPart.parse(text) if text else None
    except ValueError as error:
        raise ConfigurationError([f"--bucket {text!r}: write it as 2/8, the second of eight parts"]) from error


def _close_part(
    settings: DeduplicatorSettings, hour: datetime, part: MarketPart, rest: TradeLister | None
) -> HourClose:
    """Work on a part; return the close of the hour when it was the last one, else raise Unfinished."""
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import load_bounds
    from kalshi_platform.deduplicator.close.close_hour import close_part

    if hour + timedelta(hours=1) > SYSTEM_CLOCK.now():
        raise ConfigurationError([f"{hour:%Y-%m-%dT%H} has not ended: an hour is closed in parts when it has"])
    done = close_part(settings, hour, part, SYSTEM_CLOCK, load_bounds(), rest)
    if done.closed is not None:
        return done.closed
    new = sum(done.inserted.values())
    print_line(f"part {part} is done; {new:,} rows were new to production")
    raise Unfinished(part_lines(done))


def part_lines(done: PartClose) -> list[str]:
    """Describe what is still to do until the hour is closed. Pure."""
    remaining = [number for number in done.remaining if number not in done.again]
    lines = []
    if remaining:
        numbers = ", ".join(map(str, remaining))
        lines.append(f"not closed yet: of {done.part.total} parts these are to be done: {numbers}")
    if done.again:
        numbers = ", ".join(map(str, done.again))
        lines.append(
            f"not closed yet: a gatherer was away when others read it, or another version worked on"
            f" them, so these are to be done again: {numbers}"
        )
    return lines


def _remains(done: HourClose, *, trades_wanted: bool) -> list[str]:
    remains = []
    if done.gatherers_missed:
        remains.append(
            f"away, so their part is missing: {', '.join(done.gatherers_missed)}; close the hour again later"
        )
    if not done.final:
        remains.append("the hour has not ended: it is merged, but not marked as closed; close it again when it has")
    elif trades_wanted and done.trades is not None and not done.trades.is_proved:
        remains.append(f"its trades are not proved to be complete ({done.trades.state}); close the hour again later")
    return remains


def _bring_lake_up_to_date(production_url: str, hour: datetime, now: datetime, *, export: bool) -> list[str]:
    """Export the partitions of the lake that are older than the close of an hour, or name them; return what remains.

    Nothing happens without a lake in the settings.
    """
    from kalshi_platform.cli.export import export_each
    from kalshi_platform.config import load_lake
    from kalshi_platform.lake.stale import partitions_of, stale_partitions
    from kalshi_platform.lake.store import open_store

    try:
        lake = open_store(load_lake())
    except ConfigurationError:
        return []
    later = "Dagster's schedules do it within the hour, or: kalshi-platform export --stale"
    try:
        stale = stale_partitions(lake, production_url, partitions_of([hour], now))
        if not stale:
            print_line("the lake has nothing that is older than this close")
        elif export:
            return export_each(lake, production_url, stale)
        else:
            names = ", ".join(f"{each.partition.dataset.key} {each.partition.key}" for each in stale)
            print_line(f"older than this close, or missing, in the lake: {names}")
            print_line(f"export them later: {later}")
    except KalshiPlatformError as error:
        return [f"the hour is closed, but the lake was not brought up to date ({error}); {later}"]
    return []


def loss_lines(done: HourClose) -> list[str]:
    """Describe which rows of the hour are gone, and what that means. Pure."""
    lines = [
        f"{name} no longer has all that it recorded of the hour ({', '.join(tables)}): what it claimed before stays"
        for name, tables in sorted(done.gatherers_incomplete.items())
    ]
    if done.dropped:
        lines.append(
            f"production no longer has all rows that the hour was closed with ({', '.join(done.dropped)}):"
            " what was said of them stays as it was, no book is proven by them, and the lake keeps its partitions"
        )
    return lines


def proof_lines(done: HourClose) -> list[str]:
    """Describe what is complete, how the books were proved, and what a person should look at. Pure."""
    share = done.coverage.share
    if share is None:
        covered = "nothing to cover: no market was recorded, and the catalog knows none that was open"
    else:
        covered = f"{_percent(share)} of the open time of {_counted(done.coverage.markets, 'market')} is covered"
    books = f"books: {done.proved:,} proved, {len(done.failed):,} failed, {done.unproved:,} with nothing to check"
    lines = [covered, books]
    if done.failed:
        lines.append(f"failed, so not covered where it did: {_named(done.failed)}")
    for kind in sorted({kind for kind, _, _ in done.alarms}):
        subjects = list(dict.fromkeys(subject for of_kind, subject, _ in done.alarms if of_kind == kind))
        lines.append(f"ALARM: {_ALARMS.get(kind, kind)}: {_named(subjects)}")
    if done.alarms:
        lines.append("details of the alarms: table close_alarms of production")
    return lines


def _percent(share: float) -> str:
    """Round down: only the whole is 100 %."""
    return f"{math.floor(round(share * 10_000, 9)) / 100:g} %"


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _named(subjects: Sequence[str]) -> str:
    more = len(subjects) - _NAMED_AT_MOST
    return ", ".join(subjects[:_NAMED_AT_MOST]) + (f" and {more:,} more" if more > 0 else "")


def parse_hour(text: str) -> datetime:
    """Parse `2026-11-23T10`, `2026-11-23 10:00`, `2026-11-23-10:00`: a whole UTC hour. Raises ConfigurationError."""
    match = _HOUR.fullmatch(text.strip())
    problem = f"{text!r} is not a whole hour: write it as 2026-11-23T10 (UTC)"
    if match is None:
        raise ConfigurationError([problem])
    try:
        return datetime.fromisoformat(f"{match[1]}T{match[2]}:00").replace(tzinfo=UTC)
    except ValueError as error:
        raise ConfigurationError([problem]) from error
