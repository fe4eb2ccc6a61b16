"""Reports of the long-running services as events on assets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg

from kalshi_platform.deduplicator.merge.merge_pass import MergeReport, TableMerge
from kalshi_platform.gatherer.status.reports import BooksPolled, CatalogSynced, ExchangeStatusRead, StreamsCommitted
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.checks.freshness import make_freshness_evaluation
from kalshi_platform.orchestration.failures import describe_problems
from kalshi_platform.orchestration.jobs.asset_events import make_gather_events, make_merge_events
from kalshi_platform.orchestration.supervision.policy import LatestHeartbeat

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def committed(minute: int, **rows: int) -> StreamsCommitted:
    return StreamsCommitted(
        since=NOW + minute * MINUTE,
        until=NOW + (minute + 1) * MINUTE,
        rows=rows,
        commits=10,
        gaps=minute,
        reconnects=0,
        lag_p50_ms=80.04,
        lag_p99_ms=None,
    )


def test_stream_tables_with_rows_are_materialized_and_empty_ones_observed() -> None:
    reports = [committed(0, trades=3, orderbook_deltas=5), committed(1, trades=4)]
    events = make_gather_events("g2", reports)
    assert {event.partition for event in events} == {"g2"}
    made = {event.asset_key: event.metadata for event in events if isinstance(event, dg.AssetMaterialization)}
    seen = {event.asset_key for event in events if isinstance(event, dg.AssetObservation)}
    assert made[keys.gatherer("trades")]["dagster/row_count"].value == 7
    assert made[keys.gatherer("orderbook_deltas")]["dagster/row_count"].value == 5
    assert made[keys.gatherer("trades")]["gaps"].value == 1
    assert made[keys.gatherer("trades")]["time_max"].value == (NOW + 2 * MINUTE).isoformat()
    assert seen == {keys.gatherer(name) for name in ("tickers", "orderbook_snapshots", "market_lifecycle")}


def test_several_reports_give_every_sync_and_the_last_poll() -> None:
    sync = CatalogSynced(what="events", scope="full", rows_seen=9, rows_changed=2, started_at=NOW, finished_at=NOW)
    polls = [
        BooksPolled(
            minute=NOW, subscribed=5, asked=5, stored=stored, skipped=0, failed=0, requests=1,
            started_at=NOW, finished_at=NOW + MINUTE / 60,
        )
        for stored in (4, 5)
    ]  # fmt: skip
    events = make_gather_events("g1", [sync, polls[0], sync, polls[1]])
    assert [event.asset_key for event in events] == [keys.gatherer("events")] * 2 + [keys.REST_SNAPSHOTS]
    assert events[-1].metadata["dagster/partition_row_count"].value == 5
    assert events[-1].metadata["polls"].value == 2


def test_the_status_of_the_exchange_is_reported_by_the_gatherer_that_read_it() -> None:
    report = ExchangeStatusRead(at=NOW, exchange_active=True, trading_active=False, estimated_resume=None)
    (event,) = make_gather_events("g1", [report])
    assert (event.asset_key, event.partition) == (keys.EXCHANGE_STATUS, "g1")
    assert event.metadata["trading_active"].value is False
    assert event.metadata["estimated_resume"].value == "none named"


def test_several_merges_give_one_observation_with_sums() -> None:
    def report(inserted: int) -> MergeReport:
        return MergeReport(NOW, NOW + MINUTE, (), {"trades": TableMerge(read=10, unique=6, inserted=inserted)})

    (event,) = make_merge_events([report(6), report(0)])
    assert event.asset_key == keys.production("trades")
    assert (event.metadata["rows_inserted"].value, event.metadata["rows_read"].value) == (6, 20)
    assert make_merge_events([]) == []


def test_freshness_of_silent_gatherers_fails_and_names_them() -> None:
    beats = {"gatherer/g1": LatestHeartbeat(0.0, None), "gatherer/g2": LatestHeartbeat(60.0, None), "gatherer/g3": None}
    evaluation = make_freshness_evaluation(beats)
    assert not evaluation.passed
    assert evaluation.metadata["silent"].value == "gatherer/g2, gatherer/g3"
    assert evaluation.metadata["age_s gatherer/g2"].value == 60.0
    assert make_freshness_evaluation({"gatherer/g1": LatestHeartbeat(0.0, None)}).passed


def test_repeated_problems_are_described_once_with_their_remedy() -> None:
    text = describe_problems(
        ["A is missing: set it to x", "B is missing: set it", "A is missing: set it to x", "C is 'y': no"]
    )
    assert text == "not configured:\nA is missing: set it to x\nB is missing: set it\nC is 'y': no"
