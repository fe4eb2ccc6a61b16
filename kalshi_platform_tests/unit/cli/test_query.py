"""`query`: answers from a lake as tables, JSON and CSV, and refusals in words."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kalshi_platform.cli.main import app
from kalshi_platform.errors import ConfigurationError, HoleInRange, MissingPartition
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform_tests.fixtures.lake import HOUR, at, cover, put

LEVELS = {"yes_price_e4": [4_000], "yes_count_e2": [250], "no_price_e4": [5_500], "no_count_e2": [100]}


@pytest.fixture
def lake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    folder = tmp_path / "lake"
    monkeypatch.setenv("KALSHI_LAKE_ROOT", folder.as_uri())
    store = FolderStore(FolderRoot(folder))
    put(store, "book_checkpoints", HOUR, {"ticker": "A", "checkpoint_ts": at(0), **LEVELS})
    put(store, "orderbook_deltas", HOUR, share=0.9)
    cover(store, HOUR, ("A", 0, 30), ("A", 31, 60))
    put(store, "trades", HOUR, {"exchange_ts": at(5), "ticker": "A"}, {"exchange_ts": at(6), "ticker": "B"})
    return store


def query(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["query", *arguments])


def test_a_book_is_shown_from_yes_or_refused_with_the_hole(lake: FolderStore) -> None:
    shown = query("book", "A", "--at", "2026-11-20T04:10")
    assert shown.exit_code == 0, shown.output
    assert "proven, from the checkpoint of 2026-11-20T04:00:00+00:00" in shown.output
    assert "| ask  | 0.4500" in shown.output
    rows = json.loads(query("book", "A", "--at", "2026-11-20T04:10", "--json").output)
    assert rows[1] == {"side": "bid", "price_dollars": "0.4000", "contracts": "2.50", "exact": True}
    refused = query("book", "A", "--at", "2026-11-20T04:45").exception
    assert isinstance(refused, HoleInRange)
    assert refused.from_ts == at(30)
    assert "ask with --mark to get what is there, or list them with kalshi-platform query holes" in str(refused)
    assert "approximate" in query("book", "A", "--at", "2026-11-20T04:45", "--mark").output


def test_trades_holes_and_estimates_come_as_csv_and_json(lake: FolderStore) -> None:
    csv = query("trades", "A", "--raw", "--from", "2026-11-20T04", "--csv").output.splitlines()
    assert len(csv) == 2
    assert csv[0].startswith("exchange_ts,ticker,trade_id,")
    (hole,) = json.loads(query("holes", "A", "--from", "2026-11-20T04", "--json").output)
    assert (hole["ticker"], hole["reason"]) == ("A", "not covered")
    shown = query("estimate", "raw/trades", "raw/orderbook_deltas", "--from", "2026-11-20T04", "--to", "2026-11-20T06")
    assert "| raw/trades" in shown.output
    assert "2 rows" in shown.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trades", "--from", "yesterday"), "--from: 'yesterday' is not a time"),
        (("trades", "--from", "2026-11-20T04", "--to", "2026-11-20T04"), "is not after --from"),
        (("candles", "--from", "2026-11-20T04", "--period", "5m"), "there are candles of 1m, 1h, 1d"),
        (("holes", "A", "--from", "2026-11-20T04", "--json", "--csv"), "exclude each other"),
    ],
)
def test_what_cannot_be_answered_is_said_before_anything_is_read(
    lake: FolderStore, arguments: tuple[str, ...], said: str
) -> None:
    error = query(*arguments).exception
    assert isinstance(error, ConfigurationError)
    assert said in error.problems[0]


def test_a_missing_hour_is_named(lake: FolderStore) -> None:
    error = query("trades", "--raw", "--from", (HOUR + timedelta(hours=3)).isoformat()).exception
    assert isinstance(error, MissingPartition)
    assert "2026-11-20-07:00 (missing)" in str(error)
