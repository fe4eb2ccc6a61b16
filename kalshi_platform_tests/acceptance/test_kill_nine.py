"""`kill -9` of a gatherer at random moments: what it read is in its database, and its ledger claims nothing else.

A real gatherer process records from a simulated exchange into a real PostgreSQL (with fsync) and is killed again and
again: while it starts, subscribes and commits; while its server is down; while its server is paused in the middle of a
commit (SIGSTOP); and while it commits what had waited in the journal. After every kill, as soon as the server answers,
all that the ledger says is compared with what the exchange wrote to that very socket: each number of each committed
segment must be a frame that was sent, and each such delta, snapshot, trade and lifecycle frame a row with that content;
no row may lie outside the segments; and whatever the merge would claim as complete must be complete.

Before each kill the process is stopped, and the bytes that it has not read are taken from the kernel: of each
connection the journal must hold exactly the frames that were sent, without these. At the end every frame of the journal
is in the database.

    KALSHI_KILLS=50 pytest kalshi_platform_tests/acceptance/test_kill_nine.py -s

kills 50 times (the default is 6) and prints what was compared; KALSHI_KILL_SEED chooses other moments.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from kalshi_platform.deduplicator.coverage.gatherer_hour import read_claims
from kalshi_platform.deduplicator.settings import GathererSource
from kalshi_platform.gatherer.status.status import GathererStatus
from kalshi_platform.lab.proof.comparison.sent_frames import compare_sent
from kalshi_platform.lab.simulator.replay.journal_segments import Frame, find_segments, read_segment
from kalshi_platform.lab.simulator.server.sent_record import read_sent
from kalshi_platform.lab.simulator.server.server import Server as SimulatedServer
from kalshi_platform.lab.simulator.server.server import ServerThread
from kalshi_platform.lab.simulator.settings import ScenarioSettings
from kalshi_platform.local.postgres.server import PostgresServer
from kalshi_platform.monitoring.heartbeat import FILE_NAME, read_file
from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import quick
from kalshi_platform_tests.fixtures.gatherer_lives import Lives
from kalshi_platform_tests.fixtures.gatherer_service import client_settings
from kalshi_platform_tests.fixtures.kernel_queues import settled, unacknowledged_bytes, unread_bytes
from kalshi_platform_tests.fixtures.sent_frames import Content, SentFrames, sent_frames
from kalshi_platform_tests.fixtures.stack import rows

KILLS = int(os.environ.get("KALSHI_KILLS", "6"))
SEED = int(os.environ.get("KALSHI_KILL_SEED", "1"))
# What a life is killed in. The server is up again, or goes on, after a life that was killed without it.
CYCLE = (
    *("recording", "server away", "catching up", "recording", "paused"),
    *("catching up", "starting", "recording", "server away", "server still away"),
)
# The simulated exchange's times never go back, and lives are short: much is to be claimed of them.
MARGIN_US = 100_000

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240 + 10 * KILLS), pytest.mark.xdist_group("recordings")]


@dataclass
class Compared:
    """What the checks saw, so that a test that compared nothing cannot pass."""

    checks: int = 0
    numbers: int = 0
    rows: int = 0
    claimed_deltas: int = 0
    killed_connections: int = 0
    unread_bytes: int = 0
    exact: int = 0
    """Killed connections whose journal ends just where the unread bytes begin."""
    journaled: int = 0


class Observer:
    """Compares the ledger with what the exchange sent."""

    def __init__(self, url: str, name: str, sent: SentFrames, published: Callable[[], list[tuple[Any, ...]]]) -> None:
        self._source = GathererSource(name, url, "")
        self._url = url
        self._name = name
        self._sent = sent
        self._published = published
        self.compared = Compared()

    def check(self) -> None:
        """Compare everything that is committed by now."""
        self.compared.checks += 1
        self._check_segments()
        self._check_claims()

    def _check_segments(self) -> None:
        streams = {
            int(stream): (self._sent.opened_by(f"({self._name} {connection})", int(opened_us) * 1_000), int(sid))
            for stream, sid, connection, opened_us in rows(
                self._url,
                "SELECT stream_id, sid, connection, (extract(epoch FROM s.opened_at) * 1000000)::bigint"
                " FROM streams t JOIN sessions s USING (session_id)",
            )
        }
        stored = self._stored()
        claimed: set[tuple[int, int]] = set()
        lost = []
        for stream, low, high in rows(self._url, "SELECT stream_id, seq_from, seq_to FROM stream_segments"):
            line, sid = streams[stream]
            frames = line.by_number()
            for seq in range(low, high + 1):
                claimed.add((stream, seq))
                wanted = frames.get((sid, seq))
                if wanted is None or (wanted[0] in ("delta", "snapshot", "trade", "lifecycle")):
                    found = stored.get((stream, seq))
                    if wanted is None or found != wanted:
                        lost.append((stream, seq, wanted, found))
        assert not lost, f"{len(lost)} numbers are claimed and not stored as sent, as {lost[:3]}"
        outside = [place for place in stored if place not in claimed]
        assert not outside, f"{len(outside)} rows lie outside all segments, as {outside[:3]}"
        self.compared.numbers, self.compared.rows = len(claimed), len(stored)

    def _stored(self) -> dict[tuple[int, int], Content]:
        queries = (
            "SELECT stream_id, seq, 'delta', ticker, side, price_e4::text, delta_e2::text FROM orderbook_deltas",
            "SELECT stream_id, seq, 'snapshot', ticker FROM orderbook_snapshots WHERE source = 'ws'",
            "SELECT stream_id, seq, 'trade', trade_id FROM trades WHERE stream_id <> 0",
            "SELECT stream_id, seq, 'lifecycle' FROM market_lifecycle",
        )
        return {(int(row[0]), int(row[1])): tuple(row[2:]) for query in queries for row in rows(self._url, query)}

    def _check_claims(self) -> None:
        now = datetime.now(UTC)
        claims = read_claims(self._source, now - timedelta(hours=1), now + timedelta(hours=1), MARGIN_US)
        query = (
            "SELECT (extract(epoch FROM exchange_ts) * 1000000)::bigint, ticker, side, price_e4, delta_e2,"
            " count(DISTINCT occurrence) FROM orderbook_deltas GROUP BY 1, 2, 3, 4, 5"
        )
        stored = {tuple(row[:5]): int(row[5]) for row in rows(self._url, query)}
        claimed = Counter(
            delta
            for delta in self._published()
            if any(low <= delta[0] < high for low, high in claims.get(delta[1], ()))
        )
        missing = [delta for delta, count in claimed.items() if stored.get(delta, 0) < count]
        assert not missing, f"{len(missing)} deltas are claimed and not stored, as {missing[:3]}"
        self.compared.claimed_deltas = claimed.total()


class Server:
    """The database server, which may be down or paused."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._paused: list[int] = []
        self._is_down = False

    def stop(self) -> None:
        if not self._is_down:
            self._server.stop("immediate")
            self._is_down = True

    def pause(self) -> None:
        pid = int((self._server.cluster / "postmaster.pid").read_text().split()[0])
        self._paused = [pid, *(child.pid for child in psutil.Process(pid).children())]
        for each in self._paused:
            os.kill(each, signal.SIGSTOP)

    def resume(self) -> None:
        """Up and running again, whatever it was."""
        for pid in reversed(self._paused):
            os.kill(pid, signal.SIGCONT)
        self._paused = []
        if self._is_down:
            self._server.start()
            self._is_down = False


