"""processed/tickers: a day of best prices and totals as the ticker channel said them, in dollars and contracts."""

from kalshi_platform.lake.builders.builder import Builder
from kalshi_platform.lake.datasets.dataset import Dataset
from kalshi_platform.market.tables import PRODUCTION_TABLES, Column

_TICKERS = PRODUCTION_TABLES["tickers"]
_NAMES = {
    "price_dollars": "price_e4",
    "yes_bid_dollars": "yes_bid_e4",
    "yes_ask_dollars": "yes_ask_e4",
    "yes_bid_contracts": "yes_bid_size_e2",
    "yes_ask_contracts": "yes_ask_size_e2",
    "last_trade_contracts": "last_trade_size_e2",
    "volume_contracts": "volume_e2",
    "open_interest_contracts": "open_interest_e2",
}
_SAME = ("ticker", "exchange_ts")
_WHOLE = ("dollar_volume", "dollar_open_interest")


def _builder() -> Builder:
    import polars as pl

    from kalshi_platform.lake.builders.projection import Projection

    columns = {name: pl.col(name) for name in (*_SAME, *_WHOLE)}
    return Projection("raw/tickers", columns | {name: pl.col(raw) for name, raw in _NAMES.items()})


DATASET = Dataset(
    "processed",
    "tickers",
    "One row per ticker update: the exchange's own best prices, last trade, volume and open interest.",
    (
        *(_TICKERS[name] for name in _SAME),
        *(
            Column(
                name,
                "numeric(9,4)" if name.endswith("_dollars") else "numeric(18,2)",
                _TICKERS[raw].meaning,
                nullable=True,
            )
            for name, raw in _NAMES.items()
        ),
        *(_TICKERS[name] for name in _WHOLE),
    ),
    time_column="exchange_ts",
    # What tells two updates of one moment apart, the fingerprint of the content, is left out.
    identity=(),
    # The files have the order of the stream as well, which the columns do not show.
    order=("ticker", "exchange_ts"),
    builder=_builder,
    inputs={"raw/tickers": (*_SAME, *_NAMES.values(), *_WHOLE)},
)
