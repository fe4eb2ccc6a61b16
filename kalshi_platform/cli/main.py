"""Puts the `kalshi-platform` command together: a file per subcommand, which imports what is heavy when it runs."""

from __future__ import annotations

import sys
import traceback

import typer

from kalshi_platform.cli import (
    backfill_trades,
    bench,
    catalog,
    close_hour,
    dedup,
    doctor,
    draw,
    exchange,
    export,
    gather,
    journal,
    lake_index,
    migrate,
    prove,
    query,
    rebuild,
    retention,
    status,
    switch,
    up,
)
from kalshi_platform.cli.console import EXIT_CODES, print_error, print_line, print_lines, set_up_logs
from kalshi_platform.errors import ConfigurationError, KalshiPlatformError
from kalshi_platform.surroundings import run_in_utf8, settle

app = typer.Typer(
    name="kalshi-platform",
    help="Record everything the Kalshi exchange publishes, merge it exactly once, export it as Parquet.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("up")(up.up)
app.command("gather")(gather.gather)
app.command("dedup")(dedup.dedup)
app.command("migrate")(migrate.migrate)
app.command("close-hour")(close_hour.close_hour)
app.command("backfill-trades")(backfill_trades.backfill_trades)
app.command("export")(export.export)
app.command("lake-index")(lake_index.lake_index)
app.command("rebuild")(rebuild.rebuild)
app.command("retention")(retention.retention)
app.command("draw")(draw.draw)
app.command("status")(status.status)
app.command("switch")(switch.switch)
app.command("doctor")(doctor.doctor)
app.command("prove")(prove.prove)
app.add_typer(journal.app, name="journal", help="What gatherers received, as they received it.")
app.add_typer(catalog.app, name="catalog", help="The lake as tables of Apache Iceberg.")
app.add_typer(query.app, name="query", help="Answers from the lake: books, trades, quotes, candles, holes, markets.")
app.add_typer(bench.app, name="bench", help="How fast it is, each time beside the naive way.")
app.add_typer(exchange.app, name="exchange", help="The simulated exchange, alone.")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print_line(f"kalshi-platform {version('kalshi-platform')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what happens inside, too."),
    version: bool = typer.Option(  # noqa: ARG001 - its callback prints it
        False, "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
    ),
) -> None:
    """Options before the subcommand."""
    try:
        set_up_logs(verbose=verbose)
    except ConfigurationError:
        if context.invoked_subcommand != "doctor":  # which says what is wrong with the settings of logs, too
            raise


def main() -> None:
    """Run the command line; every error of this package becomes a message and an exit code."""
    run_in_utf8()
    settle()
    try:
        app(prog_name="kalshi-platform")
    except KalshiPlatformError as error:
        print_error(error)
        sys.exit(next((code for kind, code in EXIT_CODES if isinstance(error, kind)), 1))
    except Exception:  # noqa: BLE001 - the last line: Python itself would print the error's text as it is
        print_lines(traceback.format_exc().rstrip(), err=True)
        sys.exit(1)
