"""What the exchange publishes, one row per message: as one gatherer recorded it, and as production has it once.

A column that both have stands in one place here, so that a new one reaches both, the merge and the lake by one line.
Prices are integers of 1/10,000 dollar (`_e4`), sizes of 1/100 contract (`_e2`).
"""

from __future__ import annotations

from kalshi_platform.market.tables.definition import Column, Table

TICKER = Column("ticker", "text", "The market's ticker; a lifecycle event of an event carries the event's ticker.")
EXCHANGE_TS = Column(
    "exchange_ts", "timestamptz", "The exchange's time of the message; of trades floored to the millisecond."
)
RECEIVED_AT = Column("received_at", "timestamptz", "This platform's clock at the socket read.")
FIRST_RECEIVED_AT = Column(
    "received_at", "timestamptz", "This platform's clock at the socket read of the gatherer that was merged first."
)
STREAM_ID = Column(
    "stream_id", "bigint", "One channel of one connection of the gatherer; 0 for a row that came by REST."
)
SEQ = Column("seq", "bigint", "The exchange's number of the message within the stream.")
BATCH_NO = Column("batch_no", "bigint", "The commit that brought the row, see batches.")
GATHERER = Column("gatherer", "text", "The gatherer whose copy was merged first.")
FINGERPRINT = Column("fingerprint", "bigint", "64-bit hash of the content.")

_DELTA = (
    Column("side", "text", "The outcome whose bids changed: yes or no."),
    Column("price_e4", "integer", "Price of the level; books are on the no-leg scale."),
    Column("delta_e2", "bigint", "Signed change of the level's size."),
    Column("occurrence", "integer", "How many equal changes of this timestamp the stream had before, from 0."),
)
_TRADE = (
    Column("trade_id", "text", "The exchange's identifier of the trade."),
    Column("yes_price_e4", "integer", "Price of the yes contract."),
    Column("no_price_e4", "integer", "Price of the no contract."),
    Column("count_e2", "bigint", "Contracts traded."),
    Column("taker_side", "text", "Outcome that the taker bought, where the exchange says it.", nullable=True),
    Column("is_block_trade", "boolean", "Whether the trade was negotiated off the book."),
    Column(
        "created_time",
        "timestamptz",
        "The exchange's time of the trade as REST gives it, to the microsecond.",
        nullable=True,
    ),
    Column("source", "text", "How the row was obtained: ws, or rest for a trade that the stream missed."),
)
_TICKER = (
    FINGERPRINT,
    Column("price_e4", "integer", "Price of the last trade.", nullable=True),
    Column("yes_bid_e4", "integer", "Best yes bid.", nullable=True),
    Column("yes_ask_e4", "integer", "Best yes ask.", nullable=True),
    Column("yes_bid_size_e2", "bigint", "Size at the best yes bid.", nullable=True),
    Column("yes_ask_size_e2", "bigint", "Size at the best yes ask.", nullable=True),
    Column("last_trade_size_e2", "bigint", "Size of the last trade.", nullable=True),
    Column("volume_e2", "bigint", "Contracts traded since the market opened.", nullable=True),
    Column("open_interest_e2", "bigint", "Contracts held.", nullable=True),
    Column(
        "dollar_volume", "bigint", "Volume as the exchange counts it in whole dollars.", nullable=True, unit="dollars"
    ),
    Column(
        "dollar_open_interest",
        "bigint",
        "Open interest as the exchange counts it in whole dollars.",
        nullable=True,
        unit="dollars",
    ),
)
_SNAPSHOT_TS = Column(
    "snapshot_ts",
    "timestamptz",
    "This platform's receive time for ws and rest_recovery, the minute of the poll for rest.",
)
_SNAPSHOT_SOURCE = Column("source", "text", "How the book was obtained: ws, rest, or rest_recovery after a gap.")
_REQUESTED_AT = Column(
    "requested_at", "timestamptz", "This platform's clock when the REST request was sent.", nullable=True
)
LEVELS = (
    Column("yes_price_e4", "integer[]", "Prices of the yes bids, ascending.", unit="1/10,000 dollar"),
    Column("yes_count_e2", "bigint[]", "Sizes of the yes bids, in the order of their prices."),
    Column("no_price_e4", "integer[]", "Prices of the no bids, ascending.", unit="1/10,000 dollar"),
    Column("no_count_e2", "bigint[]", "Sizes of the no bids, in the order of their prices."),
)
_EVENT_TYPE = Column("event_type", "text", "What happened to the market or event.")
_EVENT_TS = Column("exchange_ts", "timestamptz", "The exchange's time of the event, where it has one.", nullable=True)
_CONTENT = Column("content", "jsonb", "The message as JSON.")

