"""`bench replay`: a closed hour of the lake in the order of time with every market's book, beside the naive way.

Each replay is a process of its own, so that its memory is its own. Both must end with the same books.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from kalshi_platform.clock import Clock
from kalshi_platform.lab.bench.export.export_data import ExportData
from kalshi_platform.lab.bench.replay import replay_host
from kalshi_platform.lab.bench.replay.replay_data import make_lake
from kalshi_platform.lab.bench.result import machine, rounded, table
from kalshi_platform.market.times import hour_of

_LONGEST_S = 3_600.0


@dataclass(frozen=True, kw_only=True)
class ReplayBench:
    """`deltas`: about as many the platform replays; the naive way gets an hour of `naive_deltas`, and so does it."""

    folder: Path
    deltas: int = 5_000_000
    naive_deltas: int = 500_000
    markets: int = 2_000
    rounds: int = 3


@dataclass(frozen=True)
class ReplayRun:
    """One replay; `books` names all levels at its end."""

    deltas: int
    seconds: float
    cpu_s: float
    peak_rss_mib: float
    books: str

    @property
    def rate(self) -> float:
        """Deltas a second."""
        return self.deltas / self.seconds


def bench_replay(options: ReplayBench, say: Callable[[str], None], clock: Clock) -> dict[str, Any]:
    """Run it; return the findings, with what was lost under `lost` (empty when all is well)."""
    hour = hour_of(clock.now()) - timedelta(hours=2)
    lakes = {"platform": options.folder / "lake", "naive": options.folder / "naive_lake"}
    made: dict[str, int] = {}
    for who, deltas in (("platform", options.deltas), ("naive", options.naive_deltas)):
        made[who] = make_lake(lakes[who], ExportData(deltas, hour, options.markets))
        say(f"{who}: an hour of {made[who]:,} deltas of {options.markets:,} markets")
    lost: list[str] = []
    runs: dict[str, list[ReplayRun]] = {"platform": [], "naive": []}
    same = _run(options.folder / "same", lakes["naive"], hour, is_naive=False)
    for number in range(1, options.rounds + 1):
        for who, mine in runs.items():
            found = _run(options.folder / f"{who}_{number}", lakes[who], hour, is_naive=who == "naive")
            mine.append(found)
            say(
                f"round {number} of {options.rounds}, {who}: {found.deltas:,} deltas in {found.seconds:.1f} s:"
                f" {found.rate:,.0f} a second, at most {found.peak_rss_mib:.0f} MiB"
            )
            if found.deltas != made[who]:
                lost.append(f"{who}: {found.deltas:,} of {made[who]:,} deltas")
            if who == "naive" and found.books != same.books:
                lost.append("the books at the end differ from those that the naive way finds")
    rates = {who: statistics.median(run.rate for run in mine) for who, mine in runs.items()}
    return {
        "benchmark": "replay",
        "rate_per_s": rounded(rates["platform"], 0),
        "naive_rate_per_s": rounded(rates["naive"], 0),
        "ratio": rounded(rates["platform"] / rates["naive"], 2),
        "cpu_us": rounded(statistics.median(run.cpu_s / run.deltas * 1e6 for run in runs["platform"]), 2),
        "naive_cpu_us": rounded(statistics.median(run.cpu_s / run.deltas * 1e6 for run in runs["naive"]), 2),
        "peak_rss_mib": rounded(max(run.peak_rss_mib for run in runs["platform"])),
        "naive_peak_rss_mib": rounded(max(run.peak_rss_mib for run in runs["naive"])),
        "lost": sorted(set(lost)),
        "deltas": made["platform"],
        "naive_deltas": made["naive"],
        "markets": options.markets,
        "seconds": {who: [rounded(run.seconds, 3) for run in mine] for who, mine in runs.items()},
        "machine": machine(),
    }


def shown(findings: Mapping[str, Any]) -> str:
    """The findings as a table for people."""
    rows = [
        (
            who,
            findings[f"{prefix}deltas"],
            findings[f"{prefix}rate_per_s"],
            findings["ratio"] if who == "platform" else 1.0,
            findings[f"{prefix}cpu_us"],
            findings[f"{prefix}peak_rss_mib"],
        )
        for who, prefix in (("naive", "naive_"), ("platform", ""))
    ]
    return table(("", "deltas", "deltas/s", "ratio", "CPU µs/delta", "peak MiB"), rows)


def _run(folder: Path, lake: Path, hour: datetime, *, is_naive: bool) -> ReplayRun:
    folder.mkdir(parents=True)
    spec = folder / "spec.json"
    spec.write_text(json.dumps({"lake": str(lake), "hour": hour.isoformat(), "is_naive": is_naive}), encoding="utf-8")
    subprocess.run([sys.executable, "-m", replay_host.__name__, str(spec)], check=True, timeout=_LONGEST_S)
    found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return ReplayRun(found["deltas"], found["seconds"], found["cpu_s"], found["peak_rss_mib"], found["books"])
