"""What gatherers' rows got after they were merged reaches production's rows that lack it, and changes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.deduplicator.merge.fill_columns import fill_columns
from kalshi_platform.deduplicator.merge.merge_pass import merge_new
from kalshi_platform.market.times import US_PER_S
from kalshi_platform.storage.partitions import PartitionBounds
from kalshi_platform_tests.fixtures.hand_filled_gatherer import delta_row, ticker_row, trade_row
from kalshi_platform_tests.fixtures.merge_world import MergeWorld
from kalshi_platform_tests.integration.deduplicator.test_close_coverage import HOUR, START

BOUNDS = PartitionBounds(ahead=timedelta(days=3650))
TABLES = ("orderbook_deltas", "trades", "tickers")


def content(world: MergeWorld) -> dict[str, list[tuple[Any, ...]]]:
    return {table: world.rows(f"SELECT to_jsonb(t) FROM {table} t ORDER BY exchange_ts, seq") for table in TABLES}


def test_columns_that_production_lacks_are_filled_with_what_gatherers_have(
    merge_world: Callable[..., MergeWorld],
) -> None:
    world = merge_world(2)
    later = START + 3_600 * US_PER_S
    rows: dict[str, Any] = {
        "orderbook_deltas": [delta_row("A", ts_us=START, seq=1)],
        "trades": [trade_row("A", f"t{n}", ts_us=at, seq=n) for n, at in enumerate((START, START + 1_000, later))],
        "tickers": [ticker_row("A", ts_us=START, volume_e2=700), ticker_row("A", ts_us=START + 1_000, seq=-2)],
    }
    world.gatherers["g1"].commit(**rows)
    world.gatherers["g2"].commit(trades=[trade_row("A", "t9", ts_us=START + 2_000, stream_id=5)])
    merge_new(world.settings(), SYSTEM_CLOCK, BOUNDS)
    whole = content(world)
    with world.production.transaction() as transaction:
        transaction.execute("UPDATE trades SET taker_side = NULL WHERE trade_id <> 't1'")
        transaction.execute("UPDATE tickers SET volume_e2 = NULL")
    assert fill_columns(world.settings(), HOUR) == {"trades": 2, "tickers": 1}
    after = content(world)
    lacking = [row for (row,) in after["trades"] if row["taker_side"] is None]
    assert [row["trade_id"] for row in lacking] == ["t2"], "the next hour waits for its turn"
    lacking[0]["taker_side"] = "yes"
    assert after == whole
    assert fill_columns(world.settings(), HOUR) == {}
