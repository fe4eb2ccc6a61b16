"""processed/events: what each event of a day was."""

from kalshi_platform.lake.datasets.dataset import catalog_dataset
from kalshi_platform.market.tables import CATALOG_TABLES, Column

_EVENTS = CATALOG_TABLES["events"]

DATASET = catalog_dataset(
    _EVENTS,
    "One row per event with a market in processed/markets of the day, or described anew in it, as it was known at the"
    " day's end.",
    (
        _EVENTS["series_ticker"],
        _EVENTS["title"],
        _EVENTS["sub_title"],
        _EVENTS["category"],
        _EVENTS["mutually_exclusive"],
        _EVENTS["collateral_return_type"],
        _EVENTS["strike_date"],
        _EVENTS["strike_period"],
        Column("fee_type_override", "text", "Which formula of fees holds instead of the series'.", nullable=True),
        Column(
            "fee_multiplier_override",
            "double precision",
            "Its factor instead of the series'.",
            nullable=True,
        ),
        Column("settlement_sources", "text", "Who says how it came out: names and addresses, as JSON.", nullable=True),
        Column("product_metadata", "text", "What else the exchange says of it, as JSON.", nullable=True),
        Column("last_updated_ts", "timestamptz", "The exchange's time of its last change.", nullable=True),
        _EVENTS["exchange_index"],
    ),
)
