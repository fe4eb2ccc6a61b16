"""processed/series: what each series was on a day."""

from kalshi_platform.lake.datasets.dataset import catalog_dataset
from kalshi_platform.market.tables import CATALOG_TABLES, Column

_SERIES = CATALOG_TABLES["series"]

DATASET = catalog_dataset(
    _SERIES,
    "One row per series, as it was known at the day's end: what it is about, and which fees are taken.",
    (
        _SERIES["title"],
        _SERIES["category"],
        Column("categories", "text", "All its categories, as JSON.", nullable=True),
        Column("tags", "text", "Its tags, as JSON.", nullable=True),
        _SERIES["frequency"],
        _SERIES["fee_type"],
        _SERIES["fee_multiplier"],
        Column("settlement_sources", "text", "Who says how it came out: names and addresses, as JSON.", nullable=True),
        Column("contract_url", "text", "Where its contract stands.", nullable=True),
        Column("contract_terms_url", "text", "Where the contract's terms stand.", nullable=True),
        Column("additional_prohibitions", "text", "Who else may not trade it, as JSON.", nullable=True),
        Column("product_metadata", "text", "What else the exchange says of it, as JSON.", nullable=True),
        Column("last_updated_ts", "timestamptz", "The exchange's time of its last change.", nullable=True),
        _SERIES["exchange_index"],
    ),
)
