"""Series, events and markets: as they are known, as they were known before, and what changed when."""

from __future__ import annotations

from kalshi_platform.market.tables.definition import Column, SqlType, Table


def _said(name: str, sql_type: SqlType, meaning: str) -> Column:
    """A column of what the exchange says of an object, which it may leave out."""
    return Column(name, sql_type, meaning, nullable=True)


_EXCHANGE_INDEX = Column("exchange_index", "integer", "The shard of the exchange that trades the object.", default="0")
_CHANGE_NO = Column(
    "change_no",
    "bigint",
    "The transaction of this database that wrote the row last, see catalog_changes. 0: before they were numbered.",
    default="0",
    generated=True,
)
_PAYLOAD = Column("payload", "jsonb", "The exchange's whole object.")
_FINGERPRINT = Column("fingerprint", "bigint", "64-bit hash of what describes the object.")
_KNOWLEDGE = (
    _PAYLOAD,
    _FINGERPRINT,
    Column("first_seen_at", "timestamptz", "This platform's clock when the object was first seen."),
    Column("known_at", "timestamptz", "This platform's clock when the knowledge was obtained; newer knowledge wins."),
    _CHANGE_NO,
)
_HISTORY = (
    Column("ticker", "text", "The object's ticker."),
    Column("valid_from", "timestamptz", "This platform's clock when this version was first known."),
    Column(
        "valid_to",
        "timestamptz",
        "This platform's clock when another version was known; NULL while it is the newest.",
        nullable=True,
    ),
    _FINGERPRINT,
    _PAYLOAD,
)


def _history(name: str, *more: Column) -> Table:
    meaning = f"One row per version of each row of {name}, the newest included: what was known when."
    return Table(f"{name}_history", meaning, (*_HISTORY, *more, _CHANGE_NO), key=("ticker", "valid_from"))


CATALOG = (
    Table(
        "series",
        "One row per series as last known.",
        (
            Column("ticker", "text", "The series' ticker."),
            _said("title", "text", "Title."),
            _said("category", "text", "Category, such as Politics."),
            _said("frequency", "text", "How often it has an event, such as daily."),
            _said("fee_type", "text", "Which formula of fees holds."),
            _said("fee_multiplier", "double precision", "Factor of that formula."),
            _said("last_updated", "timestamptz", "The exchange's time of its last change of the description."),
            _EXCHANGE_INDEX,
            *_KNOWLEDGE,
        ),
        key=("ticker",),
    ),
    Table(
        "events",
        "One row per event as last known.",
        (
            Column("ticker", "text", "The event's ticker."),
            _said("series_ticker", "text", "The series that it belongs to."),
            _said("title", "text", "Title."),
            _said("sub_title", "text", "Second title."),
            _said("category", "text", "Category, such as Politics."),
            _said("collateral_return_type", "text", "How collateral is returned across its markets."),
            _said("mutually_exclusive", "boolean", "Whether at most one of its markets can resolve to yes."),
            _said("strike_date", "timestamptz", "The date that it is about."),
            _said("strike_period", "text", "The period that it is about, where it is no date."),
            _said("last_updated", "timestamptz", "The exchange's time of its last change of the description."),
            _EXCHANGE_INDEX,
            *_KNOWLEDGE,
        ),
        key=("ticker",),
    ),
    Table(
        "markets",
        "One row per market as last known.",
        (
            Column("ticker", "text", "The market's ticker."),
            Column("event_ticker", "text", "The event that it belongs to."),
            _said("series_ticker", "text", "The series that it belongs to."),
            _said("market_type", "text", "binary or scalar."),
            Column(
                "status",
                "text",
                "initialized, inactive, active, closed, determined, disputed, amended, finalized; or vanished (the"
                " exchange deleted it).",
            ),
            _said("title", "text", "Title."),
            _said("open_time", "timestamptz", "When trading begins."),
            _said("close_time", "timestamptz", "When trading ends."),
            _said("expected_expiration_time", "timestamptz", "When it is expected to expire."),
            _said("created_time", "timestamptz", "When the exchange made it."),
            _said("updated_time", "timestamptz", "The exchange's time of its last change of the description."),
            _said("settlement_time", "timestamptz", "When it was settled."),
            _said("result", "text", "The outcome: yes, no, or what a scalar market came to; empty before."),
            _said("settlement_value_e6", "bigint", "What a yes contract paid."),
            _said("can_close_early", "boolean", "Whether it may close before close_time."),
            _said("is_provisional", "boolean", "Whether the exchange may remove it if it is not traded."),
            _said("mve_collection_ticker", "text", "The collection of a combo; NULL for a plain market."),
            _EXCHANGE_INDEX,
            _said("price_level_structure", "text", "The name of its grid of prices."),
            _said("price_ranges", "text", "Its grid of prices as JSON: ranges with their steps."),
            *(
                column
                if column is not _FINGERPRINT
                else Column(
                    "fingerprint",
                    "bigint",
                    "64-bit hash of what describes the market; prices and volumes are left out, so that trading makes"
                    " no"
                    " history rows.",
                )
                for column in _KNOWLEDGE
            ),
        ),
        key=("ticker",),
    ),
    _history("series"),
    _history("events"),
    _history("markets", _said("status", "text", "The status of this version.")),
    Table(
        "catalog_syncs",
        "One row per sync of series, events or markets. scope: full, incremental, or a ticker. An incremental sync"
        " starts from the last finished one.",
        (
            Column("sync_id", "bigint", "Running number of the sync.", generated=True),
            Column("what", "text", "series, events or markets."),
            Column("scope", "text", "full, incremental, or a ticker."),
            Column("started_at", "timestamptz", "When it began."),
            Column(
                "finished_at", "timestamptz", "When it ended; NULL while it runs, and when it failed.", nullable=True
            ),
            Column("rows_seen", "bigint", "Objects that the exchange gave.", nullable=True),
            Column("rows_changed", "bigint", "Objects that were new or had changed.", nullable=True),
            Column("error", "text", "Why it failed.", nullable=True),
        ),
        key=("sync_id",),
    ),
    Table(
        "catalog_counter",
        "One row: the number of the newest transaction that wrote series, events, markets or their history.",
        (
            Column("only_row", "boolean", "Always true: the table has one row.", default="true"),
            Column("last_change_no", "bigint", "The newest number."),
        ),
        key=("only_row",),
    ),
    Table(
        "catalog_changes",
        "The token of each of the last 100,000 numbers: who stands at a number with another token, or at one that has"
        " none any more, reads the catalog from its beginning.",
        (
            Column("change_no", "bigint", "The number of a transaction."),
            Column("token", "uuid", "Drawn with the number.", default="gen_random_uuid()"),
        ),
        key=("change_no",),
    ),
)
