"""Reports of the endless services → events on the assets that they fill."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from kalshi_platform.orchestration.keys import production

if TYPE_CHECKING:
    from kalshi_platform.deduplicator.merge import MergeReport


def gather_events(name: str, reports: Sequence[Any]) -> list[dg.AssetMaterialization | dg.AssetObservation]:
    """One materialization per table that got rows, one observation per table that did not."""
    raise NotImplementedError


def merge_events(reports: Sequence[MergeReport]) -> list[dg.AssetObservation]:
    """One observation per production table with the rows that all passes since the last one brought.

    They are observations: a partition counts as materialized when its hour is closed.
    """
    inserted: dict[str, int] = defaultdict(int)
    read: dict[str, int] = defaultdict(int)
    for report in reports:
        for table, counts in report.tables.items():
            inserted[table] += counts.inserted
            read[table] += counts.read
    if not reports:
        return []
    last = reports[-1]
    seconds = (last.finished_at - reports[0].started_at).total_seconds()
    return [
        dg.AssetObservation(
            asset_key=production(table),
            metadata={
                "rows_inserted": inserted[table],
                "rows_read": read[table],
                "passes": len(reports),
                "seconds": round(seconds, 1),
                "gatherers_missed": ", ".join(last.missed) or "none",
            },
        )
        for table in sorted(read)
    ]
