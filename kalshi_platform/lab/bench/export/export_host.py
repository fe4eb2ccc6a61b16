"""The measured child of `bench export`: one export of an hour, as the platform does it or naively, and what it took.

`python -m kalshi_platform.lab.bench.export.export_host SPEC`; SPEC is a JSON file, readable by its owner only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lab.bench.measure import own_cpu_s, peak_rss_mib
from kalshi_platform.lab.bench.result import write_json

TABLE = "orderbook_deltas"


def main() -> None:
    """Export the hour, then write `result.json` beside SPEC."""
    path = Path(sys.argv[1])
    spec = json.loads(path.read_text(encoding="utf-8"))
    hour = datetime.fromisoformat(spec["hour"])
    # Each way imports what it needs and no more, so that its memory is its own; importing is not exporting.
    export = _naive() if spec["is_naive"] else _platform()
    before_mib = peak_rss_mib()
    cpu_s, started = own_cpu_s(), SYSTEM_CLOCK.monotonic()
    rows, size = export(spec["production"], spec["lake"], hour)
    seconds = SYSTEM_CLOCK.monotonic() - started
    write_json(
        path.with_name("result.json"),
        {
            "seconds": seconds,
            "rows": rows,
            "bytes": size,
            "cpu_s": own_cpu_s() - cpu_s,
            "peak_rss_mib": peak_rss_mib(),
            "rss_before_mib": before_mib,
        },
    )


def _platform() -> Callable[[str, str, datetime], tuple[int, int]]:
    from kalshi_platform.lake.export import export_raw
    from kalshi_platform.lake.settings import LakeSettings

    def export(production_url: str, lake: str, hour: datetime) -> tuple[int, int]:
        manifest = export_raw(LakeSettings(lake), production_url, TABLE, hour, "closed")
        return manifest.rows, manifest.bytes

    return export


def _naive() -> Callable[[str, str, datetime], tuple[int, int]]:
    from kalshi_platform.lab.bench.export.naive_export import export_naively

    return lambda production_url, lake, hour: export_naively(production_url, Path(lake), TABLE, hour)


if __name__ == "__main__":
    main()
