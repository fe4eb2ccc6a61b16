"""`bench close`: an hour that the live merge has brought, closed; beside the naive way.

The rate counts input rows, of all gatherers together. The naive way gets a part of the rows, on which its rate does not
depend.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.lab.bench.close import close_host
from kalshi_platform.lab.bench.close.close_data import CloseData
from kalshi_platform.lab.bench.close.naive_close import close_naively
from kalshi_platform.lab.bench.measure import cpu_s
from kalshi_platform.lab.bench.result import machine, rounded, table
from kalshi_platform.lab.bench.stack import SERVER, BenchStack
from kalshi_platform.market.times import datetime_from_us, hour_of, us_from_datetime

_HOST = "close"
_CLOSE_S = 7_200.0
_LEAST_COVERED = 0.98


@dataclass(frozen=True, kw_only=True)
class CloseBench:
    """`rows`: input rows of the platform's hour, of all gatherers together; the naive way gets `naive_rows`.

    `missing`: share of the deltas that production lacks before the first round.
    """

    folder: Path
    rows: int = 2_000_000
    naive_rows: int = 120_000
    rounds: int = 2
    gatherers: int = 3
    overlap: float = 0.9
    markets: int = 2_000
    missing: float = 0.0
    settings: Mapping[str, int]


@dataclass(frozen=True)
class CloseRun:
    """One close. `lost` names what is wrong with it. `server_cpu_s`: of the databases meanwhile."""

    rows_read: int
    seconds: float
    lost: tuple[str, ...] = ()
    cpu_s: float | None = None
    server_cpu_s: float | None = None
    peak_rss_mib: float | None = None


def bench_close(options: CloseBench, say: Callable[[str], None], clock: Clock) -> dict[str, Any]:
    """Run it; return the findings, with what was lost under `lost` (empty when all is well)."""
    hour_us = us_from_datetime(hour_of(clock.now()) - timedelta(hours=2))
    runs: dict[str, list[CloseRun]] = {"platform": [], "naive": []}
    with BenchStack(options.folder, clock) as stack:
        found: dict[str, tuple[CloseData, dict[str, str], str]] = {}
        for who, rows in (("platform", options.rows), ("naive", options.naive_rows)):
            truth = max(100, round(rows / (options.gatherers * options.overlap + 1 - options.overlap)))
            data = CloseData(truth, options.gatherers, options.overlap, options.markets, hour_us)
            urls = {f"g{number + 1}": stack.database(f"{who}_g{number + 1}", "timeseries")
                    for number in range(options.gatherers)}  # fmt: skip
            for number, url in enumerate(urls.values()):
                data.fill_gatherer(number, url, clock)
            production = stack.database(f"{who}_production", "production")
            data.fill_production(production, clock, options.missing)
            say(f"{who}: {sum(map(data.rows, range(options.gatherers))):,} rows in {options.gatherers} gatherers,"
                f" {truth:,} distinct, hour {datetime_from_us(hour_us):%Y-%m-%dT%H}")  # fmt: skip
            found[who] = data, urls, production
        for number in range(1, options.rounds + 1):
            for who, act in (("platform", _platform), ("naive", _naive)):
                run = act(stack, number, *found[who], options, clock)
                runs[who].append(run)
                say(f"round {number} of {options.rounds}, {who}: {_told(run)}")
    return _findings(options, runs)


def shown(findings: Mapping[str, Any]) -> str:
    """The findings as a table for people."""
    rows = [
        (
            who, findings[f"{prefix}rate_per_s"], findings["ratio"] if who == "platform" else 1.0,
            findings[f"{prefix}rate_per_cpu_s"], findings[f"{prefix}peak_rss_mib"],
        )
        for who, prefix in (("naive", "naive_"), ("platform", ""))
    ]  # fmt: skip
    return table(("", "input rows/s", "ratio", "input rows per CPU-s, client and server", "peak MiB"), rows)


def _platform(
    stack: BenchStack,
    number: int,
    data: CloseData,
    urls: Mapping[str, str],
    production: str,
    options: CloseBench,
    clock: Clock,  # noqa: ARG001 - called as _naive is
) -> CloseRun:
    hour = datetime_from_us(data.hour_us).isoformat()
    content = {"production": production, "sources": dict(urls), "hour": hour, "settings": dict(options.settings)}
    for url in (production, *urls.values()):
        stack.checkpoint(url)
    before_s = cpu_s(stack.server_pids(), with_collected=True)
    found = stack.run_host(_HOST, close_host.__name__, stack.folder / f"close_{number}", content, _CLOSE_S)
    server_s = cpu_s(stack.server_pids(), with_collected=True) - before_s
    if found is None:
        return CloseRun(0, 1.0, (f"the close ended without a result: {stack.log_of(_HOST)}",))
    rows = sum(map(data.rows, range(data.gatherers)))
    return CloseRun(
        rows, found["seconds"], tuple(find_wrong(found, data)), found["cpu_s"], server_s, found["peak_rss_mib"]
    )  # fmt: skip


def find_wrong(found: Mapping[str, Any], data: CloseData) -> list[str]:
    """Return what did not come out of a close as it should. `found`: as close_host writes it."""
    wrong = [f"{what}: {found[what]}" for what in ("missed", "alarms") if found[what]]
    if found["deltas"] != data.truth:
        wrong.append(f"{found['deltas']:,} rows in production instead of {data.truth:,}")
    if found["failed"]:
        wrong.append(f"{found['failed']:,} markets failed")
    if not found["covered"] or found["covered"] < _LEAST_COVERED:
        wrong.append(f"only {found['covered']} of the hour is covered")
    return wrong


def _naive(
    stack: BenchStack,  # noqa: ARG001 - called as _platform is
    number: int,  # noqa: ARG001
    data: CloseData,
    urls: Mapping[str, str],
    production: str,
    options: CloseBench,  # noqa: ARG001
    clock: Clock,
) -> CloseRun:
    started = clock.monotonic()
    read, folded = close_naively(urls, production, datetime_from_us(data.hour_us))
    lost = () if folded == data.truth else (f"{folded:,} rows in production instead of {data.truth:,}",)
    return CloseRun(read, clock.monotonic() - started, lost)


def _findings(options: CloseBench, runs: Mapping[str, Sequence[CloseRun]]) -> dict[str, Any]:
    found: dict[str, Any] = {"benchmark": "close"}
    for who, prefix in (("platform", ""), ("naive", "naive_")):
        mine = runs[who]
        per_cpu = [
            run.rows_read / (run.cpu_s + run.server_cpu_s)
            for run in mine
            if run.cpu_s is not None and run.server_cpu_s is not None
        ]
        peaks = [run.peak_rss_mib for run in mine if run.peak_rss_mib is not None]
        found |= {
            f"{prefix}rate_per_s": rounded(statistics.median(run.rows_read / run.seconds for run in mine), 0),
            f"{prefix}rate_per_cpu_s": rounded(statistics.median(per_cpu), 0) if per_cpu else None,
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
        "missing": options.missing,
        "settings": dict(options.settings),
        "machine": machine(),
        "database": list(SERVER.options()),
    }


def _told(run: CloseRun) -> str:
    if run.lost:
        return "LOST: " + "; ".join(run.lost)
    memory = ""
    if run.peak_rss_mib is not None and run.cpu_s is not None and run.server_cpu_s is not None:
        memory = f", {run.cpu_s:.1f} CPU-s and {run.server_cpu_s:.1f} of the server, at most {run.peak_rss_mib:.0f} MiB"
    return f"{run.rows_read:,} rows in {run.seconds:.1f} s: {run.rows_read / run.seconds:,.0f} input rows/s{memory}"
