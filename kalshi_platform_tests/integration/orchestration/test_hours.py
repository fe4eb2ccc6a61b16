"""Hours from gatherers to production to the lake, as Dagster runs them, and what fills the gaps."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta

import dagster as dg
import pyarrow.parquet as pq
import pytest

from kalshi_platform import config
from kalshi_platform.cli.close_hour import close_hour as close_hour_command
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.lake.datasets import RAW_TABLES
from kalshi_platform.lake.layout import partition_path
from kalshi_platform.lake.manifest import read_manifest
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.market.times import HOUR, US_PER_HOUR, US_PER_S
from kalshi_platform.orchestration import keys
from kalshi_platform.orchestration.checks.newest_partitions import CHECKED, judge_newest, read_newest
from kalshi_platform.orchestration.partitions import day_key, hour_key, request_range
from kalshi_platform.orchestration.resources import RESOURCES, LakeResource, ProductionDatabase, opened
from kalshi_platform_tests.fixtures.hand_filled_gatherer import delta_row, trade_row
from kalshi_platform_tests.integration.orchestration.conftest import HOUR0_US, Platform, hour

PLOTTED = (
    keys.WEBSOCKET,
    keys.production("coverage"),
    keys.production("orderbook_deltas"),
    keys.lake("aggregates/market_stats"),
)
EVERYTHING = {*keys.PRODUCTION_HOURLY, *keys.LAKE_RAW}


def fill(
    platform: Platform, schedule: str = "fill_missing_partitions", after: int | None = None
) -> list[dg.RunRequest] | str:
    """Evaluate a schedule twenty minutes after hour `after`, or now: its requests, or why there are none."""
    at = None if after is None else hour(after + 1) + timedelta(minutes=20)
    return platform.evaluate(schedule, at, production_database=ProductionDatabase(), lake=LakeResource())


def requests_of(answer: list[dg.RunRequest] | str) -> list[dg.RunRequest]:
    assert not isinstance(answer, str), answer
    return answer


def last_hour_of_yesterday() -> int:
    midnight = SYSTEM_CLOCK.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return int((midnight - hour(0)) / HOUR) - 1


def judged_newest(platform: Platform, now: datetime) -> set[tuple[str | None, bool]]:
    """The newest partitions that are due at a moment, and whether they are there."""
    with opened(platform.world.production_url, "production") as database:
        newest = read_newest(database, hour(-48), now)
    return {(each.partition, each.is_made) for each in judge_newest(LakeResource().settings(), newest, CHECKED)}


def materialization(platform: Platform, key: dg.AssetKey) -> dg.AssetMaterialization:
    event = platform.instance.get_latest_materialization_event(key)
    assert event is not None
    assert event.asset_materialization is not None
    return event.asset_materialization


def test_one_hour_goes_from_the_gatherers_to_parquet_with_its_figures(platform: Platform) -> None:
    platform.seed(1, rows=5)
    request = dg.RunRequest(partition_key=hour_key(hour(1)))
    result = platform.run(request)
    assert result.success
    assert platform.world.rows("SELECT count(*), count(DISTINCT trade_id) FROM trades") == [(5, 5)]
    assert platform.world.rows("SELECT hour FROM hour_closes") == [(hour(1),)]
    lake = LakeSettings(f"file://{platform.lake}")
    for table in RAW_TABLES:
        path = partition_path("raw", table, hour(1).date(), hour(1).hour)
        manifest = read_manifest(lake, path)
        assert manifest is not None, table
        assert manifest.state == "closed"
        made = materialization(platform, keys.lake(f"raw/{table}"))
        assert made.partition == hour_key(hour(1))
        assert made.metadata["dagster/row_count"].value == manifest.rows
    folder = platform.lake / partition_path("raw", "trades", hour(1).date(), hour(1).hour)
    assert [pq.read_table(file).num_rows for file in folder.glob("*.parquet")] == [5]
    trades = materialization(platform, keys.production("trades"))
    assert trades.metadata["dagster/row_count"].value == 5
    assert trades.metadata["gatherers_read"].value == "g1, g2"
    assert str(trades.metadata["time_min"].value).startswith(f"{hour(1):%Y-%m-%dT%H}:00:01")
    checks = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert checks["no_duplicate_trade_ids"].passed
    assert checks["no_duplicate_trade_ids"].metadata["rows"].value == 5
    assert checks["export_parity"].passed
    # Both streams hold deltas of 4 seconds, and claim all but the margin of a second at either end; the rest of the
    # hour is a hole, which warns and fails nothing.
    coverage = checks["coverage_share"]
    assert not coverage.passed
    assert coverage.severity is dg.AssetCheckSeverity.WARN
    assert coverage.metadata["coverage_share"].value == pytest.approx(2 / 3600, rel=1e-3)
    assert coverage.metadata["markets"].value == 1
    assert str(coverage.metadata["plot"].value).startswith("![plot](data:image/png;base64,iVBOR")
    assert len(str(coverage.metadata["plot"].value)) < 70_000
    assert checks["book_proof"].passed
    assert checks["book_proof"].metadata["failed"].value == 0
    assert checks["identity_agreement"].passed
    assert checks["identity_agreement"].metadata["lowest_agreement"].value == 1.0
    assert checks["exchange_time_goes_forward"].passed
    deltas = read_manifest(lake, partition_path("raw", "orderbook_deltas", hour(1).date(), hour(1).hour))
    assert deltas is not None
    assert deltas.coverage_share == pytest.approx(2 / 3600, rel=1e-3)


def test_gatherers_that_do_not_hold_the_same_deltas_are_reported(platform: Platform) -> None:
    platform.seed(1, rows=5)
    start = HOUR0_US + US_PER_HOUR + US_PER_S
    # What g2 alone holds of seconds that both claim, far more than it shares with g1.
    others = [delta_row("A", ts_us=start + 2 * US_PER_S + n, seq=100 + n, stream_id=999, delta_e2=7) for n in range(50)]
    platform.world.gatherers["g2"].commit(orderbook_deltas=others)
    result = platform.run(dg.RunRequest(partition_key=hour_key(hour(1))))
    assert result.success
    (agreement,) = [e for e in result.get_asset_check_evaluations() if e.check_name == "identity_agreement"]
    assert not agreement.passed
    assert agreement.metadata["gatherer"].value == "g2"
    assert agreement.metadata["lowest_agreement"].value == pytest.approx(1 / 51, abs=1e-5), (
        "one of the second that both claim"
    )


def test_a_range_of_hours_is_one_run_with_figures_for_each(platform: Platform) -> None:
    platform.seed(0, rows=2)
    platform.seed(1, rows=7)
    first, last = hour_key(hour(0)), hour_key(hour(1))
    result = platform.run(request_range(sorted(EVERYTHING), first, last))
    assert result.success
    records = platform.instance.fetch_materializations(keys.lake("raw/trades"), limit=10).records
    counts = {
        record.partition_key: record.asset_materialization.metadata["dagster/row_count"].value  # type: ignore[union-attr]
        for record in records
    }
    assert counts == {first: 2, last: 7}


def test_the_fill_asks_for_exactly_the_missing_hour_and_its_run_fills_it(platform: Platform) -> None:
    for number in range(3):
        platform.seed(number)
    merge_new(platform.world.settings(), SYSTEM_CLOCK)
    for number in (0, 2):
        assert platform.run(dg.RunRequest(partition_key=hour_key(hour(number)))).success
    asked = fill(platform, after=2)
    assert isinstance(asked, list)
    assert [(request.partition_key, set(request.asset_selection or ())) for request in asked] == [
        (hour_key(hour(1)), EVERYTHING)
    ]
    assert platform.run(asked[0]).success
    assert fill(platform, after=2) == "nothing is missing in the 3 hours of the last week"


def test_the_fill_asks_for_neighbouring_hours_as_one_run(platform: Platform) -> None:
    for number in range(3):
        platform.seed(number)
    merge_new(platform.world.settings(), SYSTEM_CLOCK)
    asked = fill(platform, after=2)
    assert isinstance(asked, list)
    tags = [dict(request.tags) for request in asked]
    assert [(tag["dagster/asset_partition_range_start"], tag["dagster/asset_partition_range_end"]) for tag in tags] == [
        (hour_key(hour(0)), hour_key(hour(2)))
    ]


def test_an_hour_that_nobody_recorded_is_closed_and_exported_with_its_neighbours(platform: Platform) -> None:
    assert isinstance(fill(platform), str), "nothing was ever recorded"
    platform.seed(0)
    merge_new(platform.world.settings(), SYSTEM_CLOCK)
    assert platform.run(dg.RunRequest(partition_key=hour_key(hour(0)))).success
    (request,) = requests_of(fill(platform, after=2))
    assert request.tags["dagster/asset_partition_range_start"] == hour_key(hour(1))
    assert request.tags["dagster/asset_partition_range_end"] == hour_key(hour(2))
    assert platform.run(request).success
    assert platform.world.rows("SELECT hour FROM hour_closes ORDER BY 1") == [(hour(0),), (hour(1),), (hour(2),)]
    manifest = read_manifest(
        LakeSettings(f"file://{platform.lake}"), partition_path("raw", "trades", hour(1).date(), hour(1).hour)
    )
    assert manifest is not None
    assert (manifest.state, manifest.rows) == ("closed", 0)
    assert isinstance(fill(platform, after=2), str)


def test_a_missing_export_is_filled_without_closing_the_hour_again(platform: Platform) -> None:
    platform.seed(1)
    partition = hour_key(hour(1))
    selection = [*keys.PRODUCTION_HOURLY, *(key for key in keys.LAKE_RAW if key != keys.lake("raw/tickers"))]
    assert platform.run(dg.RunRequest(partition_key=partition, asset_selection=selection)).success
    closed_at = platform.world.rows("SELECT closed_at FROM hour_closes")
    asked = fill(platform, after=1)
    assert isinstance(asked, list)
    assert [(request.partition_key, request.asset_selection) for request in asked] == [
        (partition, [keys.lake("raw/tickers")])
    ]
    assert platform.run(asked[0]).success
    assert platform.world.rows("SELECT closed_at FROM hour_closes") == closed_at
    assert isinstance(fill(platform, after=1), str)


def test_a_failed_export_counts_as_missing(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.seed(1)
    partition = hour_key(hour(1))
    assert platform.run(dg.RunRequest(partition_key=partition)).success
    with monkeypatch.context() as broken:
        broken.setenv("KALSHI_LAKE_ROOT", "nowhere")
        only = dg.RunRequest(partition_key=partition, asset_selection=[keys.lake("raw/trades")])
        result = platform.run(only)
    assert not result.success
    failure = result.get_step_failure_events()[0].step_failure_data.user_failure_data
    assert failure is not None
    assert "KALSHI_LAKE_ROOT" in (failure.description or "")
    asked = fill(platform, after=1)
    assert isinstance(asked, list)
    assert [request.asset_selection for request in asked] == [[keys.lake("raw/trades")]]


def test_an_attempt_that_was_cancelled_counts_as_missing(platform: Platform) -> None:
    platform.seed(1)
    partition = hour_key(hour(1))
    assert platform.run(dg.RunRequest(partition_key=partition)).success
    run = platform.instance.create_run_for_job(
        platform.defs.resolve_job_def("close_hours"),
        tags={"dagster/partition": partition},
        status=dg.DagsterRunStatus.NOT_STARTED,
    )
    assert isinstance(fill(platform, after=1), str), "the run is about to make it"
    platform.instance.report_run_canceled(run)
    asked = fill(platform, after=1)
    assert isinstance(asked, list)
    assert [(request.partition_key, set(request.asset_selection or ())) for request in asked] == [
        (partition, EVERYTHING)
    ]


def test_late_rows_bring_the_hour_back(platform: Platform) -> None:
    platform.seed(1)
    assert platform.run(dg.RunRequest(partition_key=hour_key(hour(1)))).success
    late = trade_row("A", "late", ts_us=HOUR0_US + US_PER_HOUR + 9 * US_PER_S)
    platform.world.gatherers["g1"].commit(trades=[late])
    merge_new(platform.world.settings(), SYSTEM_CLOCK)
    asked = fill(platform, after=1)
    assert isinstance(asked, list)
    assert [request.partition_key for request in asked] == [hour_key(hour(1))]
    assert platform.run(asked[0]).success
    made = materialization(platform, keys.lake("raw/trades"))
    assert made.metadata["dagster/row_count"].value == 6
    assert isinstance(fill(platform, after=1), str)


def closes_sensor(platform: Platform, cursor: str | None) -> dg.SensorResult:
    context = dg.build_sensor_context(instance=platform.instance, cursor=cursor)
    sensor = platform.defs.resolve_sensor_def("closes_sensor")
    result = sensor(context, production_database=ProductionDatabase(), lake=LakeResource())
    assert isinstance(result, dg.SensorResult)
    return result


def test_what_was_closed_or_lost_without_dagster_is_exported_again(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    """Production and the lake are asked, whatever Dagster remembers."""
    number = last_hour_of_yesterday()
    partition, day = hour_key(hour(number)), day_key(hour(number))
    platform.seed(number)
    assert platform.run(dg.RunRequest(partition_key=partition)).success
    assert platform.run(dg.RunRequest(partition_key=day), "export_days").success
    assert isinstance(fill(platform, after=number), str)
    late = trade_row("A", "late", ts_us=HOUR0_US + number * US_PER_HOUR + 9 * US_PER_S)
    platform.world.gatherers["g1"].commit(trades=[late])
    merge_new(platform.world.settings(), SYSTEM_CLOCK)
    # As a person does from the shell.
    sensor = closes_sensor(platform, None)
    close_hour_command(f"{hour(number):%Y-%m-%dT%H}", bucket="", export=False)
    told = capsys.readouterr().out
    assert "older than this close, or missing, in the lake: " in told
    assert f" processed/trades {day}" in told
    assert "kalshi-platform export --stale" in told
    followed = closes_sensor(platform, sensor.cursor)
    assert [(each.partition_key, each.asset_selection) for each in followed.run_requests or ()] == [
        (partition, list(keys.LAKE_RAW))
    ]
    assert not closes_sensor(platform, followed.cursor).run_requests, "once per close"
    (asked,) = requests_of(fill(platform, after=number))
    assert isinstance(asked, dg.RunRequest)
    assert (asked.partition_key, asked.asset_selection) == (partition, list(keys.LAKE_RAW))
    assert platform.run(asked).success
    assert materialization(platform, keys.lake("raw/trades")).metadata["dagster/row_count"].value == 6
    (asked_day,) = requests_of(fill(platform, "fill_missing_days"))
    assert isinstance(asked_day, dg.RunRequest)
    assert asked_day.partition_key == day
    result = platform.run(asked_day, "export_days")
    assert result.success
    assert all(check.passed for check in result.get_asset_check_evaluations())
    assert isinstance(fill(platform, after=number), str)
    assert isinstance(fill(platform, "fill_missing_days"), str)
    # Somebody empties a part of the bucket.
    shutil.rmtree(platform.lake / "raw" / "trades")
    (again,) = requests_of(fill(platform, after=number))
    assert isinstance(again, dg.RunRequest)
    assert (again.partition_key, again.asset_selection) == (partition, [keys.lake("raw/trades")])


def test_a_partition_that_cannot_be_exported_keeps_no_other_from_it(platform: Platform) -> None:
    for number in (0, 1):
        platform.seed(number)
    first, last = hour_key(hour(0)), hour_key(hour(1))
    assert platform.run(request_range(list(keys.PRODUCTION_HOURLY), first, last)).success
    with platform.world.production.transaction() as transaction:
        transaction.execute("DELETE FROM trades WHERE exchange_ts < %s AND trade_id = 't0-1'", (hour(1),))
    result = platform.run(request_range([keys.lake("raw/trades")], first, last))
    assert not result.success
    failure = result.get_step_failure_events()[0].step_failure_data.user_failure_data
    assert failure is not None
    assert f"FewerRows: raw/trades {first}: production holds 4 rows of trades, but had 5" in (failure.description or "")
    made = materialization(platform, keys.lake("raw/trades"))
    assert (made.partition, made.metadata["dagster/row_count"].value) == (last, 5)


def test_an_hour_that_a_run_is_about_to_make_is_not_requested_twice(platform: Platform) -> None:
    platform.seed(1)
    merge_new(platform.world.settings(), SYSTEM_CLOCK)
    job = platform.defs.resolve_job_def("close_hours")
    platform.instance.create_run_for_job(
        job, tags={"dagster/partition": hour_key(hour(1))}, status=dg.DagsterRunStatus.NOT_STARTED
    )
    assert isinstance(fill(platform, after=1), str)


def test_the_hourly_schedule_asks_for_the_hour_that_just_ended(platform: Platform) -> None:
    now = SYSTEM_CLOCK.now().replace(minute=5)
    resources = {"production_database": ProductionDatabase(), "lake": LakeResource()}
    (request,) = requests_of(platform.evaluate("close_hours_schedule", now, **resources))
    assert request.partition_key == hour_key(now.replace(minute=0, second=0, microsecond=0) - HOUR)


def test_what_lies_before_the_first_partition_is_not_requested(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = SYSTEM_CLOCK.now().replace(minute=5)
    monkeypatch.setenv("KALSHI_PARTITIONS_START", f"{now:%Y-%m-%dT%H:00}")
    resources = {"production_database": ProductionDatabase(), "lake": LakeResource()}
    for schedule, at in (("close_hours_schedule", now), ("export_days_schedule", now.replace(hour=1, minute=30))):
        assert "lies before KALSHI_PARTITIONS_START" in platform.evaluate(schedule, at, **resources)


def test_a_day_is_exported_once_its_hours_are_closed_and_again_after_late_rows(platform: Platform) -> None:
    number = last_hour_of_yesterday()
    day = day_key(hour(number))
    platform.seed(number)
    merge_new(platform.world.settings(), SYSTEM_CLOCK)
    assert isinstance(fill(platform, "fill_missing_days"), str), "its hour is still open"
    assert judged_newest(platform, hour(number) + 6 * HOUR) == {(hour_key(hour(number)), False), (day, False)}
    assert judged_newest(platform, hour(number) + HOUR) == {(None, True)}
    request = dg.RunRequest(partition_key=hour_key(hour(number)))
    assert platform.run(request).success
    (asked,) = requests_of(fill(platform, "fill_missing_days"))
    assert (asked.partition_key, asked.asset_selection) == (day, list(keys.LAKE_DAILY))
    assert platform.run(asked, "export_days").success
    assert materialization(platform, keys.lake("processed/trades")).metadata["dagster/row_count"].value == 5
    assert isinstance(fill(platform, "fill_missing_days"), str)
    for key in (keys.WEBSOCKET, *keys.PRODUCTION_HOURLY, *keys.LAKE_RAW, *keys.LAKE_DAILY):
        made = materialization(platform, key).metadata
        assert not made["dagster/row_count"].value or {"time_min", "time_max"} <= set(made), key
    for key in PLOTTED:
        assert str(materialization(platform, key).metadata["plot"].value).startswith("![plot](data:image/png;base64,")
    assert judged_newest(platform, hour(number) + 6 * HOUR) == {(hour_key(hour(number)), True), (day, True)}
    late = trade_row("A", "late", ts_us=HOUR0_US + number * US_PER_HOUR + 9 * US_PER_S)
    platform.world.gatherers["g1"].commit(trades=[late])
    merge_new(platform.world.settings(), SYSTEM_CLOCK)
    assert isinstance(fill(platform, "fill_missing_days"), str), "its hour is to be closed again first"
    assert platform.run(request).success
    (asked,) = requests_of(fill(platform, "fill_missing_days"))
    assert (asked.partition_key, asked.asset_selection) == (day, list(keys.LAKE_DAILY))
    only_trades = dg.RunRequest(partition_key=day, asset_selection=[keys.lake("processed/trades")])
    assert platform.run(only_trades, "export_days").success
    assert materialization(platform, keys.lake("processed/trades")).metadata["dagster/row_count"].value == 6


def test_late_rows_of_an_old_hour_reach_the_lake(platform: Platform) -> None:
    number = last_hour_of_yesterday() - 24 * 12
    old = hour_key(hour(number))
    platform.seed(number)
    merge_new(platform.world.settings(), SYSTEM_CLOCK)
    asked = fill(platform)
    assert isinstance(asked, list)
    assert (asked[0].partition_key, set(asked[0].asset_selection or ())) == (old, EVERYTHING)
    assert len(asked) == 2, "hours of the last day, which nobody recorded, are one run"
    only_closed = dg.RunRequest(partition_key=old, asset_selection=list(keys.PRODUCTION_HOURLY))
    assert platform.run(only_closed).success
    asked = fill(platform)
    assert isinstance(asked, list)
    assert (asked[0].partition_key, asked[0].asset_selection) == (old, list(keys.LAKE_RAW)), (
        "its export is still asked for"
    )
    assert platform.run(asked[0]).success
    asked = fill(platform, "fill_missing_days")
    assert isinstance(asked, list)
    assert [request.partition_key for request in asked] == [day_key(hour(number))]


def test_an_hour_with_late_rows_is_not_exported_before_it_is_closed_again(platform: Platform) -> None:
    platform.seed(1)
    partition = hour_key(hour(1))
    assert platform.run(dg.RunRequest(partition_key=partition)).success
    late = trade_row("A", "late", ts_us=HOUR0_US + US_PER_HOUR + 9 * US_PER_S)
    platform.world.gatherers["g1"].commit(trades=[late])
    merge_new(platform.world.settings(), SYSTEM_CLOCK)
    only = dg.RunRequest(partition_key=partition, asset_selection=[keys.lake("raw/trades")])
    result = platform.run(only)
    assert not result.success
    failure = result.get_step_failure_events()[0].step_failure_data.user_failure_data
    assert failure is not None
    assert "rows came after the close" in (failure.description or "")


def test_a_gatherer_that_was_missed_is_named_in_the_hour(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    platform.seed(1)
    url = platform.world.gatherers["g2"].url
    monkeypatch.setenv(config.timeseries_variable("g2"), url.rsplit("/", 1)[0] + "/no_such_database")
    result = platform.run(dg.RunRequest(partition_key=hour_key(hour(1))))
    assert result.success
    assert materialization(platform, keys.production("trades")).metadata["gatherers_missed"].value == "g2"
    received = materialization(platform, keys.WEBSOCKET).metadata
    # Five deltas, five trades and a ticker; the snapshot is no message.
    assert (received["messages g1"].value, "messages g2" in received) == (11, False)
    checks = {each.check_name: each for each in result.get_asset_check_evaluations()}
    read = checks["all_gatherers_read"]
    assert (read.passed, read.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert read.metadata["missed"].value == f"{hour_key(hour(1))}: g2"


def test_a_missing_setting_is_one_failure_that_names_it(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KALSHI_PRODUCTION_DATABASE_URL")
    result = platform.run(dg.RunRequest(partition_key=hour_key(hour(1))))
    failures = [event.step_failure_data.user_failure_data for event in result.get_step_failure_events()]
    assert len(failures) == 1
    assert failures[0] is not None
    assert "KALSHI_PRODUCTION_DATABASE_URL" in (failures[0].description or "")
    assert "not configured:\nKALSHI_PRODUCTION_DATABASE_URL is missing" in str(fill(platform))


def test_all_resources_of_the_code_location_are_known_by_name() -> None:
    assert set(RESOURCES) == {"platform", "production_database", "lake", "ingestor"}
