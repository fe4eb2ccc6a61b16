"""`kalshi-platform export`: writes one partition of the lake, or all that are older than production's closes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from kalshi_platform.cli.console import print_line
from kalshi_platform.cli.progress import progress_shown
from kalshi_platform.errors import (
    ConfigurationError,
    FewerRows,
    HourNotClosed,
    LakeCorrupt,
    PartitionBusy,
    StaleInput,
    Unfinished,
)

if TYPE_CHECKING:
    from kalshi_platform.lake.datasets import Dataset
    from kalshi_platform.lake.layout import Partition
    from kalshi_platform.lake.manifest import State
    from kalshi_platform.lake.stale import Stale
    from kalshi_platform.lake.store.objects import ObjectStore


def export(
    table: str = typer.Argument(
        "",
        help="A raw table (orderbook_deltas, trades, …), or another data set by its layer and name (processed/quotes).",
        metavar="TABLE",
        show_default=False,
    ),
    partition: str = typer.Argument(
        "",
        help="The UTC hour (2026-11-23T04) of a raw table, or the UTC day (2026-11-23) of another.",
        metavar="PARTITION",
        show_default=False,
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
    stale: bool = typer.Option(
        False,
        "--stale",
        help="Instead of one partition: every one of the last week (of TABLE, where it is given) that is missing, "
        "damaged, or made from another close than production's present one.",
    ),
) -> None:
    """Write one partition of production to the lake as Parquet.

    Exit 1 when its time is not closed, or production has lost rows of it.
    """
    from kalshi_platform.config import load_deduplicator, load_lake
    from kalshi_platform.lake.layout import find_dataset, parse_partition
    from kalshi_platform.lake.store import open_store

    if stale and (partition or open_ or allow_fewer_rows):
        raise ConfigurationError(["--stale takes neither a PARTITION nor --open nor --allow-fewer-rows"])
    if not stale and not (table and partition):
        raise ConfigurationError(["name what to export: TABLE PARTITION (trades 2026-11-23T04), or --stale"])
    of_table = find_dataset(table) if table else None
    selected = parse_partition(of_table, partition) if of_table and partition else None
    store = open_store(load_lake())
    production_url = load_deduplicator().production_url
    if selected is None:
        _export_stale(store, production_url, of_table)
        return
    state: State = "open" if open_ else "closed"
    print_line(f"exporting {selected.dataset.key} {selected.key} as {state} …")
    _export(store, production_url, selected, state, allow_fewer_rows=allow_fewer_rows)


def _export(
    store: ObjectStore, production_url: str, selected: Partition, state: State, *, allow_fewer_rows: bool = False
) -> None:
    from kalshi_platform.config import load_iceberg
    from kalshi_platform.lake.export import export_partition
    from kalshi_platform.lake.iceberg.replaced import registering_replaced

    title = f"exporting {selected.dataset.key} {selected.key}"
    with progress_shown(title), registering_replaced(store, load_iceberg, selected):
        manifest = export_partition(store, production_url, selected, state, allow_fewer_rows=allow_fewer_rows)
    if manifest.state != state:
        print_line("the partition is closed already and stays as it is")
    print_line(f"{store.root}/{selected.path if manifest.state == 'closed' else selected.open_path}")
    print_line(f"{manifest.rows:,} rows, {manifest.bytes:,} bytes, {manifest.state}")


def _export_stale(store: ObjectStore, production_url: str, table: Dataset | None) -> None:
    from kalshi_platform.clock import SYSTEM_CLOCK
    from kalshi_platform.lake.stale import ALL, stale_lately

    found = stale_lately(store, production_url, SYSTEM_CLOCK.now(), ALL if table is None else (table,))
    if not found:
        print_line("nothing of the last week is stale")
    if failed := export_each(store, production_url, found):
        raise Unfinished(failed)


def export_each(store: ObjectStore, production_url: str, found: Sequence[Stale]) -> list[str]:
    """Export stale partitions, saying which and why; return why some could not be exported."""
    failed: list[str] = []
    # Raw hours first: days are made from them.
    for number, each in enumerate(sorted(found, key=lambda stale: stale.partition.dataset.builder is not None), 1):
        print_line(f"{number} of {len(found)}: {each.partition.dataset.key} {each.partition.key}: {each.reason}")
        try:
            _export(store, production_url, each.partition, "closed")
        except (FewerRows, HourNotClosed, LakeCorrupt, PartitionBusy, StaleInput) as error:  # of this partition alone
            failed.append(str(error))
    return failed
