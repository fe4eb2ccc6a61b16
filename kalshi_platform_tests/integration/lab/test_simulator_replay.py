"""A recorded capture as an exchange, and the exchange as a process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import requests

from kalshi_platform.lab.simulator.replay.recording import record
from kalshi_platform.lab.simulator.settings import ReplaySettings
from kalshi_platform.market.records import SessionClosed
from kalshi_platform_tests.fixtures.captures import ORDERBOOK, recording
from kalshi_platform_tests.fixtures.exchange import RawClient, eventually, running_exchange
from kalshi_platform_tests.fixtures.journal_recorder import START_NS, Recorder, delta, snapshot

COMMAND = "import sys; from kalshi_platform.cli.main import main; sys.argv.insert(1, 'exchange'); sys.exit(main())"
START_US = 1_795_380_000_000_000


def recorded(path: Path, kind: str) -> list[dict[str, Any]]:
    frames = [json.loads(line)["frame"] for line in path.read_text(encoding="utf-8").splitlines()]
    return [frame["msg"] for frame in frames if frame["type"] == kind]


def test_two_subscribers_receive_the_whole_capture_with_numbers_of_their_own(tmp_path: Path) -> None:
    capture = tmp_path / "capture.jsonl"
    record(capture, markets=8, messages=2_000, rate=5_000, start_us=START_US)
    settings = ReplaySettings(capture=capture, speed=0, wait_subscribers=2)
    with running_exchange(tmp_path, replay=settings) as exchange:
        tickers = sorted({msg["market_ticker"] for msg in recorded(capture, "orderbook_snapshot")})
        with RawClient(exchange) as one, RawClient(exchange) as two:
            for client in (one, two):
                client.reply(client.send("subscribe", channels=["trade", "ticker"]))
            one.subscribe_books(tickers)
            assert exchange.state()["replay"]["started"] is False
            for ticker in tickers:
                two.send("subscribe", channels=["orderbook_delta"], market_tickers=[ticker])
            deltas = recorded(capture, "orderbook_delta")
            for client in (one, two):
                count = Counter(frame["type"] for frame in client.frames)["orderbook_delta"]
                while count < len(deltas):
                    count += client.receive()["type"] == "orderbook_delta"
                assert [f["msg"] for f in client.frames if f["type"] == "orderbook_delta"] == deltas
                seqs = [f["seq"] for f in client.frames if "seq" in f and f["type"].startswith("orderbook")]
                assert seqs == sorted(seqs)
            books = [f["msg"] for f in one.frames if f["type"] == "orderbook_snapshot"]
            snapshots = {msg["market_ticker"]: msg for msg in recorded(capture, "orderbook_snapshot")}
            assert {msg["market_ticker"]: msg for msg in books} == snapshots
        eventually(lambda: exchange.state()["replay"]["finished"])
        with RawClient(exchange) as late:
            late.subscribe_books(tickers)
            held = {f["msg"]["market_ticker"]: f["msg"] for f in late.frames if f["type"] == "orderbook_snapshot"}
        for ticker in tickers:
            exact = exchange.book(ticker)
            printed = [
                [int(p.replace(".", "")), int(s.replace(".", ""))] for p, s in held[ticker].get("yes_dollars_fp", [])
            ]
            assert printed == [list(level) for level in exact["yes"]]
        markets = requests.get(exchange.rest_url + "/markets", params={"status": "open"}, timeout=10).json()["markets"]
        assert sorted(market["ticker"] for market in markets) == tickers


def test_a_real_recording_is_served_with_its_own_times(tmp_path: Path) -> None:
    capture = recording(ORDERBOOK)
    with running_exchange(tmp_path, replay=ReplaySettings(capture=capture, speed=0, wait_subscribers=1)) as exchange:
        markets = requests.get(exchange.rest_url + "/markets", timeout=10).json()["markets"]
        tickers = [market["ticker"] for market in markets]
        assert len(tickers) == 12
        with RawClient(exchange) as client:
            client.subscribe_books(tickers)
            deltas = [client.until_type("orderbook_delta")["msg"] for _ in range(245)]
        assert deltas == recorded(capture, "orderbook_delta")
        assert [f["seq"] for f in client.frames if "seq" in f] == list(range(1, 12 + 245 + 1))
        assert exchange.state()["replay"]["skipped"] == 0
        assert len(requests.get(exchange.rest_url + "/events", timeout=10).json()["events"]) > 1
        batch = requests.get(exchange.rest_url + "/markets/orderbooks", params={"tickers": tickers}, timeout=10).json()
        assert len(batch["orderbooks"]) == 12


def test_a_journal_is_served_as_it_was_received(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "journal")
    recorder.write(11, [snapshot(5), delta(2), delta(3)])
    recorder.write(12, [snapshot(7), delta(4)])
    recorder.mark(11, SessionClosed(11, START_NS, "test"))
    recorder.write(12, [delta(5)])
    recorder.close()
    settings = ReplaySettings(capture=tmp_path / "journal", speed=0, wait_subscribers=1)
    with running_exchange(tmp_path, replay=settings) as exchange:
        assert exchange.state()["replay"]["gatherer"] == "g1"
        with RawClient(exchange) as client:
            client.subscribe_books(["KX-A"])
            received = [client.until_type("orderbook_delta")["msg"] for _ in range(4)]
        assert client.frames[1]["msg"] == snapshot(5)["msg"]
        assert received == [delta(number)["msg"] for number in (2, 3, 4, 5)]
        eventually(lambda: exchange.state()["replay"]["finished"])
        assert exchange.book("KX-A")["yes"] == [(1200, 900)]


def start_process(tmp_path: Path, *arguments: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    addresses = tmp_path / "addresses.json"
    # SIGINT is ignored at birth, as background shells do it.
    program = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); " + COMMAND
    files = ["--key-file", str(tmp_path / "key.pem"), "--address-file", str(addresses)]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments, "--port", "0", *files],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    eventually(addresses.exists, within_s=30, what="the address file")
    return process, json.loads(addresses.read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_stops_cleanly_on_a_signal_with_a_whole_ledger(tmp_path: Path, number: signal.Signals) -> None:
    truth = tmp_path / "truth"
    process, addresses = start_process(
        tmp_path, "serve", "--markets", "12", "--rate", "500", "--births", "120", "--truth", str(truth)
    )
    try:
        assert addresses["pid"] == process.pid
        state = addresses["control_url"] + "/state"

        def is_busy() -> bool:
            published = requests.get(state, timeout=10).json()["published"]
            return bool(published["delta"] > 500) and published["lifecycle"] > 3 and published["trade"] > 5

        eventually(is_busy)
        process.send_signal(number)
        output, _ = process.communicate(timeout=10)
    finally:
        process.kill()
    assert process.returncode == 0
    assert addresses["rest_url"] in output

    def rows(table: str) -> list[dict[str, Any]]:
        return [row for part in sorted(truth.glob(f"{table}-*.parquet")) for row in pq.read_table(part).to_pylist()]

    tables = {table: rows(table) for table in ("deltas", "trades", "tickers", "lifecycle", "books", "markets")}
    # Nothing that was numbered is missing, and the books at the end are those of the beginning and all deltas.
    numbers = sorted(row["n"] for table in ("deltas", "trades", "tickers", "lifecycle") for row in tables[table])
    assert numbers == list(range(1, len(numbers) + 1))
    levels: dict[tuple[str, str, int], int] = {}
    for row in tables["books"]:
        if row["phase"] == "first":
            levels[row["ticker"], row["side"], row["price_e4"]] = row["size_e2"]
    for row in tables["deltas"]:
        key = (row["ticker"], row["side"], row["price_e4"])
        levels[key] = levels.get(key, 0) + row["delta_e2"]
    last = {
        (row["ticker"], row["side"], row["price_e4"]): row["size_e2"]
        for row in tables["books"]
        if row["phase"] == "last"
    }
    assert {key: size for key, size in levels.items() if size} == last
    born = {row["ticker"] for row in tables["lifecycle"] if row["event_type"] == "created"}
    assert born <= {row["ticker"] for row in tables["markets"]}


def test_the_command_stops_by_itself_after_its_seconds(tmp_path: Path) -> None:
    process, _ = start_process(tmp_path, "serve", "--markets", "2", "--seconds", "0.2")
    assert process.wait(10) == 0
    process.communicate()


def test_a_missing_capture_is_a_configuration_error(tmp_path: Path) -> None:
    arguments = ["replay", str(tmp_path / "absent"), "--port", "0", "--key-file", str(tmp_path / "key.pem")]
    found = subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    assert found.returncode == 2
    assert "does not exist" in found.stderr
