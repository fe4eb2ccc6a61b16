"""The benchmark of the gatherer, small: it runs, says what it promises, and notices what is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from kalshi_platform.cli import bench
from kalshi_platform.cli.bench.findings import report_findings
from kalshi_platform.gatherer.ingest.batch_commit import commit_records
from kalshi_platform.lab.bench.gatherer.measured_run import losses
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.clocks import FakeClock
from kalshi_platform_tests.fixtures.gathered import BASE_US, Stream
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory


def test_both_ways_store_all_that_was_sent_and_the_findings_say_how_fast(tmp_path: Path) -> None:
    file = tmp_path / "findings.json"
    arguments = ["gatherer", "--json", str(file), "--messages", "3000", "--rounds", "1", "--markets", "20"]
    result = CliRunner().invoke(bench.app, [*arguments, "--seconds", "0"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    findings = json.loads(file.read_text())
    assert findings["lost"] == []
    ours, naive = findings["rounds"]
    assert (ours["who"], ours["messages"], ours["committed"]) == ("platform", 3_000, 3_000)
    assert (naive["who"], naive["messages"], naive["committed"]) == ("naive", 750, 750)
    assert findings["rate_per_s"] == ours["rate_per_s"] > 0
    assert findings["naive_rate_per_s"] == naive["rate_per_s"] > 0
    assert findings["ratio"] == pytest.approx(ours["rate_per_s"] / naive["rate_per_s"], abs=0.01)
    assert 0 < ours["p50_ms"] <= ours["p99_ms"] <= ours["max_ms"]
    assert findings["peak_rss_mib"] > 10
    assert {"frames", "protocol", "decoder", "columns", "encode", "COPY", "ledger rows"} <= set(findings["stages"])
    assert {"fsync=on", "full_page_writes=on", "synchronous_commit=on"} <= set(findings["database"])
    for shown in ("platform, full speed", "naive, full speed", "msg/s"):
        assert shown in result.output


def test_a_row_or_a_number_that_is_missing_is_a_loss(gatherer_settings: SettingsFactory) -> None:
    database = Database(gatherer_settings().timeseries_url, name="timeseries")
    stream = Stream()
    stream.snapshot()
    for _ in range(5):
        stream.delta()
    stream.delta("B")
    clock = FakeClock(datetime_from_us(BASE_US))
    commit_records(database, PartitionKeeper(database, PartitionBounds(), clock), "g1", stream.records)
    sent, last = {"orderbook_deltas": 6}, {"orderbook_delta": 7}
    try:
        with database.transaction() as transaction:
            assert losses(transaction, sent, last) == []
            assert losses(transaction, sent, {"orderbook_delta": 8}) != []
            transaction.execute("DELETE FROM orderbook_deltas WHERE ticker = 'B'")
            assert losses(transaction, sent, last) == ["orderbook_deltas: 6 rows were sent, 5 are committed"]
            transaction.execute("UPDATE stream_segments SET seq_to = seq_to - 1")
            assert len(losses(transaction, sent, last)) == 2
    finally:
        database.dispose()


def test_findings_with_a_loss_are_written_and_end_with_exit_code_1(tmp_path: Path) -> None:
    file = tmp_path / "findings.json"
    report_findings({"lost": []}, file)
    with pytest.raises(typer.Exit) as ended:
        report_findings({"lost": ["platform: trades: 5 rows were sent, 4 are committed"]}, file)
    assert ended.value.exit_code == 1
    assert json.loads(file.read_text())["lost"] != []
