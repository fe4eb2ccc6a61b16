"""`bench export`: an hour of order-book deltas from PostgreSQL to a published, closed partition, beside the naive way.

Each export is a process of its own, so that its memory is its own. What the files take is compared with plain libraries
on the same rows, and on those of any lake that is given.
"""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.lab.bench.export import export_host
from kalshi_platform.lab.bench.export.export_data import TABLE, ExportData
from kalshi_platform.lab.bench.export.sizes import Sizes, measure_sizes, shown_sizes
from kalshi_platform.lab.bench.measure import cpu_s
from kalshi_platform.lab.bench.result import machine, rounded, table
from kalshi_platform.lab.bench.stack import SERVER, BenchStack
from kalshi_platform.lake.layout import find_dataset, partition_starting
from kalshi_platform.lake.manifest import verify
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.market.tables import PRODUCTION_TABLES
from kalshi_platform.market.times import hour_of, us_from_datetime
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

_EXPORT_S = 3_600.0
_SQL = load(Path(__file__).with_name("queries.sql"))


@dataclass(frozen=True, kw_only=True)
class ExportBench:
    """`rows`: about as many deltas the platform's hour has; the naive way gets `naive_rows`. `lake`: see `sizes`."""

    folder: Path
    rows: int = 5_000_000
    naive_rows: int = 500_000
    rounds: int = 3
    markets: int = 2_000
    lake: LakeSettings | None = None


@dataclass(frozen=True)
class ExportRun:
    """One export. `lost` names what is wrong with what it wrote."""

    rows: int
    bytes: int
    seconds: float
    cpu_s: float
    server_cpu_s: float
    peak_rss_mib: float
    lost: tuple[str, ...] = ()


def bench_export(options: ExportBench, say: Callable[[str], None], clock: Clock) -> dict[str, Any]:
    """Run it; return the findings, with what was lost under `lost` (empty when all is well)."""
    hour = hour_of(clock.now()) - timedelta(hours=2)
    runs: dict[str, list[ExportRun]] = {"platform": [], "naive": []}
    with BenchStack(options.folder, clock) as stack:
        held: dict[str, tuple[str, int]] = {}
        for who, rows in (("platform", options.rows), ("naive", options.naive_rows)):
            url = stack.database(who, "production")
            held[who] = url, _fill(url, ExportData(rows, hour, options.markets), clock)
            say(f"{who}: {held[who][1]:,} deltas of {options.markets:,} markets in one hour")
        lake = LakeSettings((options.folder / "lake").as_uri())
        digests: set[tuple[str, ...]] = set()
        for number in range(1, options.rounds + 1):
            for who in ("platform", "naive"):
                found = _run(stack, f"{who}_{number}", who, held[who], hour)
                if who == "platform":
                    shutil.rmtree(options.folder / "lake", ignore_errors=True)
                    (stack.folder / f"{who}_{number}" / "lake").rename(options.folder / "lake")
                    digests.add(_digests(lake, hour))
                runs[who].append(found)
                say(f"round {number} of {options.rounds}, {who}: {_described(found)}")
        sizes = measure_sizes(lake if options.lake is None else options.lake)
    return _findings(options, runs, sizes, is_deterministic=len(digests) == 1)


def shown(findings: Mapping[str, Any]) -> str:
    """The findings as tables for people."""
    rows = [
        (
            who, findings[f"{prefix}rate_per_s"], findings["ratio"] if who == "platform" else 1.0,
            findings[f"{prefix}cpu_us"], findings[f"{prefix}server_cpu_us"], findings[f"{prefix}peak_rss_mib"],
            findings[f"{prefix}bytes_per_row"],
        )
        for who, prefix in (("naive", "naive_"), ("platform", ""))
    ]  # fmt: skip
    speeds = table(("", "rows/s", "ratio", "client µs/row", "server µs/row", "peak MiB", "bytes/row"), rows)
    return f"{speeds}\n\n{shown_sizes([Sizes(**each) for each in findings['sizes']])}"


