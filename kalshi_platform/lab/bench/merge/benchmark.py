"""`bench merge`: what several gatherers hold → production, beside the naive way.

The rate counts input rows, of all gatherers together. The platform starts with everything as a backlog, so its peak of
memory is that of catching up; the naive way gets a part of the rows, on which its rate does not depend.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kalshi_platform.clock import Clock
from kalshi_platform.lab.bench.merge import merge_host
from kalshi_platform.lab.bench.merge.merge_data import TABLE, MergeData, first_hour_before, shown_span
from kalshi_platform.lab.bench.merge.naive_merge import merge_naively
from kalshi_platform.lab.bench.result import machine, rounded, table
from kalshi_platform.lab.bench.stack import SERVER, BenchStack
from kalshi_platform.market.times import US_PER_HOUR
from kalshi_platform.storage.literals import literal
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.read import arrow_snapshot

_HOST = "merge"
_MERGE_S = 3_600.0
_COMPARED_AT_ONCE = 100_000


@dataclass(frozen=True, kw_only=True)
class MergeBench:
    """`rows`: input rows of the platform's round, of all gatherers together; the naive way gets `naive_rows`."""

    folder: Path
    rows: int = 1_200_000
    naive_rows: int = 240_000
    rounds: int = 3
    gatherers: int = 3
    overlap: float = 0.9
    markets: int = 2_000


@dataclass(frozen=True)
class MergeRun:
    """One merge. `lost` names what is wrong with production afterwards."""

    rows_read: int
    rows_inserted: int
    seconds: float
    lost: tuple[str, ...]
    passes: int = 1
    cpu_s: float | None = None
    peak_rss_mib: float | None = None


def bench_merge(options: MergeBench, say: Callable[[str], None], clock: Clock) -> dict[str, Any]:
    """Run it; return the findings, with what was lost under `lost` (empty when all is well)."""
    per_truth = options.gatherers * options.overlap + 1 - options.overlap
    runs: dict[str, list[MergeRun]] = {"platform": [], "naive": []}
    with BenchStack(options.folder, clock) as stack:
        sources: dict[str, tuple[MergeData, dict[str, str]]] = {}
        for who, rows in (("platform", options.rows), ("naive", options.naive_rows)):
            truth = max(1, round(rows / per_truth))
            data = MergeData(
                truth, options.gatherers, options.overlap, options.markets, first_hour_before(clock, truth)
            )
            urls = {f"g{number + 1}": stack.database(f"{who}_g{number + 1}", "timeseries")
                    for number in range(options.gatherers)}  # fmt: skip
            filled = sum(data.fill(number, url, clock) for number, url in enumerate(urls.values()))
            say(f"{who}: {filled:,} rows in {options.gatherers} gatherers, {truth:,} distinct, {shown_span(data)}")
            sources[who] = data, urls
        for number in range(1, options.rounds + 1):
            for who, act in (("platform", _platform), ("naive", _naive)):
                data, urls = sources[who]
                found = act(stack, f"{who}_{number}", data, urls, clock)
                runs[who].append(found)
                say(f"round {number} of {options.rounds}, {who}: {_told(found)}")
    return _findings(options, runs)


def shown(findings: Mapping[str, Any]) -> str:
    """The findings as a table for people."""
    rows = [
        (
            who, findings[f"{prefix}rate_per_s"], findings["ratio"] if who == "platform" else 1.0,
            findings[f"{prefix}inserted_per_s"], findings[f"{prefix}cpu_us"], findings[f"{prefix}peak_rss_mib"],
        )
        for who, prefix in (("naive", "naive_"), ("platform", ""))
    ]  # fmt: skip
    return table(("", "input rows/s", "ratio", "inserted rows/s", "client µs/row", "peak MiB"), rows)


