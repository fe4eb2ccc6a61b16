"""The naive gatherer: websocket-client as it comes, `json`, `Decimal`, `execute_values` of 1,000.

It records the same stream into the same tables with the same keys and ledger, and counts sequence numbers as the real
one does, in a receiving and a writing thread. What it leaves out (gaps, a journal, unknown shapes, REST) costs it
nothing.
`python -m kalshi_platform.lab.bench.gatherer.naive_gatherer SPEC`; ends on SIGINT.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg2
import psycopg2.extras
import websocket

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.exchange.signing import Signer
from kalshi_platform.lab.bench import host
from kalshi_platform.lab.bench.host import HostSpec
from kalshi_platform.local.processes.stop_signals import stop_on_signals

PAGE = 1_000
MOST_WAITING = 200_000
FLUSH_S = 0.2
SESSION_ID = 1
_COLUMNS = {
    "orderbook_deltas": "exchange_ts, ticker, stream_id, seq, side, price_e4, delta_e2, occurrence, received_at",
    "trades": "exchange_ts, ticker, trade_id, yes_price_e4, no_price_e4, count_e2, taker_side, is_block_trade,"
    " source, stream_id, seq, received_at",
    "tickers": "exchange_ts, ticker, fingerprint, price_e4, yes_bid_e4, yes_ask_e4, yes_bid_size_e2, yes_ask_size_e2,"
    " last_trade_size_e2, volume_e2, open_interest_e2, dollar_volume, dollar_open_interest, stream_id, seq,"
    " received_at",
    "orderbook_snapshots": "snapshot_ts, ticker, source, stream_id, seq, yes_price_e4, yes_count_e2, no_price_e4,"
    " no_count_e2, received_at",
}
_TIME_COLUMN = 0

Row = tuple[Any, ...]


class NaiveGatherer:
    """One connection for everything, one database connection."""

    def __init__(self, spec: HostSpec, stop: threading.Event) -> None:
        self._spec = spec
        self._stop = stop
        self._change = threading.Condition()
        self._rows: dict[str, list[Row]] = {table: [] for table in _COLUMNS}
        self._waiting = 0
        self._last_seq: dict[int, int] = {}
        self._unwritten: dict[int, list[int]] = {}
        self._times: dict[int, list[datetime]] = {}
        self._streams: list[Row] = []
        self._book_subscriptions: list[Row] = []
        self._occurrences: Counter[Row] = Counter()
        self._unnumbered = 0
        self.commits: dict[int, int] = {}
        self.committed: dict[str, int] = dict.fromkeys(_COLUMNS, 0)

    # -- receiving

    def receive(self) -> None:
        """Subscribe, then take frames until the end."""
        spec = self._spec
        signer = Signer(spec.key_id, Path(spec.key_file).read_bytes())
        headers = signer.headers("GET", urlsplit(spec.ws_url).path, SYSTEM_CLOCK.now_ns() // 1_000_000)
        line = websocket.create_connection(spec.ws_url, header=headers)
        line.settimeout(0.5)
        self._ask(line, 1, ["trade", "ticker"], ())
        self._ask(line, 2, ["orderbook_delta"], spec.tickers)
        while not self._stop.is_set():
            try:
                text = line.recv()
            except websocket.WebSocketTimeoutException:
                continue
            received_at = SYSTEM_CLOCK.now()
            self._take(json.loads(text), received_at)
        line.close()

    @staticmethod
    def _ask(line: Any, number: int, channels: list[str], tickers: tuple[str, ...]) -> None:
        params: dict[str, Any] = {"channels": channels, "use_yes_price": False}
        if tickers:
            params["market_tickers"] = list(tickers)
        line.send(json.dumps({"id": number, "cmd": "subscribe", "params": params}))

    def _take(self, frame: dict[str, Any], received_at: datetime) -> None:
        kind, msg = frame["type"], frame["msg"]
        if kind == "subscribed":
            with self._change:
                self._streams.append((msg["sid"], SESSION_ID, msg["sid"], msg["channel"], received_at))
            return
        sid, seq = frame["sid"], frame.get("seq")
        if seq is not None:
            if seq != self._last_seq.get(sid, 0) + 1:
                raise RuntimeError(f"sid {sid}: number {seq} after {self._last_seq.get(sid, 0)}")
            self._last_seq[sid] = seq
        if kind == "orderbook_delta":
            table, row = "orderbook_deltas", self._delta(msg, sid, seq, received_at)
        elif kind == "orderbook_snapshot":
            table, row = kind + "s", self._snapshot(msg, sid, seq, received_at)
        elif kind == "trade":
            table, row = "trades", self._trade(msg, sid, seq, received_at)
        elif kind == "ticker":
            table, row = "tickers", self._ticker(msg, sid, received_at)
        else:
            return
        with self._change:
            while self._waiting >= MOST_WAITING and not self._stop.is_set():
                self._change.wait(FLUSH_S)
            self._rows[table].append(row)
            self._waiting += 1
            if kind == "orderbook_snapshot":
                self._book_subscriptions.append((sid, msg["market_ticker"], seq))
            if seq is not None:
                self._unwritten.setdefault(sid, [seq, seq])[1] = seq
                if kind == "orderbook_delta":
                    self._times.setdefault(sid, []).append(row[_TIME_COLUMN])

    def _delta(self, msg: dict[str, Any], sid: int, seq: int | None, received_at: datetime) -> Row:
        exchange_ts = datetime.fromisoformat(msg["ts"])
        price = int(Decimal(msg["price_dollars"]) * 10_000)
        change = int(Decimal(msg["delta_fp"]) * 100)
        key = (sid, exchange_ts, msg["market_ticker"], msg["side"], price, change)
        occurrence = self._occurrences[key]
        self._occurrences[key] += 1
        return exchange_ts, msg["market_ticker"], sid, seq, msg["side"], price, change, occurrence, received_at

    @staticmethod
    def _snapshot(msg: dict[str, Any], sid: int, seq: int | None, received_at: datetime) -> Row:
        sides = [
            sorted((int(Decimal(price) * 10_000), int(Decimal(size) * 100)) for price, size in msg.get(side, ()))
            for side in ("yes_dollars_fp", "no_dollars_fp")
        ]
        levels = [[level[part] for level in side] for side in sides for part in (0, 1)]
        return received_at, msg["market_ticker"], "ws", sid, seq, *levels, received_at

    @staticmethod
    def _trade(msg: dict[str, Any], sid: int, seq: int | None, received_at: datetime) -> Row:
        return (
            _moment(msg["ts_ms"]), msg["market_ticker"], msg["trade_id"],
            int(Decimal(msg["yes_price_dollars"]) * 10_000), int(Decimal(msg["no_price_dollars"]) * 10_000),
            int(Decimal(msg["count_fp"]) * 100), msg.get("taker_outcome_side") or msg.get("taker_side"),
            bool(msg.get("is_block_trade")), "ws", sid, seq, received_at,
        )  # fmt: skip

    def _ticker(self, msg: dict[str, Any], sid: int, received_at: datetime) -> Row:
        self._unnumbered -= 1
        content = (
            *(_scaled(msg.get(name), 10_000) for name in ("price_dollars", "yes_bid_dollars", "yes_ask_dollars")),
            *(_scaled(msg.get(name), 100) for name in ("yes_bid_size_fp", "yes_ask_size_fp", "last_trade_size_fp")),
            *(_scaled(msg.get(name), 100) for name in ("volume_fp", "open_interest_fp")),
            msg.get("dollar_volume"),
            msg.get("dollar_open_interest"),
        )
        digest = hashlib.blake2b(json.dumps([msg["market_ticker"], *content]).encode(), digest_size=8).digest()
        fingerprint = int.from_bytes(digest, "big", signed=True)
        moment = _moment(msg["ts_ms"])
        return moment, msg["market_ticker"], fingerprint, *content, sid, self._unnumbered, received_at

    # -- writing

    def write(self) -> None:
        """Commit what came, every 1,000 rows or 0.2 s, until the end."""
        with contextlib.closing(psycopg2.connect(self._spec.timeseries_url)) as connection:
            self._prepare(connection)
            while not self._stop.is_set() or self._waiting:
                with self._change:
                    if self._waiting < PAGE and not self._stop.is_set():
                        self._change.wait(FLUSH_S)
                self._commit(connection)

    def _prepare(self, connection: Any) -> None:
        now = SYSTEM_CLOCK.now()
        with connection.cursor() as cursor:
            for table in _COLUMNS:
                span = (table, now - timedelta(hours=1), now + timedelta(hours=3))
                cursor.execute("SELECT ensure_partitions(%s, %s, %s)", span)
            cursor.execute(
                "INSERT INTO sessions VALUES (%s, 'naive', 'all', %s, false, %s)", (SESSION_ID, self._spec.ws_url, now)
            )
        connection.commit()

    def _commit(self, connection: Any) -> None:
        with self._change:
            rows, self._rows = self._rows, {table: [] for table in _COLUMNS}
            unwritten, self._unwritten = self._unwritten, {}
            times, self._times = self._times, {}
            streams, self._streams = self._streams, []
            book_subscriptions, self._book_subscriptions = self._book_subscriptions, []
            self._waiting = 0
            self._change.notify_all()
        if not any(rows.values()) and not streams:
            return
        with connection.cursor() as cursor:

            def insert(table: str, columns: str, values: list[Row]) -> None:
                statement = f"INSERT INTO {table} ({columns}) VALUES %s ON CONFLICT DO NOTHING"  # noqa: S608
                psycopg2.extras.execute_values(cursor, statement, values, page_size=PAGE)

            cursor.execute("UPDATE batch_counter SET last_batch_no = last_batch_no + 1 RETURNING last_batch_no")
            batch_no = int(cursor.fetchone()[0])
            for table, found in rows.items():
                if found:
                    insert(table, f"{_COLUMNS[table]}, batch_no", [(*row, batch_no) for row in found])
            insert("streams", "stream_id, session_id, sid, channel, opened_at", streams)
            insert(
                "stream_segments",
                "stream_id, seq_from, seq_to, exchange_ts_min, exchange_ts_max, batch_no",
                [
                    (sid, *span, min(times.get(sid, ()), default=None), max(times.get(sid, ()), default=None), batch_no)
                    for sid, span in unwritten.items()
                ],
            )
            insert(
                "book_subscriptions",
                "stream_id, ticker, seq_from, batch_no",
                [(*each, batch_no) for each in book_subscriptions],
            )
            insert(
                "batches",
                "batch_no, table_name, rows, time_min, time_max",
                [
                    (batch_no, table, len(found), min(row[0] for row in found), max(row[0] for row in found))
                    for table, found in rows.items()
                    if found
                ],
            )
        connection.commit()
        self.commits[batch_no] = SYSTEM_CLOCK.now_ns()
        for table, found in rows.items():
            self.committed[table] += len(found)


def _moment(ts_ms: int) -> datetime:
    return datetime.fromtimestamp(ts_ms / 1_000, UTC)


def _scaled(text: str | None, scale: int) -> int | None:
    return int(Decimal(text) * scale) if text else None


def main() -> None:
    """Record until SIGINT."""
    spec = HostSpec.read(sys.argv[1])
    stop = threading.Event()
    stop_on_signals(stop)
    naive = NaiveGatherer(spec, stop)
    threads = [threading.Thread(target=naive.write, name="writer"), threading.Thread(target=naive.receive, name="line")]
    for thread in threads:
        thread.start()
    cpu = host.report_until(Path(spec.folder), stop, lambda: dict(naive.committed))
    for thread in threads:
        thread.join()
    host.finish(Path(spec.folder), naive.commits, cpu)


if __name__ == "__main__":
    main()
