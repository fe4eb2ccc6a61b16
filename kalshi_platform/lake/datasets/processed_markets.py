"""processed/markets: what each market of a day was, and how it was settled."""

from dataclasses import replace

from kalshi_platform.lake.datasets.dataset import catalog_dataset
from kalshi_platform.market.tables import CATALOG_TABLES, Column

_MARKETS = CATALOG_TABLES["markets"]

DATASET = catalog_dataset(
    _MARKETS,
    "One row per market that was not settled before the day before, as it was known at the day's end: what it asks, its"
    " rules, times and price grid, and its result and settlement value once it has them.",
    (
        replace(_MARKETS["event_ticker"], nullable=True),
        _MARKETS["series_ticker"],
        _MARKETS["market_type"],
        replace(_MARKETS["status"], nullable=True),
        _MARKETS["title"],
        Column("subtitle", "text", "Second title.", nullable=True),
        Column("yes_sub_title", "text", "What a yes contract stands for, in short.", nullable=True),
        Column("no_sub_title", "text", "What a no contract stands for, in short.", nullable=True),
        _MARKETS["open_time"],
        _MARKETS["close_time"],
        _MARKETS["expected_expiration_time"],
        Column("latest_expiration_time", "timestamptz", "When it expires at the latest.", nullable=True),
        _MARKETS["created_time"],
        _MARKETS["updated_time"],
        _MARKETS["result"],
        Column("settlement_value_dollars", "numeric(18,6)", "What a yes contract paid.", nullable=True),
        Column("settlement_ts", "timestamptz", "When it was settled.", nullable=True),
        Column("expiration_value", "text", "The value that decided it, as the exchange wrote it.", nullable=True),
        Column(
            "strike_type",
            "text",
            "How strikes are meant: greater, greater_or_equal, less, less_or_equal, between, functional, custom,"
            " structured.",
            nullable=True,
        ),
        Column("floor_strike", "double precision", "The lower strike, a JSON number of the exchange.", nullable=True),
        Column("cap_strike", "double precision", "The upper strike, a JSON number of the exchange.", nullable=True),
        Column("functional_strike", "text", "A strike that is a formula.", nullable=True),
        Column("custom_strike", "text", "A strike of another kind, as JSON.", nullable=True),
        Column("rules_primary", "text", "The rules by which it is decided.", nullable=True),
        Column("rules_secondary", "text", "Further rules.", nullable=True),
        Column("early_close_condition", "text", "When it closes before close_time.", nullable=True),
        _MARKETS["can_close_early"],
        Column("settlement_timer_s", "bigint", "Time from the determination to the settlement.", nullable=True),
        _MARKETS["price_level_structure"],
        _MARKETS["price_ranges"],
        Column("fee_waiver_expiration_time", "timestamptz", "Until when no fees are taken.", nullable=True),
        _MARKETS["is_provisional"],
        _MARKETS["mve_collection_ticker"],
        Column("mve_selected_legs", "text", "The legs of a combo, as JSON.", nullable=True),
        _MARKETS["exchange_index"],
    ),
)