def _platform(
    stack: BenchStack,
    label: str,
    data: MergeData,
    urls: Mapping[str, str],
    clock: Clock,  # noqa: ARG001 - called as _naive is
) -> MergeRun:
    production = stack.database(label, "production")
    stack.checkpoint(production)
    spec = {"production": production, "sources": dict(urls)}
    found = stack.run_host(_HOST, merge_host.__name__, stack.folder / label, spec, _MERGE_S)
    if found is None:
        return MergeRun(0, 0, 1.0, (f"the merge ended without a result: {stack.log_of(_HOST)}",))
    lost = [f"gatherers that were not read: {', '.join(found['missed'])}"] if found["missed"] else []
    return MergeRun(
        found["rows_read"],
        found["rows_inserted"],
        found["seconds"],
        tuple(lost + _differences(production, data)),
        found["passes"],
        found["cpu_s"],
        found["peak_rss_mib"],
    )


def _naive(stack: BenchStack, label: str, data: MergeData, urls: Mapping[str, str], clock: Clock) -> MergeRun:
    url = stack.database(label, "production")
    database = Database(url, name="production")
    try:
        span = range(data.start_us, data.end_us + US_PER_HOUR, US_PER_HOUR)
        PartitionKeeper(database, PartitionBounds(), clock).ensure_hours(TABLE, span)
    finally:
        database.dispose()
    stack.checkpoint(url)
    started = clock.monotonic()
    read, inserted = merge_naively(urls, url)
    return MergeRun(read, inserted, clock.monotonic() - started, tuple(_differences(url, data)))


def _differences(production: str, data: MergeData) -> list[str]:
    """How production differs from what the exchange sent: row by row, in order of time."""
    names = ", ".join(data.content(np.zeros(0, np.int64)).column_names)
    with arrow_snapshot(production) as snapshot:
        count = snapshot.table(f"SELECT count(*) AS rows FROM {TABLE}").column("rows")[0].as_py()  # noqa: S608
        if count != data.truth:
            return [f"{count:,} rows in production instead of {data.truth:,}"]
        for low in range(0, data.truth, _COMPARED_AT_ONCE):
            wanted = data.content(np.arange(low, min(low + _COMPARED_AT_ONCE, data.truth)))
            first, last = (literal(wanted.column("exchange_ts")[place].as_py()) for place in (0, -1))
            found = snapshot.table(
                f"SELECT {names} FROM {TABLE} WHERE exchange_ts BETWEEN {first} AND {last} ORDER BY exchange_ts"  # noqa: S608
            )
            if not found.cast(wanted.schema).equals(wanted):
                return [f"production holds other rows than were sent between {first} and {last}"]
    return []


def _findings(options: MergeBench, runs: Mapping[str, Sequence[MergeRun]]) -> dict[str, Any]:
    found: dict[str, Any] = {"benchmark": "merge"}
    for who, prefix in (("platform", ""), ("naive", "naive_")):
        mine = runs[who]
        cpu = [run.cpu_s / run.rows_read * 1e6 for run in mine if run.cpu_s is not None and run.rows_read]
        peaks = [run.peak_rss_mib for run in mine if run.peak_rss_mib is not None]
        found |= {
            f"{prefix}rate_per_s": rounded(statistics.median(run.rows_read / run.seconds for run in mine), 0),
            f"{prefix}inserted_per_s": rounded(statistics.median(run.rows_inserted / run.seconds for run in mine), 0),
            f"{prefix}cpu_us": rounded(statistics.median(cpu), 2) if cpu else None,
            f"{prefix}peak_rss_mib": rounded(max(peaks)) if peaks else None,
        }
    return {
        **found,
        "ratio": rounded(found["rate_per_s"] / found["naive_rate_per_s"], 2) if found["naive_rate_per_s"] else 0.0,
        "lost": [f"{who}: {what}" for who, mine in runs.items() for run in mine for what in run.lost],
        "rounds": [{"who": who, **asdict(run)} for who, mine in runs.items() for run in mine],
        "gatherers": options.gatherers,
        "overlap": options.overlap,
        "markets": options.markets,
        "machine": machine(),
        "database": list(SERVER.options()),
    }


def _told(run: MergeRun) -> str:
    if run.lost:
        return "LOST: " + "; ".join(run.lost)
    memory = "" if run.peak_rss_mib is None else f", {run.passes} passes, at most {run.peak_rss_mib:.0f} MiB"
    return (
        f"{run.rows_read:,} rows read, {run.rows_inserted:,} inserted in {run.seconds:.1f} s:"
        f" {run.rows_read / run.seconds:,.0f} input rows/s{memory}"
    )
