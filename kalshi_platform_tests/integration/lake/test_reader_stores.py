"""The reader on a folder and on S3: frames, scans and estimates of the same rows; hot hours from production."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from kalshi_platform.errors import ConfigurationError, HoleInRange, MissingPartition
from kalshi_platform.lake import reader
from kalshi_platform.lake.export import export_daily, export_raw
from kalshi_platform.lake.reader import source as reader_source
from kalshi_platform.lake.settings import BucketRoot, LakeSettings
from kalshi_platform.lake.store import open_store
from kalshi_platform.lake.store.s3 import S3Store
from kalshi_platform_tests.fixtures.lake import HOUR, at, cover, put
from kalshi_platform_tests.fixtures.production import Production

ONE = timedelta(hours=1)
US = timedelta(microseconds=1)
TRADE_IDS = [str(uuid.UUID(int=number * 2**100 + 7)) for number in range(4)]


def test_scans_give_the_rows_of_frames_and_estimates_count_their_files(lake_settings: LakeSettings) -> None:
    store = open_store(lake_settings)
    for hour in (HOUR, HOUR + ONE):
        put(store, "orderbook_deltas", hour, *({"exchange_ts": hour + ONE / 2, "ticker": each} for each in "ABC"))
        cover(store, hour, ("A", 0, 60), ("B", 0, 60), ("C", 0, 50))
    frame = reader.deltas(lake_settings, at(0), at(120), ["A", "B"])
    scanned = reader.scan_deltas(lake_settings, at(0), at(120), ["A", "B"])
    assert scanned.collect().sort("ticker", "exchange_ts").equals(frame)
    assert scanned.collect_schema() == frame.schema
    assert scanned.filter(pl.col("ticker") == "B").select(pl.len()).collect().item() == 2
    with pytest.raises(HoleInRange, match="C from"):
        reader.scan_deltas(lake_settings, at(0), at(120))
    everything = reader.scan_deltas(lake_settings, at(0), at(180), holes="allow")
    assert everything.select(pl.len()).collect().item() == 6
    with pytest.raises(MissingPartition):
        reader.scan_deltas(lake_settings, at(0), at(180), ["A"])
    found = reader.estimate(lake_settings, ["raw/orderbook_deltas", "raw/trades"], at(0), at(180), ["A"])
    assert found.drop("bytes").rows() == [("raw/orderbook_deltas", 2, 1, 2, 6), ("raw/trades", 0, 3, 0, 0)]
    assert found["bytes"][0] > 0
    assert reader.estimate(lake_settings, "raw/orderbook_deltas", at(0), at(60), ["Z"])["files"].to_list() == [0]


def test_a_scan_is_refused_where_polars_would_not_trust_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    settings = LakeSettings("s3://bucket/lake", ca_file=tmp_path / "ca.pem", access_key_id="k", secret_access_key="s")
    store = S3Store(BucketRoot("bucket", "lake"), replace(settings, ca_file=None))
    assert "aws_allow_http" not in store.scan_options
    strict = S3Store(BucketRoot("bucket", "lake"), settings)
    with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE .*ca\.pem"):
        _ = strict.scan_options
    monkeypatch.setenv("SSL_CERT_FILE", "ca.pem")
    assert strict.scan_options == store.scan_options


def test_trades_have_text_identifiers_exact_decimals_and_zones(
    lake_settings: LakeSettings, production: Production
) -> None:
    ids = [*TRADE_IDS, "no-uuid"]
    rows = [
        {"exchange_ts": at(number), "ticker": "A", "trade_id": each, "yes_price_e4": 1 + number, "count_e2": 3}
        for number, each in enumerate(ids)
    ]
    production.insert("trades", rows)
    production.close_hour(HOUR)
    day = HOUR.replace(hour=0)
    export_raw(lake_settings, production.url, "trades", HOUR, "closed")
    export_daily(lake_settings, production.url, "processed/trades", day.date(), "closed")
    raw = reader.trades(lake_settings, at(0), at(60))
    assert raw["trade_id"].to_list() == ids
    assert "trade_id_text" not in raw.columns
    scanned = reader.scan_trades(lake_settings, at(0), at(60))
    assert scanned.collect().equals(raw)
    lazily = reader.scan_trades(lake_settings, at(1), at(3), ["A"], layer="processed").collect()
    assert lazily.select("trade_id", "yes_price_dollars", "exchange_ts").rows() == [
        (ids[1], Decimal("0.0002"), at(1)),
        (ids[2], Decimal("0.0003"), at(2)),
    ]
    assert lazily.schema["exchange_ts"] == pl.Datetime("us", "UTC")
    assert lazily.schema["yes_price_dollars"] == pl.Decimal(9, 4)


def fill(production: Production, hours: int) -> None:
    moments = [at(60 * hour + minute) for hour in range(hours) for minute in (0, 30)]
    moments += [at(60 * hour) - US for hour in range(1, hours + 1)]
    production.insert("orderbook_deltas", [{"exchange_ts": each, "ticker": t} for each in moments for t in "AB"])
    production.insert("trades", [{"exchange_ts": each, "ticker": "A", "trade_id": f"{each}"} for each in moments])
    spans = [
        {"ticker": "A", "from_ts": at(60 * hour), "to_ts": at(60 * hour + 60), "hour": at(60 * hour)}
        for hour in range(hours)
    ]
    production.insert("coverage", spans)


def test_hours_that_the_lake_lacks_come_from_production_without_a_seam(
    production: Production, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(production, 4)
    hours = [at(60 * number) for number in range(4)]
    for hour in hours:
        production.active_hour(hour)
    production.close_hour(*hours[:3])
    lake = LakeSettings((tmp_path / "lake").as_uri())
    for hour in hours[:2]:
        for table in ("orderbook_deltas", "trades", "coverage"):
            export_raw(lake, production.url, table, hour, "closed")

    def read(end: datetime) -> tuple[pl.DataFrame, pl.DataFrame]:
        url = production.url
        return (
            reader.deltas(lake, at(0), end, ["A"], production_url=url),
            reader.trades(lake, at(0), end, ["A"], production_url=url),
        )

    deltas, trades = read(at(240))
    expected = production.rows("SELECT exchange_ts FROM orderbook_deltas WHERE ticker = 'A' ORDER BY 1")
    assert deltas["exchange_ts"].to_list() == [row[0] for row in expected]
    assert trades.height == len(expected)
    assert deltas.schema == reader.deltas(lake, at(0), at(60), ["A"]).schema
    assert reader.holes(lake, at(0), at(240), ["A"], production_url=production.url).rows() == [
        ("A", at(180), at(240), "the hour is not closed yet")
    ]
    with pytest.raises(MissingPartition):
        reader.deltas(lake, at(0), at(240), ["A"])
    count = sum(isinstance(each, reader.Delta) for each in reader.replay(
        lake, at(0), at(240), ["A"], production_url=production.url
    ))  # fmt: skip
    assert count == deltas.height

    # An hour that is exported while it is read from production is read once: from the lake, which has it whole.
    original = reader_source.hot_batches

    def export_meanwhile(*args: object) -> object:
        found = list(original(*args))  # type: ignore[arg-type]
        for table in ("orderbook_deltas", "trades"):
            export_raw(lake, production.url, table, hours[2], "closed")
        return iter(found)

    monkeypatch.setattr(reader_source, "hot_batches", export_meanwhile)
    again, _ = read(at(180))
    assert again.equals(deltas.filter(pl.col("exchange_ts") < at(180)))
