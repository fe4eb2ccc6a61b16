"""The SQL functions of production: every example of the documentation, and books against the fold of the package."""

from __future__ import annotations

import json
import random
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from kalshi_platform.catalog.known import known_at
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.market.records import Side
from kalshi_platform.market.times import HOUR, datetime_from_us, us_from_datetime
from kalshi_platform_tests.fixtures.production import (  # noqa: F401 - fixtures
    Production,
    production,
    production_template,
)
from kalshi_platform_tests.fixtures.reference_book import LevelChange, fold

DOCUMENT = Path(__file__).parents[3] / "docs" / "queries.md"
EXAMPLE = re.compile(r"^```sql\n(?P<query>.*?)^```\n\n```text\n(?P<result>.*?)^```$", re.DOTALL | re.MULTILINE)
TICKER = "KXRAINNYC-26NOV20-T0.25"
H4 = datetime(2026, 11, 20, 4, tzinfo=UTC)
US = timedelta(microseconds=1)


def at(minute: float) -> datetime:
    return H4 + timedelta(minutes=minute)


def cover(production: Production, ticker: str, low: datetime, high: datetime) -> None:  # noqa: F811
    production.keeper.ensure_hours("coverage", [us_from_datetime(low)])
    production.execute(
        "INSERT INTO coverage (ticker, from_ts, to_ts, hour, gatherers, stream_ids)"
        " VALUES (%s, %s, %s, date_trunc('hour', %s, 'UTC'), '{g1}', '{1}')",
        ticker, low, high, low,
    )  # fmt: skip


def remember(
    production: Production,  # noqa: F811
    table: str,
    ticker: str,
    since: datetime,
    until: datetime | None,
    **payload: Any,
) -> None:
    production.execute(
        f"INSERT INTO {table}_history (ticker, valid_from, valid_to, fingerprint, payload) VALUES (%s, %s, %s, 1, %s)",
        ticker, since, until, json.dumps(payload),
    )  # fmt: skip
    if table == "markets":
        production.execute("UPDATE markets_history SET status = %s WHERE valid_from = %s", payload["status"], since)


def fill(production: Production) -> None:  # noqa: F811
    """The example of the documentation."""
    book = {"yes_price_e4": [5500, 5600], "yes_count_e2": [30000, 12000]}
    book |= {"no_price_e4": [4000, 4100], "no_count_e2": [5000, 2500]}
    production.insert("book_checkpoints", [{"checkpoint_ts": at(5 / 60), "ticker": TICKER, **book}])
    polled = {
        "snapshot_ts": at(45),
        "received_at": at(45) + timedelta(seconds=2),
        "source": "rest",
        "source_gatherer": "",
    }
    production.insert("orderbook_snapshots", [{**polled, "ticker": TICKER, **book}])
    changes = [(10, "yes", 5600, -2000), (20, "yes", 5700, 1000), (20, "no", 4100, -2500), (40, "no", 4200, 800)]
    production.insert(
        "orderbook_deltas",
        [
            {"exchange_ts": at(minute), "ticker": TICKER, "side": side, "price_e4": price, "delta_e2": delta}
            for minute, side, price, delta in changes
        ],
    )
    cover(production, TICKER, at(5 / 60) + US, at(35))
    cover(production, TICKER, at(50), H4 + HOUR)
    trades = [(10, "t1", 5600, 2000, "no", False, "ws"), (20, "t2", 5900, 2500, "yes", False, "rest")]
    trades += [(30, "t3", 5800, 100_000, "no", True, "ws")]
    names = ("trade_id", "yes_price_e4", "count_e2", "taker_side", "is_block_trade", "source")
    production.insert(
        "trades",
        [
            {"exchange_ts": at(minute), "ticker": TICKER, **dict(zip(names, rest, strict=True))}
            for minute, *rest in trades
        ],
    )
    now = SYSTEM_CLOCK.now() - timedelta(minutes=1)
    tops = [(TICKER, 5700, 1000, 6000, 5000, 5900), ("KXRAINNYC-26NOV20-T0.50", 2100, 550, 2300, 725, None)]
    columns = ("ticker", "yes_bid_e4", "yes_bid_size_e2", "yes_ask_e4", "yes_ask_size_e2", "price_e4")
    quotes = [dict(zip(columns, top, strict=True)) for top in tops]
    old = [{**quote, "yes_bid_e4": 1, "exchange_ts": now - timedelta(seconds=5)} for quote in quotes]
    production.insert("tickers", [*old, *({**quote, "exchange_ts": now} for quote in quotes)])
    production.close_hour(H4)
    production.execute("UPDATE hour_closes SET rows = %s", json.dumps({"orderbook_deltas": len(changes)}))
    production.execute(
        "INSERT INTO trade_checks (hour, state, checked_at, production_count, rest_count, inserted)"
        " VALUES (%s, 'filled', now(), 2, 3, 1)", H4,
    )  # fmt: skip
    production.execute(
        "INSERT INTO trade_parity VALUES (%s, %s, false, 1, 2000, 2, 4500, 1, 0, 0, 1, 'filled', now()),"
        " (%s, %s, true, 1, 100000, 1, 100000, 0, 0, 0, 0, 'complete', now())",
        H4, TICKER, H4, TICKER,
    )  # fmt: skip
    production.keeper.ensure_hours("book_proofs", [us_from_datetime(H4)])
    production.execute(
        "INSERT INTO book_proofs VALUES (%s, %s, 'proved', 1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0, '')", H4, TICKER
    )
    learned, settled = H4 - timedelta(hours=16), at(25 * 60 + 0.5)
    event = "KXRAINNYC-26NOV20"
    remember(production, "series", "KXRAINNYC", learned, None, title="Rain in New York", category="Weather")
    remember(production, "events", event, learned, None, series_ticker="KXRAINNYC", title="Rain on the 20th?")
    market = {"event_ticker": event, "title": "More than 0.25 inch?", "open_time": "2026-11-19T12:00:00Z"}
    market |= {"close_time": "2026-11-21T05:00:00Z", "result": ""}
    remember(production, "markets", TICKER, learned, settled, **market, status="active")
    remember(production, "markets", TICKER, settled, None, **{**market, "result": "yes"}, status="finalized")


