"""`kalshi-platform dedup` and `close-hour` as a user runs them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from kalshi_platform.cli.close_hour import close_hour
from kalshi_platform.cli.dedup import dedup
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import LockHeld, Unfinished
from kalshi_platform.local.processes import stop_signals
from kalshi_platform.local.processes.ports import free_port
from kalshi_platform.market.times import US_PER_S, datetime_from_us
from kalshi_platform.monitoring.logs import describe_process
from kalshi_platform_tests.fixtures.hand_filled_gatherer import delta_row, snapshot_row
from kalshi_platform_tests.fixtures.merge_world import MergeWorld, until
from kalshi_platform_tests.integration.deduplicator.test_close_coverage import HOUR, every, ranges, record
from kalshi_platform_tests.integration.deduplicator.test_close_hour import HOUR_US

World = Callable[..., MergeWorld]
COMMAND = [sys.executable, "-c", "from kalshi_platform.cli.main import main; main()"]


def environment(world: MergeWorld) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KALSHI_")}
    urls = {"KALSHI_GATHERERS": ",".join(world.gatherers), "KALSHI_PRODUCTION_DATABASE_URL": world.production_url}
    for name, gatherer in world.gatherers.items():
        urls[f"KALSHI_{name.upper()}_TIMESERIES_DATABASE_URL"] = gatherer.url
        urls[f"KALSHI_{name.upper()}_CATALOG_DATABASE_URL"] = world.catalog_urls[name]
    return kept | urls | {"KALSHI_MERGE_INTERVAL_S": "0.1", "KALSHI_CHECK_TRADES": "no"}


def run(world: MergeWorld, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=environment(world), capture_output=True, text=True, timeout=60, check=False
    )


def test_once_merges_what_is_there_and_close_hour_closes_it(merge_world: World) -> None:
    world = merge_world(2)
    for gatherer in world.gatherers.values():
        gatherer.commit(orderbook_deltas=[delta_row("A", ts_us=HOUR_US + 5, seq=2)])
    merged = run(world, "dedup", "--once")
    assert merged.returncode == 0, merged.stderr
    assert "read 2 rows, new: 1 orderbook_deltas" in merged.stdout
    closed = run(world, "close-hour", f"{datetime_from_us(HOUR_US):%Y-%m-%dT%H}")
    assert closed.returncode == 0, closed.stderr
    assert "production holds 1 orderbook_deltas; 0 of them new; 0 book checkpoints" in closed.stdout
    assert "trades against the exchange's listing: not checked" in closed.stdout
    assert world.rows("SELECT count(*) FROM hour_closes") == [(1,)]
    assert "0 % of the open time of 1 market is covered" in closed.stdout
    assert run(world, "close-hour", "yesterday").returncode == 2


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BaseException | None]]:
    """Runs a command in this process with the settings of a world, and returns what it raised."""
    monkeypatch.setattr(stop_signals, "stop_on_signals", lambda _stop: None)

    def invoked(
        world: MergeWorld, function: Callable[..., None], *arguments: str, **values: str
    ) -> BaseException | None:
        for name, value in (environment(world) | values).items():
            monkeypatch.setenv(name, value)
        app = typer.Typer()
        app.command()(function)
        result = CliRunner().invoke(app, list(arguments))
        return None if isinstance(result.exception, SystemExit) and not result.exit_code else result.exception

    yield invoked
    describe_process({})


def test_what_could_not_be_done_is_not_exit_code_0(
    merge_world: World, invoke: Callable[..., BaseException | None]
) -> None:
    """An `Unfinished` ends a command with exit code 1, LockHeld with 3."""
    world = merge_world(2)
    world.gatherers["g1"].commit(orderbook_deltas=[delta_row("A", ts_us=HOUR_US + 5, seq=2)])
    nowhere = f"postgresql://u@127.0.0.1:{free_port()}/x"
    away = {"KALSHI_G2_TIMESERIES_DATABASE_URL": nowhere}
    assert str(invoke(world, dedup, "--once", **away)).startswith("not read: g2")
    assert str(invoke(world, dedup, "--seconds", "1", **away)).startswith("not read by the last pass: g2")
    hour = f"{datetime_from_us(HOUR_US):%Y-%m-%dT%H}"
    assert str(invoke(world, close_hour, hour, **away)).startswith("away, so their part is missing: g2")
    silent = {"KALSHI_CHECK_TRADES": "yes", "KALSHI_REST_URL": f"http://127.0.0.1:{free_port()}/trade-api/v2"}
    assert "not proved to be complete (not checked)" in str(invoke(world, close_hour, hour, **silent))
    running = f"{SYSTEM_CLOCK.now():%Y-%m-%dT%H}"
    assert "not marked as closed" in str(invoke(world, close_hour, running, KALSHI_CHECK_TRADES="no"))
    assert "of 2 parts these are to be done: 2" in str(invoke(world, close_hour, hour, "--bucket", "1/2"))
    assert invoke(world, close_hour, hour, "--bucket", "2/2", KALSHI_CHECK_TRADES="no") is None
    with world.production.advisory_lock("deduplicator") as lock:
        assert lock is not None
        assert isinstance(invoke(world, dedup, "--seconds", "0.5"), LockHeld)
    assert invoke(world, dedup, "--seconds", "1") is None
    gone = invoke(world, dedup, "--seconds", "0.5", KALSHI_PRODUCTION_DATABASE_URL=nowhere)
    assert isinstance(gone, Unfinished)
    assert str(gone).startswith("production is away: ")


def test_a_thousand_deltas_that_were_deleted_from_production_come_back_exactly(
    merge_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = merge_world(2)
    for name, value in environment(world).items():
        monkeypatch.setenv(name, value)
    app = typer.Typer()
    app.command()(close_hour)
    deltas = every(0.5, 4_000)
    record(world.gatherers["g1"], 1, deltas[:3_000])
    record(world.gatherers["g2"], 2, deltas[1_000:], book_e2=1_000 + 100 * 1_000)

    def held() -> tuple[list[tuple[Any, ...]], ...]:
        rows = world.rows("SELECT * FROM orderbook_deltas ORDER BY exchange_ts, gatherer")
        return (
            rows,
            ranges(world),
            world.rows("SELECT * FROM book_checkpoints ORDER BY checkpoint_ts, ticker, stream_id, seq"),
        )

    first = CliRunner().invoke(app, [f"{HOUR:%Y-%m-%dT%H}"], catch_exceptions=False)
    assert "production holds 4,000 orderbook_deltas" in first.stdout
    before = held()
    assert all(before)
    with world.production.transaction() as transaction:
        transaction.execute("SELECT setseed(0.5)")
        gone = transaction.execute(
            "DELETE FROM orderbook_deltas WHERE (exchange_ts, ticker, occurrence) IN"
            " (SELECT exchange_ts, ticker, occurrence FROM orderbook_deltas ORDER BY random() LIMIT 1000)"
        )
    assert gone == 1_000
    again = CliRunner().invoke(app, [f"{HOUR:%Y-%m-%dT%H}"], catch_exceptions=False)
    assert "1,000 of them new" in again.stdout
    assert held() == before


def test_close_hour_tells_what_is_covered_and_whose_claims_disagree(merge_world: World) -> None:
    world = merge_world(2)
    for number, (gatherer, step) in enumerate(zip(world.gatherers.values(), (1, 2), strict=True), start=1):
        deltas = [
            delta_row("A", ts_us=HOUR_US + second * US_PER_S, seq=seq, stream_id=number)
            for seq, second in enumerate(range(1, 38, step), start=3)
        ]
        gatherer.commit(
            orderbook_snapshots=[
                snapshot_row(ticker, received_us=HOUR_US, seq=seq, stream_id=number, yes={3000: 70})
                for seq, ticker in enumerate(("A", "Q"), start=1)
            ],
            orderbook_deltas=deltas,
            segments=[(number, 1, len(deltas) + 2)],
            book_subscriptions=[(number, "A", 1, None), (number, "Q", 2, None)],
        )
    closed = run(world, "close-hour", f"{datetime_from_us(HOUR_US):%Y-%m-%dT%H}")
    assert closed.returncode == 0, closed.stderr
    # The seconds 2 to 36, of one market of two.
    assert "0.47 % of the open time of 2 markets is covered" in closed.stdout
    assert "books: 1 proved, 1 failed, 0 with nothing to check" in closed.stdout
    assert "ALARM: streams that claim the same time differ: A\n" in closed.stdout


def test_the_live_merge_tells_how_it_is_stops_at_a_signal_and_says_what_it_did(merge_world: World) -> None:
    world, port = merge_world(1), free_port()
    process = subprocess.Popen(
        [*COMMAND, "dedup", "--metrics-port", str(port)],
        env=environment(world) | {"KALSHI_LOG_FORMAT": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        world.gatherers["g1"].commit(orderbook_deltas=[delta_row("A", ts_us=HOUR_US + 5, seq=2)])
        until(lambda: world.rows("SELECT count(*) FROM orderbook_deltas") == [(1,)])
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            told = json.loads(answer.read())
        assert (told["service"], told["state"]) == ("deduplicator", "running")
        row = 'kalshi_deduplicator_rows_inserted_total{table="orderbook_deltas"} 1.0'
        until(lambda: row in urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode())
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert "into production: 1 orderbook_deltas" in output
    lines = [json.loads(line) for line in errors.splitlines()]
    assert ("live_merge_state_changed", "stopped") in [(line["event"], line.get("state")) for line in lines]
    assert {line["service"] for line in lines} == {"deduplicator"}