def _fill(url: str, data: ExportData, clock: Clock) -> int:
    """Put the hour into a (migrated, empty) production database and close it; return how many rows it has."""
    database = Database(url, name="production")
    filled = 0
    try:
        PartitionKeeper(database, PartitionBounds(), clock).ensure_hours(TABLE, [us_from_datetime(data.hour)])
        for batch in data.batches():
            with database.transaction() as transaction:
                filled += transaction.insert_new(PRODUCTION_TABLES[TABLE], batch, likely_new=True)
        with database.transaction() as transaction:
            transaction.execute(_SQL["close_hour"], {"hour": data.hour})
            transaction.execute(_SQL["analyze"])
        with database.transaction() as transaction:
            transaction.execute(_SQL["checkpoint"])
    finally:
        database.dispose()
    return filled


def _run(stack: BenchStack, label: str, who: str, held: tuple[str, int], hour: datetime) -> ExportRun:
    url, wanted = held
    folder = stack.folder / label
    lake = folder / "lake"
    is_naive = who == "naive"
    place = str(lake) if is_naive else lake.as_uri()
    content = {"production": url, "lake": place, "hour": hour.isoformat(), "is_naive": is_naive}
    server_cpu_s = cpu_s(stack.server_pids(), with_collected=True)
    found = stack.run_host("export", export_host.__name__, folder, content, _EXPORT_S)
    if found is None:
        reason = f"the export ended without a result: {stack.log_of('export')}"
        return ExportRun(0, 0, 1.0, 0.0, 0.0, 0.0, (reason,))
    lost = [] if found["rows"] == wanted else [f"{found['rows']:,} rows instead of {wanted:,}"]
    if not is_naive:
        verify(LakeSettings(place), partition_starting(find_dataset(TABLE), hour).path)
    return ExportRun(
        found["rows"],
        found["bytes"],
        found["seconds"],
        found["cpu_s"],
        cpu_s(stack.server_pids(), with_collected=True) - server_cpu_s,
        found["peak_rss_mib"],
        tuple(lost),
    )


def _digests(lake: LakeSettings, hour: datetime) -> tuple[str, ...]:
    manifest = verify(lake, partition_starting(find_dataset(TABLE), hour).path)
    return tuple(file.sha256 for file in manifest.files)


def _findings(
    options: ExportBench, runs: Mapping[str, Sequence[ExportRun]], sizes: Sequence[Sizes], *, is_deterministic: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {"benchmark": "export"}
    for who, prefix in (("platform", ""), ("naive", "naive_")):
        whole = [run for run in runs[who] if run.rows]
        found |= {
            f"{prefix}rate_per_s": _median([run.rows / run.seconds for run in whole], 0),
            f"{prefix}cpu_us": _median([run.cpu_s / run.rows * 1e6 for run in whole], 2),
            f"{prefix}server_cpu_us": _median([run.server_cpu_s / run.rows * 1e6 for run in whole], 2),
            f"{prefix}peak_rss_mib": rounded(max((run.peak_rss_mib for run in whole), default=0.0)),
            f"{prefix}bytes_per_row": _median([run.bytes / run.rows for run in whole], 2),
        }
    lost = [f"{who}: {what}" for who, mine in runs.items() for run in mine for what in run.lost]
    if not is_deterministic:
        lost.append("platform: two exports of the same rows have other bytes")
    return {
        **found,
        "ratio": rounded(found["rate_per_s"] / found["naive_rate_per_s"], 2) if found["naive_rate_per_s"] else 0.0,
        "lost": lost,
        "rounds": [{"who": who, **asdict(run)} for who, mine in runs.items() for run in mine],
        "sizes": [asdict(each) for each in sizes],
        "rows": options.rows,
        "markets": options.markets,
        "machine": machine(),
        "database": list(SERVER.options()),
    }


def _median(values: Sequence[float], digits: int) -> float:
    return round(statistics.median(values), digits) if values else 0.0


def _described(run: ExportRun) -> str:
    if run.lost:
        return "LOST: " + "; ".join(run.lost)
    return (
        f"{run.rows:,} rows in {run.seconds:.1f} s: {run.rows / run.seconds:,.0f} rows/s, at most"
        f" {run.peak_rss_mib:.0f} MiB, CPU {run.cpu_s:.1f} s and the server's {run.server_cpu_s:.1f} s"
    )