def test_what_was_read_is_in_the_database_and_nothing_else_is_claimed(
    stoppable_server: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(SEED)
    scenario = ScenarioSettings(births_per_minute=30, open_after_s=0.3, life_s=4, determine_after_s=1)
    record, state = tmp_path / "sent", tmp_path / "state" / "g1"
    exchange_settings: dict[str, Any] = {"markets": 20, "rate": 400, "scenario": scenario, "seed": SEED}
    with (
        sent_frames() as sent,
        running_exchange(tmp_path, truth=tmp_path / "truth", record_sent=record, **exchange_settings) as exchange,
        Lives(_gatherer(stoppable_server, tmp_path), _exchange(exchange), tmp_path / "gatherer.log") as lives,
    ):
        server = Server(stoppable_server)
        observer = Observer(stoppable_server.url("timeseries"), "g1", sent, lambda: _published(exchange))
        unread: dict[int, int] = {}
        began = time.monotonic()
        try:
            for number in range(KILLS):
                _one_life(CYCLE[number % len(CYCLE)], lives, server, state / FILE_NAME, chance)
                unread |= _kill(lives, exchange, chance)
                if CYCLE[(number + 1) % len(CYCLE)] not in ("catching up", "server still away"):
                    server.resume()
                    observer.check()
            server.resume()
            observer.check()
            # Of the last life both sessions are open, of those that were killed none.
            began_s = time.time()
            lives.begin()
            eventually(
                lambda: (
                    rows(
                        observer._url,
                        "SELECT count(*), bool_and(opened_at > to_timestamp(%s)) FROM sessions WHERE closed_at IS NULL",
                        (began_s,),
                    )
                    == [(2, True)]
                ),
                within_s=90,
                what="the sessions of all killed processes closed",
            )
            lives.stop()
            observer.check()
        finally:
            server.resume()
        eventually(lambda: not exchange.state()["connections"])
        exchange.flush_truth()
        compared, took_s = observer.compared, time.monotonic() - began
        check_sockets(record, state / "journal", unread, compared)
        check_database(observer._url, state / "journal", compared)
    with capsys.disabled():
        print(f"\n{KILLS} kills in {took_s:.0f} s: {compared}")  # noqa: T201 - the figures are the result
    assert rows(observer._url, "SELECT count(*) FROM book_subscriptions WHERE seq_to IS NULL") == [(0,)]
    assert compared.checks > KILLS // 2
    assert compared.killed_connections > KILLS // 2
    assert compared.unread_bytes > 0
    assert compared.numbers > 20 * KILLS
    assert compared.claimed_deltas > 5 * KILLS


def _kill(lives: Lives, exchange: ServerThread, chance: random.Random) -> dict[int, int]:
    """Stop the process, send it more, kill it; return the bytes that lay unread in its sockets by connection.

    They are counted where the exchange runs: nothing is sent meanwhile.
    """

    def measure_and_kill(server: SimulatedServer) -> dict[int, int]:
        unread, _ = settled(lambda: (unread_bytes(lives.pid, server.port), unacknowledged_bytes(server.port)))
        ports = {
            connection._transport.get_extra_info("peername")[1]: connection.record.number
            for connection in server.connections
            if connection.record is not None and not connection._transport.is_closing()
        }
        lives.kill()
        return {number: unread[port] for port, number in ports.items() if port in unread}

    os.kill(lives.pid, signal.SIGSTOP)
    time.sleep(chance.uniform(0.0, 0.1))
    return exchange.call(measure_and_kill)


def check_sockets(record: Path, journal: Path, unread: dict[int, int], compared: Compared) -> None:
    """What was sent on each killed connection is what its journal has and what its process had not read."""
    found = compare_sent(record, {"g1": journal})
    assert found.problems == []
    connections = {each.number: each for each in read_sent(record)}
    for line in found.lines:
        if line.number not in unread:
            continue
        connection = connections[line.number]
        assert connection.delivered_bytes is not None
        ends = [end for _, end in connection.frames()]
        read_to = max(0, connection.delivered_bytes - unread[line.number])
        least = sum(end <= read_to for end in ends)
        # What is journaled is taken from the kernel a moment later: a kill may come between.
        most = sum(end <= connection.delivered_bytes for end in ends)
        assert least <= line.journaled <= most, (line, read_to, least, most)
        compared.killed_connections += 1
        compared.unread_bytes += unread[line.number]
        compared.exact += line.journaled == least


def check_database(url: str, journal: Path, compared: Compared) -> None:
    """Every numbered frame of the journal is in the database's ledger, and no other; and every ticker is a row."""
    numbers: set[tuple[int, int, int]] = set()
    tickers: set[tuple[str, int]] = set()
    for segment in find_segments(journal, "g1"):
        for frame in read_segment(segment):
            if not isinstance(frame, Frame) or not frame.session_id:
                continue
            compared.journaled += 1
            told = json.loads(frame.payload)
            if told.get("seq"):
                numbers.add((frame.session_id, told["sid"], told["seq"]))
            elif told["type"] == "ticker":
                tickers.add((told["msg"]["market_ticker"], told["msg"]["ts_ms"]))
    committed = {
        (int(session), int(sid), seq)
        for session, sid, low, high in rows(
            url, "SELECT session_id, sid, seq_from, seq_to FROM stream_segments JOIN streams USING (stream_id)"
        )
        for seq in range(low, high + 1)
    }
    assert committed == numbers
    stored = {
        (ticker, int(ms))
        for ticker, ms in rows(url, "SELECT ticker, (extract(epoch FROM exchange_ts) * 1000)::bigint FROM tickers")
    }
    assert stored == tickers


def _one_life(kind: str, lives: Lives, server: Server, heartbeat: Path, chance: random.Random) -> None:
    """Live up to the moment of the kill."""
    began_s = time.time()
    lives.begin()
    if kind in ("recording", "server away", "paused"):
        _soon(lambda: _follows_books(heartbeat, began_s))
    match kind:
        case "starting":
            time.sleep(chance.uniform(0.0, 0.6))
        case "recording":
            time.sleep(chance.uniform(0.0, 0.5))
        case "server away":
            time.sleep(chance.uniform(0.0, 0.6))
            server.stop()
            time.sleep(chance.uniform(0.02, 1.0))
        case "server still away":
            time.sleep(chance.uniform(0.2, 1.5))
        case "catching up":
            time.sleep(chance.uniform(0.0, 0.3))
            server.resume()
            time.sleep(chance.uniform(0.0, 1.0))
        case "paused":
            time.sleep(chance.uniform(0.0, 0.8))
            server.pause()
            time.sleep(chance.uniform(0.0, 1.5))


def _soon(condition: Callable[[], bool]) -> None:
    """Give a slow machine some time to get so far that a kill is worth it; it is one of any life in the end."""
    give_up_at = time.monotonic() + 3
    while not condition() and time.monotonic() < give_up_at:
        time.sleep(0.02)


def _follows_books(heartbeat: Path, since_s: float) -> bool:
    beat = read_file(heartbeat, GathererStatus)
    return beat is not None and beat.at.timestamp() > since_s and bool(beat.details.followed_markets)


def _gatherer(server: PostgresServer, folder: Path) -> dict[str, Any]:
    return {
        "name": "g1",
        "timeseries_url": server.url("timeseries"),
        "catalog_url": server.url("catalog"),
        "state_dir": str(folder / "state"),
        **quick(),
        # Small, so that a kill comes between two commits, and between two segments.
        "flush_rows": 100,
        "lag_rows": 800,
        "journal_segment_bytes": 200_000,
        "lease_patience_s": 20.0,
    }


def _exchange(exchange: ServerThread) -> dict[str, Any]:
    settings = client_settings(exchange)
    return {
        "rest_url": settings.rest_url,
        "ws_url": settings.ws_url,
        "key_id": settings.key_id,
        "private_key_pem": Path(exchange.key_file).read_text(encoding="utf-8"),
        "reads_per_second": settings.reads_per_second,
        "retry_base_s": settings.retry_base_s,
        "retry_cap_s": settings.retry_cap_s,
    }


def _published(exchange: ServerThread) -> list[tuple[Any, ...]]:
    """The exchange's own list of the deltas it has published, without their numbers."""
    return exchange.call(lambda server: [tuple(row[1:]) for row in server.exchange.truth.deltas])
