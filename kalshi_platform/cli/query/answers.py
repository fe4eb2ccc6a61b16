"""What the queries share: their options, moments as people write them, and printing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from kalshi_platform.cli.console import print_line, print_lines
from kalshi_platform.errors import ConfigurationError, MissingPartition

if TYPE_CHECKING:
    import polars as pl

_ROWS_SHOWN = 50

OfMarkets = Annotated[list[str] | None, typer.Argument(help="Tickers; none: all.", metavar="[TICKER]…")]
From = Annotated[str, typer.Option("--from", help="Start: 2026-11-23, 2026-11-23T04 or any ISO 8601 time; UTC.")]
To = Annotated[str, typer.Option("--to", help="End (exclusive); without it an hour after the start.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON: a list of rows.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV.")]
Hot = Annotated[
    bool, typer.Option("--hot", help="Take from production what is not closed in the lake, up to the running hour.")
]
Mark = Annotated[
    bool, typer.Option("--mark", help="Answer although something may be missing, and mark where, instead of refusing.")
]


def parse_moment(text: str, option: str) -> datetime:
    """Read a moment; without a zone it is UTC. Raises ConfigurationError, naming the option."""
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise ConfigurationError(
            [f"{option}: {text!r} is not a time ({error}); write 2026-11-23, 2026-11-23T04 or 2026-11-23T04:30:00.5"]
        ) from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def parse_range(start: str, end: str) -> tuple[datetime, datetime]:
    """Read a range; without an end it is an hour long. Raises ConfigurationError."""
    low = parse_moment(start, "--from")
    high = parse_moment(end, "--to") if end else low + timedelta(hours=1)
    if high <= low:
        raise ConfigurationError([f"--to {high.isoformat()} is not after --from {low.isoformat()}"])
    return low, high


def production_url(*, hot: bool) -> str | None:
    """The address of production where hot hours are wanted. Raises ConfigurationError."""
    from kalshi_platform.config import load_production_url

    return load_production_url() if hot else None


@contextmanager
def options_in_errors(*, has_mark: bool = True) -> Iterator[None]:
    """Name the options of the command where an error of the reader names its own."""
    try:
        yield
    except MissingPartition as error:
        marked = "ask with --mark" if has_mark else "ask for less"
        text = str(error).replace('read with holes="mark"', marked).replace("holes()", "kalshi-platform query holes")
        error.args = (text,)
        raise


def print_answer(rows: pl.DataFrame, *, as_json: bool, as_csv: bool) -> None:
    """Print rows as a table, as JSON or as CSV; a table shows the first ones and says how many there are."""
    import polars as pl

    if as_json and as_csv:
        raise ConfigurationError(["--json and --csv exclude each other"])
    if as_json or as_csv:
        print_lines(rows.write_json() if as_json else rows.write_csv().rstrip("\n"))
        return
    with pl.Config(
        tbl_rows=_ROWS_SHOWN,
        tbl_cols=-1,
        tbl_width_chars=200,
        fmt_str_lengths=60,
        tbl_hide_dataframe_shape=True,
        tbl_hide_column_data_types=True,
        tbl_formatting="ASCII_MARKDOWN",
    ):
        print_lines(str(rows.head(_ROWS_SHOWN)))
    more = f", the first {_ROWS_SHOWN} of them shown; --json and --csv give all" if rows.height > _ROWS_SHOWN else ""
    print_line(f"{rows.height:,} {'row' if rows.height == 1 else 'rows'}{more}")
