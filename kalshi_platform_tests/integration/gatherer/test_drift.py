"""An exchange that changes its messages without a word, seen by a running gatherer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kalshi_platform_tests.fixtures.exchange import eventually, running_exchange
from kalshi_platform_tests.fixtures.gatherer_databases import SettingsFactory
from kalshi_platform_tests.fixtures.gatherer_service import RunningGatherer, running_gatherer

HOLES = (
    "SELECT b.ticker, b.seq_to, b.end_reason FROM book_subscriptions b WHERE b.seq_to IS NOT NULL AND NOT EXISTS"
    " (SELECT FROM book_subscriptions n WHERE (n.ticker, n.stream_id, n.seq_from) = (b.ticker, b.stream_id, b.seq_to))"
)
"""Claims that ended and did not go on with the very snapshot at which they ended."""
NEW = "SELECT source, type, path, json_type FROM wire_shapes WHERE NOT is_shipped ORDER BY 1, 2, 3"


def alarms(gatherer: RunningGatherer, kind: str) -> int:
    return gatherer.status.alarms.get(kind, 0)


def test_fields_that_come_raise_one_alarm_each_and_end_no_claim(
    gatherer_settings: SettingsFactory, tmp_path: Path
) -> None:
    with running_exchange(tmp_path, markets=4, combos=0, rate=100) as exchange:
        exchange.fault("add_field", type="orderbook_delta", name="queue_position", value=7)
        exchange.fault("add_field", object="market", name="fresh", value={"a": "b"})
        with running_gatherer(gatherer_settings(), exchange) as gatherer:
            gatherer.follows(4)
            eventually(lambda: alarms(gatherer, "new_field") == 3, what="an alarm for each new path")
            exchange.fault("new_type", type="rebate", numbered=True, per_second=20)
            eventually(lambda: alarms(gatherer, "new_field") == 4, what="an alarm for the new type")
            eventually(lambda: alarms(gatherer, "dead_letter") > 3)
            expected: list[tuple[Any, ...]] = [
                ("frame", "orderbook_delta", "msg.queue_position", "int"),
                ("frame", "rebate", "", "object"),
                ("object", "market", "fresh", "object"),
                ("object", "market", "fresh.a", "str"),
            ]
            eventually(lambda: [row for row in gatherer.rows(NEW) if row[1] != "rebate" or not row[2]] == expected)
            assert gatherer.value("SELECT count(*) FROM book_subscriptions WHERE seq_to IS NULL") == 4
            assert gatherer.rows(HOLES) == []
            assert alarms(gatherer, "new_field") == 4
            assert alarms(gatherer, "missing_field") == 0
