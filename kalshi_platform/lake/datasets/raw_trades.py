"""raw/trades: every trade, once, with where it came from."""

from kalshi_platform.lake.datasets.dataset import IN_STREAM, TRADE_ID, raw_dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column

_TABLE = PRODUCTION_TABLES["trades"]


def _columns() -> tuple[Column, ...]:
    """Production's columns, the identifier in 16 bytes."""
    found: list[Column] = []
    for column in _TABLE.written:
        found += TRADE_ID if column.name == "trade_id" else (column,)
    return tuple(found)


DATASET = raw_dataset(
    _TABLE,
    columns=_columns(),
    order=("ticker", "exchange_ts", "created_time", *IN_STREAM, "trade_id", "trade_id_text"),
    plain=frozenset({"trade_id", "trade_id_text"}),
)
