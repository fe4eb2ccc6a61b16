"""How a measured child process is told what to do and what it tells back: three small JSON files in its folder.

`spec.json` comes from the benchmark, `progress.json` goes back several times a second, `result.json` at the end.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lab.bench.measure import peak_rss_mib, thread_cpu_s
from kalshi_platform.lab.bench.result import write_json

_INTERVAL_S = 0.1


@dataclass(frozen=True)
class HostSpec:
    """What a recording child needs. URLs hold passwords: the file is readable by its owner only."""

    folder: str
    rest_url: str
    ws_url: str
    key_id: str
    key_file: str
    timeseries_url: str = dataclasses.field(repr=False)
    catalog_url: str = dataclasses.field(repr=False)
    tickers: tuple[str, ...]

    def write(self) -> Path:
        """Write the file that the child reads; return it."""
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "spec.json"
        path.touch(mode=0o600)
        path.write_text(json.dumps(dataclasses.asdict(self)), encoding="utf-8")
        return path

    @staticmethod
    def read(path: str) -> HostSpec:
        """Read what `write` wrote."""
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return HostSpec(**{**content, "tickers": tuple(content["tickers"])})


@dataclass(frozen=True)
class HostResult:
    """What a child measured of itself. `commits`: batch number → when its commit had returned, in ns."""

    commits: Mapping[int, int]
    threads_cpu_s: Mapping[str, float]
    peak_rss_mib: float

    @staticmethod
    def read(folder: Path) -> HostResult:
        """Read the result of a child that has ended."""
        content = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        commits = {int(number): at_ns for number, at_ns in content["commits"]}
        return HostResult(commits, content["threads_cpu_s"], content["peak_rss_mib"])


def report_until(folder: Path, stop: threading.Event, committed: Callable[[], Mapping[str, int]]) -> dict[str, float]:
    """Write how many rows are committed, by table, until `stop` is set; return each thread's CPU seconds by then."""
    while not SYSTEM_CLOCK.wait(stop, _INTERVAL_S):
        write_json(folder / "progress.json", committed())
    return thread_cpu_s()


def finish(folder: Path, commits: Mapping[int, int], threads_cpu_s: Mapping[str, float]) -> None:
    """Write the result."""
    content: dict[str, Any] = {
        "commits": list(commits.items()),
        "threads_cpu_s": dict(threads_cpu_s),
        "peak_rss_mib": peak_rss_mib(),
    }
    write_json(folder / "result.json", content)


def progress(folder: Path) -> dict[str, int]:
    """The last report of a child; empty before the first."""
    try:
        found: dict[str, int] = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
    except OSError:
        return {}
    return found
