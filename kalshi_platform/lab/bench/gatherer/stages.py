"""Where the time of the gatherer's path goes: each stage alone, in one thread, on the frames of a capture.

CPU is this process's; the wall time of the statements is what the server takes for them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from kalshi_platform.clock import Clock
from kalshi_platform.exchange.framing import FrameDecoder
from kalshi_platform.exchange.parse.messages import parse_frame
from kalshi_platform.exchange.peekable import READ_BYTES
from kalshi_platform.exchange.protocol.session import Session
from kalshi_platform.gatherer.ingest.batch_commit import write_ledger
from kalshi_platform.gatherer.ingest.columns import tables_of, times_us, with_batch_no
from kalshi_platform.gatherer.ingest.decoder import Decoder
from kalshi_platform.gatherer.ingest.ledger import fold
from kalshi_platform.gatherer.journal.block_format import Block, Position
from kalshi_platform.lab.bench.gatherer.capture import Capture
from kalshi_platform.lab.bench.measure import own_cpu_s
from kalshi_platform.market.frames import FrameBatch
from kalshi_platform.market.records import Record, SessionOpened
from kalshi_platform.market.tables import GATHERER_TABLES
from kalshi_platform.storage import copy
from kalshi_platform.storage.partitions import PartitionBounds, PartitionKeeper
from kalshi_platform.storage.pool import Database

MOST = 100_000
BATCH = 20_000
_READ = 200
_CHANNELS = {1: "orderbook_delta", 2: "trade", 3: "ticker"}


class _Costs:
    """CPU and wall seconds by stage."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.cpu: dict[str, float] = {}
        self.wall: dict[str, float] = {}

    @contextmanager
    def of(self, stage: str) -> Iterator[None]:
        wall, cpu = self._clock.monotonic(), own_cpu_s()
        yield
        self.cpu[stage] = self.cpu.get(stage, 0.0) + own_cpu_s() - cpu
        self.wall[stage] = self.wall.get(stage, 0.0) + self._clock.monotonic() - wall


def stage_costs(capture: Capture, url: str, clock: Clock) -> dict[str, dict[str, float]]:
    """Send up to 100,000 messages of `capture` through every stage; return µs per message, by stage."""
    payloads = _payloads(capture)
    costs = _Costs(clock)
    stream = b"".join(_framed(payload) for payload in payloads)
    deframer = FrameDecoder(1 << 26)
    with costs.of("frames"):
        for at in range(0, len(stream), READ_BYTES):
            deframer.feed(stream[at : at + READ_BYTES])
    for payload in payloads:  # fills the memories of decimal texts, as a running gatherer's are
        parse_frame(payload)
    records = _records(_blocks(capture, payloads, costs, clock), costs)
    database = Database(url, name="stages")
    try:
        keeper = PartitionKeeper(database, PartitionBounds(), clock)
        keeper.ensure_ahead(GATHERER_TABLES)
        for number in range(0, len(records), BATCH):
            _commit(database, keeper, records[number : number + BATCH], costs)
    finally:
        database.dispose()
    messages = len(payloads)
    return {
        stage: {"cpu_us": round(cpu / messages * 1e6, 2), "wall_us": round(costs.wall[stage] / messages * 1e6, 2)}
        for stage, cpu in costs.cpu.items()
    }


def _payloads(capture: Capture) -> list[bytes]:
    with capture.path.open("rb") as file:
        return [line.partition(b'"frame":')[2].rstrip()[:-1] for line in itertools.islice(file, MOST)]


def _framed(payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 65_536:
        return bytes((0x81, 126)) + length.to_bytes(2, "big") + payload
    return bytes((0x81, 127)) + length.to_bytes(8, "big") + payload


def _blocks(capture: Capture, payloads: Sequence[bytes], costs: _Costs, clock: Clock) -> list[Block]:
    """Return the blocks of the capture, as the session of one connection gives them."""
    numbers = itertools.count(1)
    session = Session(next(numbers), lambda: next(numbers))
    now_ns = clock.now_ns()
    session.subscribe_channels(("trade", "ticker"))
    session.subscribe_books(dict.fromkeys(capture.tickers, 0))
    session.pop_commands()
    opened = FrameBatch()
    opened.mark(SessionOpened(session.session_id, "bench", "", False, now_ns))
    batches = [opened]
    for sid, channel in _CHANNELS.items():
        answer = {"type": "subscribed", "id": sid, "msg": {"channel": channel, "sid": sid}}
        batches.append(session.receive(json.dumps(answer).encode(), now_ns).batch)
    with costs.of("protocol"):
        for at in range(0, len(payloads), _READ):
            frames = [(payload, now_ns) for payload in payloads[at : at + _READ]]
            batches.append(session.receive_all(frames, now_ns).batch)
    blocks, marks = [], 0
    for number, batch in enumerate(batches):
        here, end = Position(1, number), Position(1, number + 1)
        blocks.append(Block(here, end, number, session.session_id, marks, now_ns, False, (), batch))
        marks += len(batch.marks)
    return blocks


def _records(blocks: Sequence[Block], costs: _Costs) -> list[Record]:
    """Return the records of the blocks."""
    decoder = Decoder()
    records: list[Record] = []
    with costs.of("decoder"):
        for block in blocks:
            records += decoder.decode(block).records
    return records


def _commit(database: Database, keeper: PartitionKeeper, records: Sequence[Record], costs: _Costs) -> None:
    with costs.of("columns"):
        tables = tables_of(records)
        spans = {name: times_us(name, data) for name, data in tables.items()}
    for name, span in spans.items():
        keeper.ensure_hours(name, span)
    with costs.of("ledger entries"):
        ledger = fold(records)
    with database.transaction() as transaction:
        timed = _TimedConnection(transaction.connection, costs)
        with costs.of("encode"):
            ready = {name: with_batch_no(name, data, 1) for name, data in tables.items()}
            for name, data in ready.items():
                copy.encode(GATHERER_TABLES[name], data)
        for name, data in ready.items():
            copy.insert_new(timed, GATHERER_TABLES[name], data, likely_new=True)
        with costs.of("ledger rows"):
            write_ledger(transaction, ledger, "bench", 1)
        with costs.of("commit"):
            transaction.connection.commit()


class _TimedConnection:
    """A connection whose cursors tell how long each kind of statement took."""

    def __init__(self, connection: Any, costs: _Costs) -> None:
        self._connection = connection
        self._costs = costs

    def cursor(self) -> _TimedCursor:
        return _TimedCursor(self._connection.cursor(), self._costs)


class _TimedCursor:
    def __init__(self, cursor: Any, costs: _Costs) -> None:
        self._cursor = cursor
        self._costs = costs

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cursor.close()

    @property
    def rowcount(self) -> int:
        return int(self._cursor.rowcount)

    def execute(self, statement: str, params: Mapping[str, Any] | None = None) -> None:
        self._timed(statement, lambda: self._cursor.execute(statement, params))

    def copy_expert(self, statement: str, file: Any, size: int) -> None:
        self._timed(statement, lambda: self._cursor.copy_expert(statement, file, size))

    def _timed(self, statement: str, act: Callable[[], None]) -> None:
        word = statement.split(maxsplit=1)[0]
        with self._costs.of(word if word in ("COPY", "INSERT") else "savepoints"):
            act()
