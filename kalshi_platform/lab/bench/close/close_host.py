"""The measured child of `bench close`: closes one hour, and what that took.

`python -m kalshi_platform.lab.bench.close.close_host SPEC`; SPEC is a JSON file of URLs, readable by its owner only.
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.close.close_hour import close_hour
from kalshi_platform.deduplicator.settings import DeduplicatorSettings, GathererSource
from kalshi_platform.lab.bench.measure import own_cpu_s, peak_rss_mib
from kalshi_platform.lab.bench.result import write_json
from kalshi_platform.storage.partitions import PartitionBounds


def main() -> None:
    """Close the hour, then write `result.json` beside SPEC."""
    path = Path(sys.argv[1])
    spec = json.loads(path.read_text(encoding="utf-8"))
    sources = tuple(GathererSource(name, url, url) for name, url in spec["sources"].items())
    settings = DeduplicatorSettings(spec["production"], sources, **spec["settings"])
    before_mib = peak_rss_mib()
    cpu_s, started = own_cpu_s(), SYSTEM_CLOCK.monotonic()
    closed = close_hour(settings, datetime.fromisoformat(spec["hour"]), SYSTEM_CLOCK, PartitionBounds())
    write_json(
        path.with_name("result.json"),
        {
            "seconds": SYSTEM_CLOCK.monotonic() - started,
            "cpu_s": own_cpu_s() - cpu_s,
            "peak_rss_mib": peak_rss_mib(),
            "rss_before_mib": before_mib,
            "deltas": closed.rows["orderbook_deltas"],
            "inserted": sum(closed.inserted.values()),
            "failed": len(closed.failed),
            "proved": closed.proved,
            "covered": closed.coverage.share,
            "missed": list(closed.gatherers_missed),
            "alarms": [f"{kind} {subject}" for kind, subject, _ in closed.alarms[:5]],
        },
    )


if __name__ == "__main__":
    main()
