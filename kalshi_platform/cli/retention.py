"""`kalshi-platform retention`: drops from the databases what is old and verifiably in the lake."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING

import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.cli.progress import progress_shown
from kalshi_platform.errors import ConfigurationError, Unfinished

if TYPE_CHECKING:
    from kalshi_platform.lake.retention.report import Outcome, RetentionReport


def retention(
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would go and what is refused; change nothing."),
    gatherer: list[str] = typer.Option([], "--gatherer", metavar="NAME", help="Only this gatherer (may be repeated)."),
    production: bool = typer.Option(False, "--production", help="Only production, or production too."),
) -> None:
    """Drop old partitions of gatherers and of production, once the lake holds their rows and was read back.

    Exit 1 when something that is old enough stays: each with the reason and the remedy.
    """
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.config import gatherer_names, load_retention
    from kalshi_platform.lake.retention.apply import apply_retention

    unknown = sorted(set(gatherer) - set(gatherer_names()))
    if unknown:
        raise ConfigurationError([f"no gatherer is called {', '.join(unknown)}: KALSHI_GATHERERS names them"])
    settings = load_retention()
    if not settings.enabled:
        print_line("retention is switched off (KALSHI_RETENTION): nothing goes")
        return
    print_line("looking at what is old, and reading back what the lake has of it …")
    with progress_shown("retention"):
        report = apply_retention(settings, SYSTEM_CLOCK, dry_run, [*gatherer, *(["production"] if production else [])])
    for line in report_lines(report):
        print_line(line)
    remains = [f"{name} was not looked at to its end: {why}" for name, why in sorted(report.unreachable.items())]
    if report.refused:
        remains.append(f"{len(report.refused):,} partitions stay although they are old enough, for the reasons above")
    if remains:
        raise Unfinished(remains)


def report_lines(report: RetentionReport) -> list[str]:
    """Describe what went and what stays, one line per table, and one per reason. Pure."""
    verb = "would go" if report.dry_run else "went"
    lines = [_gone_line(group, verb) for group in _by_table(report.gone)]
    for group in _by_table(report.refused):
        for reason, some in groupby(sorted(group, key=lambda each: str(each.refused)), key=lambda each: each.refused):
            lines.append(f"{_describe(sorted(some))} stays: {reason}")
    lines += [f"{each.database} {each.table}: {each.rows:,} lines {verb}" for each in report.cleared if each.rows]
    return lines or [f"nothing {verb}: nothing is old enough"]


def _by_table(outcomes: Iterable[Outcome]) -> list[list[Outcome]]:
    return [list(group) for _, group in groupby(outcomes, key=lambda each: (each.database, each.table))]


def _gone_line(group: list[Outcome], verb: str) -> str:
    return f"{_describe(group)} {verb}"


def _describe(group: list[Outcome]) -> str:
    first, rows, size = group[0], sum(each.rows for each in group), sum(each.bytes for each in group)
    span = f"{min(each.low for each in group):%Y-%m-%dT%H} to {max(each.high for each in group):%Y-%m-%dT%H}"
    partitions = "1 partition" if len(group) == 1 else f"{len(group):,} partitions"
    return f"{first.database} {first.table}: {span}, {partitions}, {rows:,} rows, {size:,} bytes"