def shown(production: Production, query: str) -> str:  # noqa: F811
    """A result as the documentation prints it."""
    with production.database.transaction() as transaction, transaction.connection.cursor() as cursor:
        cursor.execute(query)
        names = [column.name for column in cursor.description]
        rows = [[text(value) for value in row] for row in cursor.fetchall()]
    widths = [max(len(row[index]) for row in [names, *rows]) for index in range(len(names))]
    lines = [" | ".join(value.ljust(width) for value, width in zip(row, widths, strict=True)) for row in [names, *rows]]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def text(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:%Y-%m-%d %H:%M:%S}+00" if isinstance(value, datetime) else str(value)


def test_every_example_of_the_documentation_gives_what_it_shows(production: Production) -> None:  # noqa: F811
    fill(production)
    document = DOCUMENT.read_text(encoding="utf-8")
    examples = list(EXAMPLE.finditer(document))
    assert len(examples) == document.count("```sql") >= 12
    for example in examples:
        assert shown(production, example["query"]) == example["result"], example["query"]


def test_every_function_is_explained_and_shown(production: Production) -> None:  # noqa: F811
    document = DOCUMENT.read_text(encoding="utf-8")
    made = (Path(__file__).parents[3] / "sql/production/350_questions.sql").read_text(encoding="utf-8")
    names = set(re.findall(r"CREATE OR REPLACE FUNCTION (\w+)", made))
    explained = production.rows(
        "SELECT proname::text FROM pg_proc WHERE proname = ANY (%s) AND obj_description(oid, 'pg_proc') <> ''",
        sorted(names),
    )
    assert {name for (name,) in explained} == names
    assert {name for name in names if name not in document} <= {"dollars"}


@pytest.mark.parametrize("seed", range(3))
def test_a_book_at_a_time_is_what_the_package_folds(production: Production, seed: int) -> None:  # noqa: F811
    rng = random.Random(seed)
    start = us_from_datetime(H4)
    sides: tuple[Side, Side] = ("yes", "no")
    yes = tuple((price, rng.randint(1, 9) * 100) for price in (4000, 4150, 4300))
    no = tuple((price, rng.randint(1, 9) * 100) for price in (5000, 5100))
    sizes: dict[tuple[Side, int], int] = {("yes", price): size for price, size in yes}
    sizes |= {("no", price): size for price, size in no}
    changes: dict[tuple[int, Side, int, int], LevelChange] = {}
    while len(changes) < 200:
        side, price = rng.choice(sides), rng.randrange(4000, 4500, 50)
        moment = start + 1 + len(changes) // 3 * 1_000_000
        delta = rng.choice([-sizes.get((side, price), 0), rng.randint(1, 500)])
        if delta and (moment, side, price, delta) not in changes:
            sizes[side, price] = sizes.get((side, price), 0) + delta
            changes[moment, side, price, delta] = LevelChange(moment, side, price, delta)
    # Neither another market's change nor one of the checkpoint's own moment counts.
    other = [
        {"ticker": ticker, "side": "yes", "price_e4": 4000, "delta_e2": 5, "exchange_ts": moment}
        for ticker, moment in (("KXB-2", at(0.1)), (TICKER, H4))
    ]
    rows = [
        {"ticker": TICKER, "side": c.side, "price_e4": c.price_e4, "delta_e2": c.delta_e2,
         "exchange_ts": datetime_from_us(c.exchange_ts_us)}
        for c in changes.values()
    ]  # fmt: skip
    production.insert("orderbook_deltas", [*rows, *other])
    checkpoint = {
        "yes_price_e4": [price for price, _ in yes], "yes_count_e2": [size for _, size in yes],
        "no_price_e4": [price for price, _ in no], "no_count_e2": [size for _, size in no],
    }  # fmt: skip
    production.insert("book_checkpoints", [{"checkpoint_ts": H4, "ticker": TICKER, **checkpoint}])
    cover(production, TICKER, H4 + US, H4 + HOUR)
    times = sorted(rng.sample(sorted({c.exchange_ts_us for c in changes.values()}), 12))
    for moment in [start, *times, *(each - 1 for each in times), start + 3_599_999_999]:
        book = fold(yes, no, [change for change in changes.values() if change.exchange_ts_us <= moment])
        found = production.rows("SELECT * FROM book_at(%s, %s)", TICKER, datetime_from_us(moment))
        assert [(side, price, size) for side, price, size, *_ in found] == [
            *(("yes", *level) for level in book.yes), *(("no", *level) for level in book.no)
        ]  # fmt: skip
        assert {(state, base) for *_, state, base in found} == {("proven", H4)}