GATHERER_STREAMS = (
    Table(
        "orderbook_deltas",
        "One row per order-book change per stream. side: yes or no, on the no-leg scale. occurrence: how many equal"
        " deltas this stream had before.",
        (EXCHANGE_TS, TICKER, STREAM_ID, SEQ, *_DELTA, RECEIVED_AT, BATCH_NO),
        key=("exchange_ts", "ticker", "stream_id", "seq"),
        time_column="exchange_ts",
    ),
    Table(
        "trades",
        "One row per trade. exchange_ts is floored to the millisecond (WebSocket sends ms, REST µs); created_time keeps"
        " what REST said.",
        (EXCHANGE_TS, TICKER, *_TRADE, STREAM_ID, SEQ, RECEIVED_AT, BATCH_NO),
        key=("exchange_ts", "ticker", "trade_id"),
        time_column="exchange_ts",
    ),
    Table(
        "tickers",
        "One row per ticker update. fingerprint: 64-bit hash of the content. dollar_*: whole dollars, signed, as the"
        " exchange sends them.",
        (EXCHANGE_TS, TICKER, *_TICKER, STREAM_ID, SEQ, RECEIVED_AT, BATCH_NO),
        key=("exchange_ts", "ticker", "fingerprint"),
        time_column="exchange_ts",
    ),
    Table(
        "orderbook_snapshots",
        "One row per whole book. source: ws (at its seq), rest (snapshot_ts is the minute of the poll), rest_recovery"
        " (after a gap). Levels ascend by price.",
        (_SNAPSHOT_TS, TICKER, _SNAPSHOT_SOURCE, STREAM_ID, SEQ, *LEVELS, _REQUESTED_AT, RECEIVED_AT, BATCH_NO),
        key=("snapshot_ts", "ticker", "source", "stream_id", "seq"),
        time_column="snapshot_ts",
    ),
    Table(
        "market_lifecycle",
        "One row per lifecycle message. ticker is the event ticker for event_created and event_fee_update.",
        (RECEIVED_AT, TICKER, STREAM_ID, SEQ, _EVENT_TYPE, _EVENT_TS, FINGERPRINT, _CONTENT, BATCH_NO),
        key=("received_at", "ticker", "stream_id", "seq"),
        time_column="received_at",
    ),
    Table(
        "dead_letters",
        "Frames that could not become a row: the bytes as received and the reason. Nothing is ever parsed to zeros.",
        (
            RECEIVED_AT,
            Column("dead_letter_id", "bigint", "Running number of the letter.", generated=True),
            STREAM_ID,
            SEQ,
            Column("channel", "text", "The channel that the frame came on, where it is known.", nullable=True),
            Column("ticker", "text", "The market that the frame concerns, where it is known.", nullable=True),
            Column("reason", "text", "Why the frame became no row, in one word of a fixed list."),
            Column("detail", "text", "What exactly was wrong with it."),
            Column("payload", "bytea", "The bytes as received."),
            BATCH_NO,
            Column(
                "fingerprint",
                "bigint",
                "64-bit hash of the letter: the same letter written twice is there once. NULL on letters from before it"
                " was kept.",
                nullable=True,
            ),
        ),
        time_column="received_at",
    ),
)

PRODUCTION_STREAMS = (
    Table(
        "orderbook_deltas",
        "One row per order-book change. seq is not in the key: it counts what one connection was sent and differs"
        " between gatherers. occurrence tells equal changes of one timestamp apart.",
        (EXCHANGE_TS, TICKER, *_DELTA, GATHERER, STREAM_ID, SEQ, FIRST_RECEIVED_AT),
        key=("exchange_ts", "ticker", "side", "price_e4", "delta_e2", "occurrence"),
        time_column="exchange_ts",
    ),
    Table(
        "trades",
        "One row per trade, whichever gatherers saw it.",
        (EXCHANGE_TS, TICKER, *_TRADE, GATHERER, STREAM_ID, SEQ, FIRST_RECEIVED_AT),
        key=("exchange_ts", "ticker", "trade_id"),
        time_column="exchange_ts",
    ),
    Table(
        "tickers",
        "One row per ticker update, whichever gatherers saw it.",
        (EXCHANGE_TS, TICKER, *_TICKER, GATHERER, STREAM_ID, SEQ, FIRST_RECEIVED_AT),
        key=("exchange_ts", "ticker", "fingerprint"),
        time_column="exchange_ts",
    ),
    Table(
        "orderbook_snapshots",
        "One row per whole book: each gatherer's own from the WebSocket, one a minute over REST.",
        (
            _SNAPSHOT_TS,
            TICKER,
            _SNAPSHOT_SOURCE,
            Column(
                "source_gatherer",
                "text",
                "The gatherer for ws and rest_recovery; empty for rest, of which each market keeps one per minute.",
                since=2,
                formerly="witness",
            ),
            STREAM_ID,
            SEQ,
            GATHERER,
            *LEVELS,
            _REQUESTED_AT,
            FIRST_RECEIVED_AT,
        ),
        key=("snapshot_ts", "ticker", "source", "source_gatherer", "stream_id", "seq"),
        time_column="snapshot_ts",
    ),
    Table(
        "market_lifecycle",
        "One row per lifecycle event; equal content of one ticker within 5 minutes is one event.",
        (FIRST_RECEIVED_AT, TICKER, FINGERPRINT, _EVENT_TYPE, _EVENT_TS, _CONTENT, GATHERER, STREAM_ID, SEQ),
        key=("received_at", "ticker", "fingerprint"),
        time_column="received_at",
    ),
    Table(
        "book_checkpoints",
        "Books that folds start from: the book at the END of checkpoint_ts. Apply the deltas with exchange_ts >"
        " checkpoint_ts, all of one exchange_ts together.",
        (
            Column(
                "checkpoint_ts",
                "timestamptz",
                "The book holds at the END of this moment; apply deltas with a later exchange_ts.",
                since=2,
                formerly="anchor_ts",
            ),
            TICKER,
            Column(
                "gatherer",
                "text",
                "The gatherer whose snapshot it is made from; empty for one derived at the end of an hour.",
            ),
            STREAM_ID,
            SEQ,
            *LEVELS,
        ),
        key=("checkpoint_ts", "ticker", "gatherer", "stream_id", "seq"),
        time_column="checkpoint_ts",
    ),
)
