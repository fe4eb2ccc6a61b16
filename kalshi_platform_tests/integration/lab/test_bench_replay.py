"""`bench replay` on a small hour: both ways end with the same books, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.lab.bench.replay.benchmark import ReplayBench, bench_replay, shown


def test_a_replay_of_a_small_hour_ends_with_the_books_of_the_naive_way(tmp_path: Path) -> None:
    options = ReplayBench(folder=tmp_path / "run", deltas=3_000, naive_deltas=3_000, markets=20, rounds=1)
    findings = bench_replay(options, lambda _line: None, SYSTEM_CLOCK)
    assert findings["lost"] == []
    assert findings["deltas"] > 2_500
    assert "naive" in shown(findings)
