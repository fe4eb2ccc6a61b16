"""The measured child of `bench merge`: passes of the live merge until nothing is behind, and what that took.

`python -m kalshi_platform.lab.bench.merge.merge_host SPEC`; SPEC is a JSON file of URLs, readable by its owner only.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.merge.merge_pass import Merger
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.lab.bench.measure import own_cpu_s, peak_rss_mib
from kalshi_platform.lab.bench.result import write_json
from kalshi_platform.storage.partitions import PartitionBounds


def main() -> None:
    """Merge everything, then write `result.json` beside SPEC."""
    path = Path(sys.argv[1])
    spec = json.loads(path.read_text(encoding="utf-8"))
    sources = tuple(GathererSource(name, url, url) for name, url in spec["sources"].items())
    merger = Merger(DeduplicatorSettings(spec["production"], sources), SYSTEM_CLOCK, PartitionBounds())
    before_mib = peak_rss_mib()
    cpu_s, started = own_cpu_s(), SYSTEM_CLOCK.monotonic()
    passes = rows_read = rows_inserted = 0
    missed: list[str] = []
    while True:
        report = merger.merge_new()
        passes += 1
        rows_read += report.rows_read
        rows_inserted += report.rows_inserted
        missed += report.missed
        if not report.behind:
            break
    seconds = SYSTEM_CLOCK.monotonic() - started
    cpu_s = own_cpu_s() - cpu_s
    merger.dispose()
    write_json(
        path.with_name("result.json"),
        {
            "seconds": seconds,
            "passes": passes,
            "rows_read": rows_read,
            "rows_inserted": rows_inserted,
            "missed": missed,
            "cpu_s": cpu_s,
            "peak_rss_mib": peak_rss_mib(),
            "rss_before_mib": before_mib,
        },
    )


if __name__ == "__main__":
    main()