def test_a_book_says_when_it_is_not_proven(production: Production) -> None:  # noqa: F811
    fill(production)

    def state(minute: float) -> set[tuple[object, ...]]:
        return set(production.rows("SELECT state, base_ts FROM book_at(%s, %s)", TICKER, at(minute)))

    assert state(34) == {("proven", at(5 / 60))}
    assert state(35) == {("approximate", at(5 / 60))}, "the claim ends before this moment"
    assert state(52) == {("approximate", at(45) + timedelta(seconds=2))}, "the polled book is newer than the checkpoint"
    basis = "SELECT state, base FROM book_basis(%s, %s)"
    assert production.rows(basis, TICKER, H4) == [("unknown", None)]
    assert production.rows(basis, "KXNO-SUCH", at(20)) == [("unknown", None)]
    assert production.rows("SELECT * FROM best_bid_offer(%s, %s)", "KXNO-SUCH", at(20)) == [
        (None, None, None, None, None, "unknown")
    ]
    # A checkpoint after the hole proves again; a change that cannot be makes the book approximate whatever is claimed.
    production.insert("book_checkpoints", [{"checkpoint_ts": at(51), "ticker": TICKER}])
    assert production.rows(basis, TICKER, at(52)) == [("proven", "checkpoint")]
    assert production.rows("SELECT * FROM book_at(%s, %s)", TICKER, at(52)) == []
    impossible = {"side": "yes", "price_e4": 100, "delta_e2": -1}
    production.insert("orderbook_deltas", [{"exchange_ts": at(55), "ticker": TICKER, **impossible}])
    assert {row[0] for row in state(56)} == {"approximate"}
    assert production.rows("SELECT bid_dollars FROM best_bid_offer(%s, %s)", TICKER, at(56)) == [(None,)]


def test_holes_join_over_hours_and_end_with_the_span(production: Production) -> None:  # noqa: F811
    cover(production, TICKER, H4 - HOUR + timedelta(minutes=10), H4)
    cover(production, TICKER, H4, H4 + timedelta(minutes=20))
    cover(production, "KXB-2", H4 - HOUR, H4 + HOUR)

    def holes(low: datetime, high: datetime) -> list[tuple[Any, ...]]:
        return production.rows("SELECT * FROM coverage_holes(%s, %s, %s)", TICKER, low, high)

    assert holes(H4 - HOUR, H4 + HOUR) == [(H4 - HOUR, at(-50)), (at(20), H4 + HOUR)]
    assert holes(at(-30), at(20)) == []
    assert holes(at(-30), at(21)) == [(at(20), at(21))]
    assert holes(at(60), at(61)) == [(at(60), at(61))]
    assert holes(at(61), at(61)) == []


def test_the_catalog_as_known_comes_as_a_frame(production: Production) -> None:  # noqa: F811
    fill(production)
    found = known_at(production.url, "markets", at(120))
    assert found.select("ticker", "status", "result").rows() == [(TICKER, "active", None)]
    assert found["close_time"][0] == datetime(2026, 11, 21, 5, tzinfo=UTC)
    assert json.loads(found["payload"][0])["title"] == "More than 0.25 inch?"
    assert known_at(production.url, "markets", at(60 * 30))["result"].to_list() == ["yes"]
    assert known_at(production.url, "events", H4 - timedelta(days=2)).height == 0
    assert known_at(production.url, "series", at(0))["title"].to_list() == ["Rain in New York"]
    with pytest.raises(ValueError, match="zone"):
        known_at(production.url, "markets", at(0).replace(tzinfo=None))
