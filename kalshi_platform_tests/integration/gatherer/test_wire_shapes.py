"""Shapes of messages in a real database: what is new is said once, also by the next process."""

from __future__ import annotations

import json
from typing import Any

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.exchange.drift import MISSING_AFTER
from kalshi_platform.gatherer.status.wire_shapes import WireShapes
from kalshi_platform.storage.pool import Database
from kalshi_platform_tests.fixtures.postgres import DatabaseFactory
from kalshi_platform_tests.fixtures.storage import MigratedTemplate

TRADE: dict[str, Any] = {
    "type": "trade", "sid": 2, "seq": 17,
    "msg": {
        "trade_id": "7a3d1a0e", "market_ticker": "KX", "yes_price_dollars": "0.5700", "no_price_dollars": "0.4300",
        "count_fp": "12.50", "taker_side": "yes", "taker_outcome_side": "yes", "taker_book_side": "bid",
        "is_block_trade": False, "ts": 1795380241, "ts_ms": 1795380241123,
    },
}  # fmt: skip


def frame(**fields: Any) -> bytes:
    return json.dumps({**TRADE, "msg": {**TRADE["msg"], **fields}}).encode()


def test_a_new_field_is_one_alarm_with_a_row_and_its_sample_for_this_and_the_next_process(
    database_factory: DatabaseFactory, migrated_template: MigratedTemplate
) -> None:
    database = Database(database_factory(migrated_template("timeseries")), name="test", pool_size=1)
    alarms: list[tuple[str, str]] = []

    def process() -> WireShapes:
        return WireShapes("g1", database, SYSTEM_CLOCK, lambda kind, detail: alarms.append((kind, detail)))

    shapes = process()
    shapes.offer_frames(0, [b'{"orderbooks": []}'])
    shapes.offer_frames(1, [frame(), frame(queue_position=7), b"no json", b"[1]"])
    shapes.offer_answer({"markets": [{"ticker": "KX", "fresh": None}, {"ticker": "KY", "never_seen": 1}]})
    shapes.update()
    assert alarms == [
        ("new_field", "frame trade: msg.queue_position (int) is new"),
        ("new_field", "object market: fresh (null) is new"),
    ]
    with database.transaction() as transaction:
        ((sample, is_shipped),) = transaction.fetch_all(
            "SELECT sample, is_shipped FROM wire_shapes WHERE path = 'msg.queue_position'"
        )
        ((known,),) = transaction.fetch_all("SELECT count(*) FROM wire_shapes WHERE type = 'trade' AND is_shipped")
    assert (bytes(sample), is_shipped, known) == (frame(queue_position=7), False, 15)
    again = process()
    again.offer_frames(1, [frame(queue_position=8)])
    again.update()
    assert len(alarms) == 2
    database.dispose()


def test_a_renamed_field_is_missing_once_for_this_and_the_next_process(
    database_factory: DatabaseFactory, migrated_template: MigratedTemplate
) -> None:
    database = Database(database_factory(migrated_template("timeseries")), name="test", pool_size=1)
    alarms: list[str] = []
    renamed = json.loads(frame(count="12.50"))
    del renamed["msg"]["count_fp"]
    for _ in range(2):
        shapes = WireShapes("g1", database, SYSTEM_CLOCK, lambda kind, _: alarms.append(kind))
        for session_id in range(1, MISSING_AFTER + 1):
            shapes.offer_frames(session_id, [json.dumps(renamed).encode()])
        shapes.update()
    assert alarms == ["new_field", "missing_field"]
    database.dispose()
