"""The measured child of `bench replay`: one replay of an hour, and what it took.

`python -m kalshi_platform.lab.bench.replay.replay_host SPEC`; SPEC is a JSON file, the result goes beside it.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lab.bench.measure import own_cpu_s, peak_rss_mib
from kalshi_platform.lab.bench.result import write_json

Levels = tuple[str, str, int, int]


def main() -> None:
    """Replay the hour, then write `result.json` beside SPEC."""
    path = Path(sys.argv[1])
    spec = json.loads(path.read_text(encoding="utf-8"))
    run = replay_naively if spec["is_naive"] else replay_by_the_platform
    cpu_s, started = own_cpu_s(), SYSTEM_CLOCK.monotonic()
    deltas, books = run(Path(spec["lake"]), datetime.fromisoformat(spec["hour"]))
    result = {
        "seconds": SYSTEM_CLOCK.monotonic() - started,
        "cpu_s": own_cpu_s() - cpu_s,
        "deltas": deltas,
        "peak_rss_mib": peak_rss_mib(),
        "books": hashlib.sha256(repr(sorted(books)).encode()).hexdigest(),
    }
    write_json(path.with_name("result.json"), result)


def replay_by_the_platform(lake: Path, hour: datetime) -> tuple[int, Iterable[Levels]]:
    """Iterate over the events of the reader's replay; return the number of deltas, and all levels at the end."""
    # The naive way imports nothing of it, so that its memory is its own.
    from kalshi_platform.lake import reader
    from kalshi_platform.lake.settings import LakeSettings

    replayed = reader.replay(LakeSettings(lake.as_uri()), hour, hour + timedelta(hours=1), also=(), holes="raise")
    deltas = 0
    for _event in replayed:
        deltas += 1
    levels = [
        (book.ticker, side, *level)
        for book in replayed.books.values()
        for side, of_side in (("yes", book.yes), ("no", book.no))
        for level in of_side.items()
    ]
    return deltas, levels


def replay_naively(lake: Path, hour: datetime) -> tuple[int, Iterable[Levels]]:
    """Read one frame, sort it, go through its rows with a dict per market."""
    import polars as pl

    files = lake / "raw" / "orderbook_deltas" / f"date={hour:%Y-%m-%d}" / f"hour={hour:%H}" / "*.parquet"
    frame = pl.read_parquet(files, hive_partitioning=False).sort("exchange_ts", maintain_order=True)
    books: dict[str, dict[tuple[str, int], int]] = {}
    deltas = 0
    for row in frame.iter_rows(named=True):
        book = books.setdefault(row["ticker"], {})
        level = row["side"], row["price_e4"]
        size = book.get(level, 0) + row["delta_e2"]
        if size:
            book[level] = size
        else:
            book.pop(level, None)
        deltas += 1
    return deltas, [(ticker, *level, size) for ticker, book in books.items() for level, size in book.items()]


if __name__ == "__main__":
    main()
