"""The catalog in the lake: what markets, events and series were at the end of each day."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl

from kalshi_platform.lake.export import export_daily
from kalshi_platform.lake.settings import LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform_tests.fixtures.production import Production

DAY = date(2026, 11, 20)
MIDNIGHT = datetime(2026, 11, 20, tzinfo=UTC)
MARKET = {
    "ticker": "KXRAIN-26NOV20-T0.25",
    "event_ticker": "KXRAIN-26NOV20",
    "market_type": "binary",
    "title": "Rain above 0.25 in?",
    "yes_sub_title": "Above 0.25 in",
    "open_time": "2026-11-19T16:00:00Z",
    "close_time": "2026-11-20T20:00:00Z",
    "settlement_ts": "0001-01-01T00:00:00Z",
    "status": "active",
    "result": "",
    "strike_type": "greater",
    "floor_strike": 0.25,
    "rules_primary": "If it rains more than 0.25 in, …",
    "settlement_timer_seconds": 3600,
    "can_close_early": True,
    "price_level_structure": "linear_cent",
    "price_ranges": [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
    "exchange_index": 0,
}
SETTLED = {
    "status": "finalized",
    "result": "yes",
    "settlement_value_dollars": "1.000000",
    "settlement_ts": "2026-11-20T21:00:00.25Z",
}


def put(production: Production, kind: str, known_from: datetime, known_until: datetime | None, **fields: Any) -> None:
    """Insert one version of an object of the catalog."""
    status = (fields["status"],) if kind == "markets" else ()
    columns = "ticker, valid_from, valid_to, fingerprint, payload" + (", status" if status else "")
    values = (fields["ticker"], known_from, known_until, 1, json.dumps(fields), *status)
    marks = ", ".join(["%s"] * len(values))
    production.execute(f"INSERT INTO {kind}_history ({columns}) VALUES ({marks})", *values)


def exported(settings: LakeSettings, production: Production, key: str, day: date, folder: Path) -> list[dict[str, Any]]:
    export_daily(settings, production.url, key, day, "closed")
    store, rows = open_store(settings), list[dict[str, Any]]()
    for item in store.list(f"{key}/date={day}/"):
        if item.path.endswith(".parquet"):
            file = folder / Path(item.path).name
            file.write_bytes(store.read(item.path) or b"")
            rows += pl.read_parquet(file).to_dicts()
    return rows


def test_a_market_stands_in_each_day_until_the_one_after_its_settlement(
    lake_settings: LakeSettings, production: Production, tmp_path: Path
) -> None:
    production.close_hour(*(MIDNIGHT + timedelta(days=day) for day in (-1, 0, 1, 2)))
    first, settled = MIDNIGHT - timedelta(hours=8), MIDNIGHT + timedelta(hours=21)
    put(production, "markets", first, settled, **MARKET)
    put(production, "markets", settled, None, **MARKET | SETTLED)
    days = {
        day: exported(lake_settings, production, "processed/markets", DAY + timedelta(days=day), tmp_path)
        for day in (-1, 0, 1, 2)
    }
    (before,), (after,) = days[-1], days[0]
    # Production may have learned of it after the day was exported.
    assert [(each["result"], each["known_from"]) for each in days[1]] == [("yes", settled)]
    assert not days[2]
    assert (before["status"], before["result"], before["settlement_value_dollars"]) == ("active", None, None)
    assert before["settlement_ts"] is None
    assert (after["status"], after["result"], after["settlement_value_dollars"]) == ("finalized", "yes", Decimal(1))
    assert after["settlement_ts"] == datetime(2026, 11, 20, 21, 0, 0, 250_000, tzinfo=UTC)
    assert (after["floor_strike"], after["cap_strike"], after["strike_type"]) == (0.25, None, "greater")
    assert after["settlement_timer_s"] == 3600
    assert json.loads(after["price_ranges"]) == MARKET["price_ranges"]
    assert (after["as_of"], after["known_from"]) == (MIDNIGHT + timedelta(days=1, microseconds=-1), settled)


def test_a_field_that_cannot_be_read_costs_that_field_alone(
    lake_settings: LakeSettings, production: Production, tmp_path: Path
) -> None:
    production.close_hour(MIDNIGHT)
    strange = {"floor_strike": "a lot", "open_time": "2026-02-31T00:00:00Z", "close_time": "soon", "cap_strike": 1e3}
    put(production, "markets", MIDNIGHT, None, **MARKET | strange)
    (found,) = exported(lake_settings, production, "processed/markets", DAY, tmp_path)
    assert (found["floor_strike"], found["open_time"], found["close_time"]) == (None, None, None)
    assert (found["cap_strike"], found["title"]) == (1000.0, MARKET["title"])


def test_events_and_series_of_a_day_are_those_of_its_markets(
    lake_settings: LakeSettings, production: Production, tmp_path: Path
) -> None:
    production.close_hour(MIDNIGHT)
    early = MIDNIGHT - timedelta(days=3)
    put(production, "markets", early, None, **MARKET)
    put(production, "events", early, None, ticker="KXRAIN-26NOV20", title="Rain", series_ticker="KXRAIN",
        mutually_exclusive=True, strike_date="2026-11-20T05:00:00Z")  # fmt: skip
    put(production, "events", early, None, ticker="KXOLD-26NOV01", title="Over", series_ticker="KXRAIN")
    put(production, "events", MIDNIGHT, None, ticker="KXNEW-26DEC01", title="New", series_ticker="KXRAIN")
    put(production, "series", early, None, ticker="KXRAIN", title="Rain", fee_multiplier=0.5, tags=["wet"])
    events = exported(lake_settings, production, "processed/events", DAY, tmp_path)
    assert [each["ticker"] for each in events] == ["KXNEW-26DEC01", "KXRAIN-26NOV20"]
    assert (events[1]["mutually_exclusive"], events[1]["series_ticker"]) == (True, "KXRAIN")
    assert events[1]["strike_date"] == datetime(2026, 11, 20, 5, tzinfo=UTC)
    (series,) = exported(lake_settings, production, "processed/series", DAY, tmp_path)
    assert (series["fee_multiplier"], series["tags"], series["known_from"]) == (0.5, '["wet"]', early)
