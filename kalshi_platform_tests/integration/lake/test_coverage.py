"""What production says is complete, in the lake: per market, with the reason of each hole; and books by it."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl

from kalshi_platform.errors import LakeArchived
from kalshi_platform.lake import reader
from kalshi_platform.lake.export import export_daily, export_raw
from kalshi_platform.lake.settings import FolderRoot, LakeSettings
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.market.times import hour_of
from kalshi_platform_tests.fixtures.production import Production

DAY = datetime(2026, 11, 20, tzinfo=UTC)
HOUR = DAY.replace(hour=4)
ONE = timedelta(hours=1)
US = timedelta(microseconds=1)
BOOKS = ("orderbook_deltas", "orderbook_snapshots", "book_checkpoints", "coverage")


def at(minutes: float) -> datetime:
    """A moment by minutes after the first recorded hour began."""
    return HOUR + timedelta(minutes=minutes)


def cover(production: Production, *spans: tuple[str, float, float]) -> None:
    rows = [
        {"ticker": ticker, "from_ts": at(low), "to_ts": at(high), "hour": hour_of(at(low))}
        for ticker, low, high in spans
    ]
    production.insert("coverage", rows)


def close(production: Production, *hours: datetime) -> None:
    for hour in hours:
        production.active_hour(hour)
    production.close_hour(*hours)
    production.execute("UPDATE hour_closes SET covered_us = 1")


def add_market(production: Production, ticker: str, opens: datetime, closes: datetime) -> None:
    production.execute(
        "INSERT INTO markets (ticker, event_ticker, open_time, close_time, status, payload, fingerprint, first_seen_at,"
        " known_at) VALUES (%s, 'E', %s, %s, 'active', '{}', 0, now(), now())",
        ticker,
        opens,
        closes,
    )


def prove(production: Production, ticker: str, hour: datetime, verdict: str) -> None:
    production.keeper.ensure_hours("book_proofs", [int(hour.timestamp() * 1_000_000)])
    production.execute(
        "INSERT INTO book_proofs SELECT %s, %s, %s, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ''", hour, ticker, verdict
    )


def test_every_moment_of_a_followed_market_is_proven_claimed_or_a_hole_with_its_reason(
    production: Production, tmp_path: Path
) -> None:
    add_market(production, "A", at(-60), at(150))
    cover(production, ("A", 10, 60), ("A", 60, 90), ("A", 91, 120), ("A", 120, 150), ("B", 60, 120))
    close(production, HOUR, HOUR + ONE, HOUR + 2 * ONE)
    prove(production, "A", HOUR, "proved")
    prove(production, "A", HOUR + ONE, "proved")
    prove(production, "A", HOUR + 2 * ONE, "unproved")
    production.keeper.ensure_hours("stream_claims", [int(at(121).timestamp() * 1_000_000)])
    production.execute(
        "INSERT INTO stream_claims VALUES (%s, 'B', 'g1', 1, %s, %s, 5, 5, 'claims disagree')",
        HOUR + 2 * ONE,
        at(125),
        at(130),
    )
    production.execute("UPDATE hour_closes SET gatherers_missed = '{g3}' WHERE hour = %s", HOUR + 2 * ONE)
    lake = LakeSettings((tmp_path / "lake").as_uri())
    manifest = export_daily(lake, production.url, "processed/coverage", DAY.date(), "closed")
    frame = reader.read(lake, "processed/coverage", DAY, DAY + timedelta(days=1))
    assert manifest.rows == frame.height
    midnight, next_midnight = DAY, DAY + timedelta(days=1)
    assert frame.filter(ticker="A").drop("ticker").rows() == [
        (midnight, at(-60), "hole", "the market was not open yet"),
        (at(-60), at(10), "hole", "recording had not begun"),
        (at(10), at(90), "proven", None),
        (at(90), at(91), "hole", "not covered"),
        (at(91), at(120), "proven", None),
        (at(120), at(150), "claimed", None),
        (at(150), next_midnight, "hole", "the market was closed"),
    ]
    assert frame.filter(ticker="B").drop("ticker").rows() == [
        (midnight, at(10), "hole", "recording had not begun"),
        (at(10), at(60), "hole", "the market was not followed yet"),
        (at(60), at(120), "claimed", None),
        (at(120), at(125), "hole", "not covered; not read by the close: g3"),
        (at(125), at(130), "hole", "the claim was withdrawn: claims disagree"),
        (at(130), at(180), "hole", "not covered; not read by the close: g3"),
        (at(180), next_midnight, "hole", "nothing was recorded in the hour"),
    ]
    # The reader gives these reasons, and a market that was not open has no hole.
    for hour in (HOUR, HOUR + ONE, HOUR + 2 * ONE):
        for table in BOOKS:
            export_raw(lake, production.url, table, hour, "closed")
    holes = reader.holes(lake, at(60), at(180), ["A"])
    assert holes.rows() == [
        ("A", at(90), at(91), "not covered"),
        ("A", at(150), at(180), "the market was closed"),
    ]
    assert reader.deltas(lake, at(100), at(180), ["A"]).height == 0
    # When raw files are archived, the day still tells.
    archived = _Archived(FolderRoot(tmp_path / "lake"))
    assert reader.holes(archived, at(60), at(180), ["A"]).equals(holes)
    assert reader.holes(archived, at(60), at(180)).height == reader.holes(lake, at(60), at(180)).height


class _Archived(FolderStore):
    """A lake whose raw files lie in an archive class."""

    def open(self, path: str) -> BinaryIO | None:
        if path.startswith("raw/"):
            raise LakeArchived(f"{path} is archived")
        return super().open(path)


def fill_books(production: Production, chance: random.Random, tickers: list[str]) -> None:
    """Two hours of random checkpoints, polled books, deltas and coverage."""
    for ticker in tickers:
        low = 0.0
        spans = []
        while low < 120:
            high = min(low + chance.uniform(5, 40), 120.0)
            for edge in (60.0,):
                if low < edge < high:
                    spans.append((ticker, low, edge))
                    low = edge
            spans.append((ticker, low, high))
            low = high + (chance.uniform(0.1, 6) if chance.random() < 0.6 else 0)
            if low < 60 < high:
                low = 60.0
        cover(production, *spans)
        book: dict[str, Any] = {"yes_price_e4": [5_000], "yes_count_e2": [10_000], "no_price_e4": [], "no_count_e2": []}
        checkpoints = [{"ticker": ticker, "checkpoint_ts": at(chance.uniform(0, 119)), **book} for _ in range(6)]
        production.insert("book_checkpoints", checkpoints)
        polled = [chance.randrange(120) for _ in range(8)]
        snapshots = [
            {
                "ticker": ticker,
                "snapshot_ts": at(minute),
                "received_at": at(minute + chance.uniform(0, 1)),
                "source": "rest",
                "seq": minute,
                **book,
            }
            for minute in sorted(set(polled))
        ]
        production.insert("orderbook_snapshots", snapshots)
        deltas = [
            {
                "ticker": ticker,
                "exchange_ts": at(chance.uniform(0, 119.9)),
                "side": chance.choice(["yes", "no"]),
                "price_e4": chance.choice([4_900, 5_000]),
                "delta_e2": chance.choice([100, 200, -100]),
                "occurrence": number,
            }
            for number in range(60)
        ]
        production.insert("orderbook_deltas", deltas)


def test_books_of_the_lake_are_those_of_production_at_random_moments(production: Production, tmp_path: Path) -> None:
    chance = random.Random(11)
    tickers = [f"KX-{number}" for number in range(3)]
    fill_books(production, chance, tickers)
    hours = (HOUR, HOUR + ONE)
    close(production, *hours)
    lake = LakeSettings((tmp_path / "lake").as_uri())
    for hour in hours:
        for table in BOOKS:
            export_raw(lake, production.url, table, hour, "closed")
    states: dict[str, int] = {}
    empty = LakeSettings((tmp_path / "empty").as_uri())
    for number in range(50):
        ticker, moment = chance.choice(tickers), at(chance.uniform(0, 119.99))
        found = reader.find_book(lake, ticker, moment)
        (basis,) = production.rows(
            "SELECT state, base, base_ts, uncovered_from FROM book_basis(%s, %s)", ticker, moment
        )
        levels = production.rows("SELECT side, price_e4, count_e2, state FROM book_at(%s, %s)", ticker, moment)
        state = levels[0][3] if levels else basis[0]
        assert (found.state, found.base, found.base_ts) == (state, *basis[1:3]), (ticker, moment)
        if basis[1] is not None:
            assert found.uncovered_from == basis[3], (ticker, moment)
        assert sorted(found.levels.rows()) == sorted(level[:3] for level in levels), (ticker, moment)
        if number < 6:
            hot = reader.find_book(empty, ticker, moment, production_url=production.url, look_back=3 * ONE)
            assert (hot.state, hot.base_ts) == (found.state, found.base_ts)
            assert hot.levels.equals(found.levels)
        states[state] = states.get(state, 0) + 1
    assert {"proven", "approximate"} <= set(states), states
    assert isinstance(found.levels, pl.DataFrame)
