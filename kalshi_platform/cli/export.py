"""`kalshi-platform export`: one partition of the lake."""

from __future__ import annotations

import typer

from kalshi_platform.cli.running import tell


def export(
    table: str = typer.Argument(
        help="A raw table (orderbook_deltas, trades, …), processed/trades or aggregates/candles_1m.", metavar="TABLE"
    ),
    partition: str = typer.Argument(
        help="The UTC hour (2026-11-23T04) of a raw table, or the UTC day (2026-11-23) of another.", metavar="PARTITION"
    ),
    open_: bool = typer.Option(
        False, "--open", help="Export what is there although the time is not closed; never replaces a closed partition."
    ),
    allow_fewer_rows: bool = typer.Option(
        False,
        "--allow-fewer-rows",
        help="Publish what is left although production has lost rows of the time since its close, or since the lake's "
        "export of it.",
    ),
) -> None:
    """Write one partition of production to the lake as Parquet; exit 1 when its time is not closed, or production has
    lost rows of it."""
    from kalshi_platform.config import load_deduplicator, load_lake
    from kalshi_platform.lake.export import export_partition
    from kalshi_platform.lake.layout import lake_table, parse_partition
    from kalshi_platform.lake.store import open_store

    wanted = parse_partition(lake_table(table), partition)
    store = open_store(load_lake())
    production_url = load_deduplicator().production_url
    state = "open" if open_ else "closed"
    tell(f"exporting {wanted.table.key} {wanted.key} as {state} …")
    manifest = export_partition(
        store, production_url, wanted, "open" if open_ else "closed", allow_fewer_rows=allow_fewer_rows
    )
    if manifest.state != state:
        tell("the partition is closed already and stays as it is")
    tell(f"{store.root}/{wanted.path}")
    tell(f"{manifest.rows:,} rows, {manifest.bytes:,} bytes, {manifest.state}")
