"""processed/lifecycle: what happened to markets and events on a day, with results and settlement values."""

from kalshi_platform.lake.builders.builder import Builder
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column

_LIFECYCLE = PRODUCTION_TABLES["market_lifecycle"]
_SAME = ("ticker", "received_at", "exchange_ts", "event_type", "content")


def _builder() -> Builder:
    import polars as pl

    from kalshi_platform.lake.builders.projection import Projection, decimal_text

    content = pl.col("content").cast(pl.String)
    return Projection(
        "raw/market_lifecycle",
        {
            **{name: pl.col(name) for name in _SAME},
            "result": content.str.json_path_match("$.result"),
            "settlement_value_dollars": decimal_text(content.str.json_path_match("$.settlement_value"), 6),
        },
    )


DATASET = Dataset(
    "processed",
    "lifecycle",
    "One row per lifecycle message of a market or an event: created, changed, determined with its result, settled.",
    (
        _LIFECYCLE["ticker"],
        _LIFECYCLE["received_at"],
        _LIFECYCLE["exchange_ts"],
        _LIFECYCLE["event_type"],
        Column("result", "text", "The outcome that a determination names.", nullable=True),
        Column(
            "settlement_value_dollars",
            "numeric(18,6)",
            "What a yes contract pays, where a determination says it.",
            nullable=True,
        ),
        _LIFECYCLE["content"],
    ),
    time_column="received_at",
    # What tells two messages of one moment apart, the fingerprint of the content, is left out.
    identity=(),
    order=("ticker", "received_at"),
    plain=frozenset({"content"}),
    rows_per_group=16 * 1024,
    builder=_builder,
    inputs={"raw/market_lifecycle": _SAME},
)
