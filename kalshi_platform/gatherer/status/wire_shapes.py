"""Samples what the exchange sends, keeps its shapes in `wire_shapes`, raises an alarm for what is new and what is gone.

Whoever has frames or answers offers them; most are passed over at the cost of a count. The samples are compared in a
thread of their own, so that neither a burst nor a database that is away is felt by what offers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import msgspec

from kalshi_platform.clock import Clock, wait_until_s
from kalshi_platform.errors import DatabaseUnavailable
from kalshi_platform.exchange.drift import (
    Drift,
    Finding,
    Group,
    KnownShapes,
    SeenShape,
    decode_known_shapes,
    type_of_frame,
)
from kalshi_platform.market.times import datetime_from_us
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage import queries
from kalshi_platform.storage.pool import Database

NO_SESSION = 0
_SQL = queries.load(Path(__file__).with_name("wire_shapes.sql"))
_log = event_logger(__name__)

OBJECTS = {
    "series": "series", "events": "event", "markets": "market", "trades": "trade", "orderbooks": "book",
}  # fmt: skip
"""The lists of an answer of REST, and the kind of their objects."""
_ALL_OF_THE_FIRST = 256
"""Frames of a session that are looked at one by one; of later ones each `_STRIDE`-th is."""
_STRIDE = 16
_FIRST, _EVERY = 5, 16
"""Of the frames of one head that are looked at: the first ones are sampled, and then one in so many."""
_HEAD_BYTES = 20
"""Distinguishes the types without decoding: `{"type":"orderbook_d`."""
_HEADS, _SESSIONS = 256, 256
_SAMPLES, _LARGEST_SAMPLE_BYTES = 200, 256 * 1024
"""Of one interval."""
_INTERVAL_S = 2.0
_WRITE_TIMES_S = 600.0


class FrameSampler:
    """Chooses the frames to look into: the first of each type on each session, then few. Pure; one thread at a time."""

    def __init__(self) -> None:
        self._sessions: dict[int, tuple[int, dict[bytes, int]]] = {}

    def choose(self, session_id: int, payloads: Sequence[bytes]) -> list[bytes]:
        """Return the samples among the next frames of a session."""
        seen, heads = self._sessions.pop(session_id, (0, {}))
        self._sessions[session_id] = (seen + len(payloads), heads)
        if len(self._sessions) > _SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        looked = payloads if seen < _ALL_OF_THE_FIRST else payloads[-seen % _STRIDE :: _STRIDE]
        chosen = []
        for payload in looked:
            head = payload[:_HEAD_BYTES]
            count = heads.get(head, 0)
            if count or len(heads) < _HEADS:
                heads[head] = count + 1
            if count < _FIRST or count % _EVERY == 0:
                chosen.append(payload)
        return chosen


class WireShapes:
    """Compares samples with what is known. `offer_frames` belongs to one thread; `offer_answer` to any."""

    def __init__(self, gatherer: str, database: Database, clock: Clock, on_alarm: Callable[[str, str], None]) -> None:
        """Set up; `on_alarm` receives kind and detail."""
        self._gatherer = gatherer
        self._database = database
        self._clock = clock
        self._on_alarm = on_alarm
        self._known = load_known_shapes()
        self._sampler = FrameSampler()
        self._samples: deque[tuple[str | None, bytes]] = deque(maxlen=_SAMPLES)
        self._drift: Drift | None = None
        self._unwritten: list[SeenShape] = []
        self._times_written_us = 0

    def offer_frames(self, session_id: int, payloads: Sequence[bytes]) -> None:
        """Take samples of the frames of a session, in their order; answers of REST (session 0) were offered before."""
        if session_id == NO_SESSION:
            return
        for payload in self._sampler.choose(session_id, payloads):
            if len(payload) <= _LARGEST_SAMPLE_BYTES:
                self._samples.append((None, payload))

    def offer_answer(self, body: object) -> None:
        """Take the first object of each list in a decoded answer of REST."""
        if not isinstance(body, dict):
            return
        for member, kind in OBJECTS.items():
            found = body.get(member)
            if isinstance(found, list) and found and isinstance(found[0], dict):
                self._samples.append((kind, msgspec.json.encode(found[0])))

    def run(self, stop: threading.Event) -> None:
        """Compare and write until `stop`. What the database lacks while it is away is kept, within bounds."""
        while not self._clock.wait(stop, wait_until_s(self._clock, _INTERVAL_S)):
            try:
                self.update()
            except DatabaseUnavailable as error:
                _log.debug("wire_shapes_not_written", gatherer=self._gatherer, error=error)

    def update(self) -> None:
        """Compare the waiting samples, raise alarms, and write new rows. Raises DatabaseUnavailable."""
        if self._drift is None:  # what a former process saw is not new
            self._drift = Drift(self._known, self._read())
        now_us = self._clock.now_ns() // 1_000
        while self._samples:
            kind, content = self._samples.popleft()
            for finding in self._observe(self._drift, kind, content, now_us):
                self._report(finding)
        self._unwritten += self._drift.pop_new()
        rows = self._unwritten
        writes_times = now_us - self._times_written_us > _WRITE_TIMES_S * 1_000_000
        if writes_times:
            new = {id(row) for row in rows}
            rows = [*rows, *(row for row in self._drift.seen_since(self._times_written_us) if id(row) not in new)]
        self._write(rows)
        self._unwritten = []
        if writes_times:
            self._times_written_us = now_us

    def _observe(self, drift: Drift, kind: str | None, content: bytes, now_us: int) -> list[Finding]:
        try:
            value = msgspec.json.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError):  # its dead letter says so
            return []
        if not isinstance(value, dict):
            return []
        source: Group = "frame" if kind is None else "object"
        return drift.observe(source, kind or type_of_frame(value), value, content, now_us)

    def _report(self, finding: Finding) -> None:
        shape = finding.shape
        what = f"{shape.source} {shape.type}"
        if finding.is_missing:
            _log.error("missing_field", gatherer=self._gatherer, of=what, path=shape.path, table="wire_shapes")
            self._on_alarm("missing_field", finding.detail)
        else:
            _log.warning(
                "new_field",
                gatherer=self._gatherer,
                of=what,
                path=shape.path,
                json_type=shape.json_type,
                table="wire_shapes",
            )
            self._on_alarm("new_field", finding.detail)

    def _read(self) -> list[SeenShape]:
        with self._database.transaction() as transaction:
            rows = transaction.fetch_all(_SQL["seen_shapes"])
        return [
            SeenShape(source, type_name, path, json_type, first_us, last_us, bytes(sample))
            for source, type_name, path, json_type, first_us, last_us, sample in rows
        ]

    def _write(self, rows: Sequence[SeenShape]) -> None:
        values = [
            (
                row.source,
                row.type,
                row.path,
                row.json_type,
                datetime_from_us(row.first_seen_us),
                datetime_from_us(row.last_seen_us),
                self._is_shipped(row),
                row.sample,
            )
            for row in rows
        ]
        if values:
            with self._database.transaction() as transaction:
                transaction.execute_values(_SQL["write_shapes"], values)

    def _is_shipped(self, row: SeenShape) -> bool:
        known = self._known.of(row.source, row.type)
        return known is not None and row.json_type in known.paths.get(row.path, ())


def load_known_shapes() -> KnownShapes:
    """Load the shapes that this version is shipped with."""
    return decode_known_shapes(resources.files("kalshi_platform.exchange").joinpath("known_shapes.json").read_bytes())
