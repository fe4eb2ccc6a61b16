"""A recorded capture goes through replay, three gatherers, the merge and the lake: nothing lost, nothing twice."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import duckdb
import psutil
import pytest

from kalshi_platform_tests.acceptance import capture_truth
from kalshi_platform_tests.acceptance.capture_truth import BookLevels
from kalshi_platform_tests.fixtures.captures import ORDERBOOK, recording
from kalshi_platform_tests.fixtures.stack import (
    clean_environment,
    command,
    count,
    processes_of,
    read_json,
    rows,
    wait_for,
)

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(360), pytest.mark.xdist_group("recordings")]
DELTAS = 245
MARKETS = 12
MARGIN = timedelta(seconds=1)


@dataclass
class Run:
    """A stack that has seen the whole capture: where its databases and its lake were, and what they held."""

    production: Counter[tuple[Any, ...]]
    coverage: list[tuple[Any, ...]]
    gatherers: dict[str, int]
    books_from_production: dict[str, BookLevels]
    books_from_lake: dict[str, BookLevels]
    lake_deltas: int
    left_behind: list[str]


@contextmanager
def replayed(capture: Path, folder: Path, speed: str) -> Iterator[dict[str, Any]]:
    addresses = folder / "exchange.json"
    arguments = ["exchange", "replay", str(capture), "--port", "0", "--wait-subscribers", "3", "--speed", speed]
    arguments += ["--key-file", str(folder / "key.pem"), "--address-file", str(addresses)]
    with command(arguments, clean_environment(), folder, folder / "replay.log"):
        yield wait_for("the replayed exchange", lambda: read_json(addresses), 30)


def run_stack(
    capture: Path,
    folder: Path,
    *,
    speed: str = "8",
    disturb: Callable[[dict[str, Any], str], None] | None = None,
    whole: Sequence[str] = ("g1", "g2", "g3"),
) -> Run:
    """Replay `capture` to a headless stack; `disturb` gets its pids and the production URL while it runs.

    `whole`: the gatherers that must come to hold all of it.
    """
    folder.chmod(0o755)
    with replayed(capture, folder, speed) as exchange:
        env = clean_environment(
            KALSHI_REST_URL=exchange["rest_url"],
            KALSHI_WS_URL=exchange["ws_url"],
            KALSHI_API_KEY_ID=exchange["key_id"],
            KALSHI_PRIVATE_KEY_PATH=str(exchange["key_file"]),
        )
        data = folder / "data"
        log = folder / "up.log"
        with command(["up", "--headless", "--seconds", "180", "--data", str(data)], env, folder, log) as up:
            local = wait_for("local.json", lambda: read_json(data / "local.json"), 60)
            production = local["databases"]["production"]
            if disturb is not None:
                disturb(local["processes"], production)
            survivors = {name: urls["timeseries"] for name, urls in sorted(local["databases"]["gatherers"].items())}
            wait_for("all deltas in production", lambda: count(production, "orderbook_deltas") >= DELTAS, 90)
            for name in whole:
                url = survivors[name]
                wait_for(f"all deltas at {name}", partial(holds_all, url), 90)
            stored = {name: count(url, "orderbook_deltas") for name, url in survivors.items()}
            for name in survivors:
                # A killed one is started again, and one that is stopped while it starts leaves a part in its journal.
                wait_for(f"{name} runs", partial(is_running, Path(local["state_dir"]) / name / "heartbeat.json"), 90)
            up.send_signal(signal.SIGTERM)
            assert up.wait(90) == 0, log.read_text()
        left = processes_of(str(data))
        with command(["up", "--databases-only", "--data", str(data)], env, folder, folder / "databases.log"):
            local = wait_for("the databases again", lambda: _reopened(data, local), 60)
            production = local["databases"]["production"]
            found = rows(production, "SELECT exchange_ts, ticker, side, price_e4, delta_e2 FROM orderbook_deltas")
            coverage = rows(production, "SELECT ticker, from_ts, to_ts FROM coverage ORDER BY ticker, from_ts")
            books = _fold_production(production)
        lake = Path(unquote(urlsplit(local["lake"]).path))
    return Run(
        production=Counter(found),
        coverage=coverage,
        gatherers=stored,
        books_from_production=books,
        books_from_lake=_fold_lake(lake),
        lake_deltas=_lake_count(lake),
        left_behind=left,
    )


def _reopened(data: Path, before: dict[str, Any]) -> dict[str, Any] | None:
    local = read_json(data / "local.json")
    return local if local and local["pid"] != before["pid"] else None


def _fold(checkpoints: list[tuple[Any, ...]], changes: list[tuple[Any, ...]]) -> dict[str, BookLevels]:
    """Fold the first checkpoint of every market and all later changes."""
    books: dict[str, BookLevels] = {}
    starts: dict[str, Any] = {}
    for ticker, moment, yes_prices, yes_counts, no_prices, no_counts in checkpoints:
        if ticker in books:
            continue
        starts[ticker] = moment
        books[ticker] = {
            (side, Decimal(price) / 10_000): Decimal(size) / 100
            for side, prices, sizes in (("yes", yes_prices, yes_counts), ("no", no_prices, no_counts))
            for price, size in zip(prices, sizes, strict=True)
        }
    for ticker, moment, side, price, delta in changes:
        if ticker in books and moment > starts[ticker]:
            key = (side, Decimal(price) / 10_000)
            books[ticker][key] = books[ticker].get(key, Decimal(0)) + Decimal(delta) / 100
    return {ticker: {key: size for key, size in book.items() if size} for ticker, book in books.items()}


_CHECKPOINT_COLUMNS = "ticker, checkpoint_ts, yes_price_e4, yes_count_e2, no_price_e4, no_count_e2"


def _fold_production(url: str) -> dict[str, BookLevels]:
    return _fold(
        rows(url, f"SELECT {_CHECKPOINT_COLUMNS} FROM book_checkpoints ORDER BY checkpoint_ts, stream_id"),
        rows(url, "SELECT ticker, exchange_ts, side, price_e4, delta_e2 FROM orderbook_deltas"),
    )


def _fold_lake(lake: Path) -> dict[str, BookLevels]:
    with duckdb.connect() as connection:
        checkpoints = connection.execute(
            f"SELECT {_CHECKPOINT_COLUMNS}"
            f" FROM read_parquet('{lake}/open/raw/book_checkpoints/**/*.parquet', union_by_name=true)"
            " ORDER BY checkpoint_ts, stream_id"
        ).fetchall()
        changes = connection.execute(
            "SELECT ticker, exchange_ts, side, price_e4, delta_e2"
            f" FROM read_parquet('{lake}/open/raw/orderbook_deltas/**/*.parquet', union_by_name=true)"
        ).fetchall()
    return _fold(checkpoints, changes)


def _lake_count(lake: Path) -> int:
    with duckdb.connect() as connection:
        found = connection.execute(
            f"SELECT count(*) FROM read_parquet('{lake}/open/raw/orderbook_deltas/**/*.parquet', union_by_name=true)"
        ).fetchone()
    assert found is not None
    return int(found[0])


def every_sweep_is_whole(run: Run, capture: Path) -> bool:
    """Whether production has all deltas of each moment at which the exchange changed several levels of a market."""
    held: Counter[tuple[Any, ...]] = Counter()
    for (moment, ticker, *_), number in run.production.items():
        held[moment, ticker] += number
    swept = capture_truth.sweeps(capture)
    assert len(swept) >= 8
    return all(held[place] == number for place, number in swept.items())


def covered_as_far_as_can_be_told(run: Run, capture: Path) -> bool:
    """Whether coverage claims the capture but for a second at either end, however long ago it was recorded."""
    moments = [moment for moment, *_ in capture_truth.natural_rows(capture)]
    low, high = min(moments) + MARGIN + timedelta(microseconds=1), max(moments) - MARGIN
    return run.coverage == [(ticker, low, high) for ticker in sorted(capture_truth.final_books(capture))]


def is_running(heartbeat_file: Path) -> bool:
    """Whether the process that wrote the heartbeat lives and records."""
    beat = read_json(heartbeat_file)
    return beat is not None and beat["state"] == "running" and psutil.pid_exists(beat["pid"])


def holds_all(url: str) -> bool:
    return count(url, "orderbook_deltas") >= DELTAS


def _check(run: Run, capture: Path) -> None:
    assert sum(run.production.values()) == DELTAS
    assert run.production == capture_truth.natural_rows(capture)
    truth = capture_truth.final_books(capture)
    assert len(truth) == MARKETS
    assert run.books_from_production == truth
    assert run.books_from_lake == truth
    assert run.lake_deltas == DELTAS
    assert run.left_behind == []
    assert every_sweep_is_whole(run, capture)
    assert covered_as_far_as_can_be_told(run, capture), run.coverage


def test_every_delta_reaches_production_once_and_every_book_folds_to_the_captures_end(tmp_path: Path) -> None:
    capture = recording(ORDERBOOK)
    run = run_stack(capture, tmp_path)
    assert run.gatherers == {"g1": DELTAS, "g2": DELTAS, "g3": DELTAS}
    _check(run, capture)


def kill_database_server(data: Path, name: str) -> None:
    """SIGKILL the server that everything of gatherer `name` needs."""
    pointer = data / "postgres" / name / "cluster.location"
    cluster = Path(pointer.read_text().strip()) if pointer.exists() else pointer.with_name("cluster")
    os.kill(int((cluster / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)


def test_many_equal_deltas_and_a_killed_gatherer_and_a_killed_database_lose_nothing_that_was_seen(
    tmp_path: Path,
) -> None:
    """With times in milliseconds only, as frames without `ts` have them, many deltas are equal in every column."""
    capture = capture_truth.without_ts(recording(ORDERBOOK), tmp_path / "milliseconds.jsonl")
    equal = [key for key, number in capture_truth.natural_rows(capture).items() if number > 1]
    assert len(equal) == 16

    def kill_one(pids: dict[str, int], production: str) -> None:
        wait_for("a third of the deltas", lambda: count(production, "orderbook_deltas") >= DELTAS // 3, 90)
        assert count(production, "orderbook_deltas") < DELTAS
        os.kill(pids["gather-g2"], signal.SIGKILL)
        kill_database_server(tmp_path / "data", "g1")

    run = run_stack(capture, tmp_path, speed="4", disturb=kill_one, whole=("g1", "g3"))
    assert run.gatherers["g1"] == run.gatherers["g3"] == DELTAS
    assert run.gatherers["g2"] < DELTAS
    _check(run, capture)
