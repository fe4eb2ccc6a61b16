"""What the close of an hour writes: what is complete, how well it was proved, and how trades compare with the exchange.

All of it is replaced by the next close of the same hour. Ranges are half-open: from_ts ≤ t < to_ts.
"""

from __future__ import annotations

from kalshi_platform.market.tables.definition import Column, Table
from kalshi_platform.market.tables.merge import GATHERER, HOUR, TICKER

_FROM = Column("from_ts", "timestamptz", "The start of the range, by the exchange's clock.")
_TO = Column("to_ts", "timestamptz", "The end of the range (exclusive), by the exchange's clock.")
_STREAM_ID = Column("stream_id", "bigint", "The stream, see the gatherer's streams.")

CLOSE_SERIES = (
    Table(
        "stream_claims",
        "What one stream claims to hold completely of one market, within one hour.",
        (
            HOUR,
            TICKER,
            GATHERER,
            _STREAM_ID,
            _FROM,
            _TO,
            Column("rows", "bigint", "Deltas of the market that the stream has in the range."),
            Column(
                "content",
                "bigint",
                "Sum of the fingerprints of these deltas: equal for streams that hold the same.",
            ),
            Column(
                "withdrawn",
                "text",
                "Why the claim does not count (it disagreed with another stream, or a book did not come out); NULL"
                " while"
                " it stands.",
                nullable=True,
            ),
        ),
        key=("from_ts", "ticker", "gatherer", "stream_id"),
        time_column="from_ts",
    ),
    Table(
        "coverage",
        "When production holds every order-book delta of a market: the union of the claims that stand, cut at hours."
        " Ranges that touch are one. Everything else is a hole.",
        (
            TICKER,
            _FROM,
            _TO,
            HOUR,
            Column("gatherers", "text[]", "The gatherers whose claims cover the range."),
            Column("stream_ids", "bigint[]", "The streams whose claims cover the range."),
        ),
        key=("ticker", "from_ts"),
        time_column="from_ts",
    ),
    Table(
        "book_proofs",
        "One row per market and hour: what was checked of its books and what came out.",
        (
            HOUR,
            TICKER,
            Column(
                "verdict",
                "text",
                "proved (something was checked, nothing failed), unproved (nothing could be checked), failed.",
            ),
            Column(
                "score",
                "double precision",
                "Checks that passed / checks that decided something; NULL when nothing did.",
                nullable=True,
            ),
            Column(
                "run_checks",
                "integer",
                "Inside a run: a snapshot and the stream's own deltas give its next snapshot.",
            ),
            Column("run_failures", "integer", "Of these, how many did not come out."),
            Column(
                "checkpoint_checks",
                "integer",
                "In production: a checkpoint and the deltas after it give the next checkpoint, where all between is"
                " covered.",
            ),
            Column("checkpoint_failures", "integer", "Of these, how many did not come out."),
            Column(
                "stream_checks",
                "integer",
                "Claims of which another stream claims a part as well: both must hold the same.",
            ),
            Column("stream_failures", "integer", "Of these, how many disagreed."),
            Column("rest_consistent", "integer", "Polled books that production's book was equal to at some moment."),
            Column("rest_inconsistent", "integer", "Polled books that production's book was never equal to."),
            Column(
                "rest_undecided",
                "integer",
                "Polled books that could not be compared: a hole, no checkpoint before, or clocks too far apart.",
            ),
            Column("covered_us", "bigint", "How much of the hour is covered, after withdrawals."),
            Column("withdrawn_us", "bigint", "How much of the hour was claimed and withdrawn."),
            Column("detail", "text", "What failed, in words; empty where nothing did."),
        ),
        key=("hour", "ticker"),
        time_column="hour",
    ),
)

CLOSES = (
    Table(
        "hour_closes",
        "One row per closed hour: its latest close.",
        (
            HOUR,
            Column(
                "closed_at",
                "timestamptz",
                "When the latest close began, by production's clock. For people; close_no decides.",
                default="now()",
            ),
            Column(
                "rows",
                "jsonb",
                "Per table: rows of the hour in production when it was closed. Where rows were dropped since, the"
                " number"
                " that was counted before stays.",
                default="'{}'::jsonb",
            ),
            Column("checkpoints", "bigint", "Checkpoints that the close made.", default="0"),
            Column("gatherers_read", "text[]", "Gatherers that were read by the close.", default="'{}'::text[]"),
            Column(
                "gatherers_missed",
                "text[]",
                "Gatherers that could not be read then; the hour is closed again when they answer.",
                default="'{}'::text[]",
            ),
            Column(
                "may_grow",
                "boolean",
                "A stream that was still open had shown nothing later than the hour: its last moments may be claimed"
                " once"
                " it does, so the hour is closed again an hour later.",
                default="false",
            ),
            Column("markets", "bigint", "Markets that hour_coverage named when the hour was closed.", nullable=True),
            Column("open_us", "bigint", "Their open time in the hour then.", nullable=True),
            Column("covered_us", "bigint", "How much of it was covered then.", nullable=True),
            Column(
                "gatherers_incomplete",
                "text[]",
                "Gatherers that no longer held all that their ledger recorded of the hour: what they claimed of it"
                " before"
                " stays.",
                default="'{}'::text[]",
            ),
            Column(
                "close_no",
                "bigint",
                "Taken when the latest close of the hour began: what has a higher number came after it.",
                default="next_merge_no()",
            ),
            Column(
                "close_id",
                "uuid",
                "Names the latest close of the hour, also where a restored database gives numbers again: compare for"
                " equality.",
                default="gen_random_uuid()",
            ),
        ),
        key=("hour",),
    ),
    Table(
        "hour_parts",
        "Parts of hours that are being closed in several parts, on one machine or on many. The part that finds all"
        " others done closes the hour and removes the rows; so does a close of the hour as a whole.",
        (
            HOUR,
            Column("parts", "integer", "Into how many parts the markets are divided, by a hash of the ticker."),
            Column("part", "integer", "Which of them it is, from 1 on."),
            Column(
                "close_no",
                "bigint",
                "The number of the close, taken when its first part began; all parts of it have the same.",
            ),
            Column("begun_at", "timestamptz", "When its first part began, by production's clock."),
            Column(
                "done_at",
                "timestamptz",
                "When the part was done, by production's clock; NULL before, or when it is to be done again.",
                nullable=True,
            ),
            Column(
                "content",
                "bytea",
                "What was found: claims, proofs, checkpoints and statistics of its markets, for the close that joins"
                " them.",
                nullable=True,
            ),
        ),
        key=("hour", "parts", "part"),
    ),
    Table(
        "closed_streams",
        "What the gatherer's database held of a stream in an hour when that was closed. One that holds less later was"
        " restored, or has lost rows: it is not asked, and what the stream claimed stays.",
        (
            HOUR,
            GATHERER,
            _STREAM_ID,
            Column("seq_to", "bigint", "The last number of the commits that reach into the hour."),
            Column("deltas", "bigint", "Deltas of the hour, of markets that the stream followed."),
        ),
        key=("hour", "gatherer", "stream_id"),
    ),
    Table(
        "merge_statistics",
        "What each gatherer brought to an hour of a table.",
        (
            HOUR,
            GATHERER,
            Column("table_name", "text", "The table."),
            Column("seen", "bigint", "Rows that the gatherer stored."),
            Column(
                "distinct_rows",
                "bigint",
                "The same without its own repetitions (several streams of one gatherer).",
            ),
            Column("unique_rows", "bigint", "Rows that no other gatherer has."),
            Column("first_observer", "bigint", "Rows that the gatherer received first of all."),
            Column(
                "comparable",
                "bigint",
                "Rows of minutes in which another gatherer stored rows of this table as well.",
            ),
            Column("agreed", "bigint", "Of the comparable rows, those that another gatherer has too."),
            Column(
                "agreement",
                "double precision",
                "Share of the comparable rows that another gatherer has too. A fall means that the identity of rows no"
                " longer matches between gatherers.",
                nullable=True,
            ),
        ),
        key=("hour", "gatherer", "table_name"),
    ),
    Table(
        "time_regressions",
        "Where the exchange's time of a market went back within a stream. An empty ticker stands for the stream as a"
        " whole.",
        (
            HOUR,
            GATHERER,
            _STREAM_ID,
            Column("ticker", "text", "The market's ticker; empty for the stream as a whole."),
            Column("steps", "bigint", "How often the time went back."),
            Column("largest_us", "bigint", "The largest distance from the latest time before."),
            Column("exchange_ts", "timestamptz", "The time of the row that went back that far."),
        ),
        key=("hour", "gatherer", "stream_id", "ticker"),
    ),
    Table(
        "misdated_deltas",
        "Changes of a book that were received in the hour and whose exchange time cannot be: production does not hold"
        " them, so the close claims nothing of the market around their receipt.",
        (
            HOUR,
            TICKER,
            Column("deltas", "bigint", "How many."),
            Column("first_received_at", "timestamptz", "When the first of them was received."),
            Column("last_received_at", "timestamptz", "When the last of them was received."),
        ),
        key=("hour", "ticker"),
    ),
    Table(
        "close_alarms",
        "What a person should look at: identity_agreement, time_step_back, claims_disagree, book_proof.",
        (
            HOUR,
            Column("kind", "text", "What kind of alarm it is, see docs/operations.md."),
            Column("subject", "text", "What it is about."),
            Column("detail", "text", "What was found."),
            Column("raised_at", "timestamptz", "When it was raised.", default="clock_timestamp()"),
        ),
        key=("hour", "kind", "subject"),
    ),
)

_IS_BLOCK = Column(
    "is_block_trade",
    "boolean",
    "Whether the row speaks of the block trades of the market-hour, or of all others.",
)
TRADE_CHECKS = (
    Table(
        "trade_checks",
        "One row per hour: the last comparison of production's trades with the exchange's listing (GET /markets/trades,"
        " /historical/trades).",
        (
            HOUR,
            Column(
                "state",
                "text",
                "complete: every listed trade was there. filled: it is now, the missing ones were inserted. differs:"
                " production has trades or values that the listing has not. partial: the listing could not be read"
                " whole. not checked: nobody could ask the exchange.",
            ),
            Column("checked_at", "timestamptz", "When the comparison was made, or given up, by production's clock."),
            Column("reason", "text", "Why the hour was not checked, or what the listing lacked.", nullable=True),
            Column(
                "production_count",
                "bigint",
                "Trades of the hour in production before the comparison, block trades included.",
                default="0",
            ),
            Column(
                "rest_count",
                "bigint",
                "Trades of the hour that the exchange lists, block trades included.",
                default="0",
            ),
            Column(
                "inserted", "bigint", "Listed trades that production lacked and got, with source rest.", default="0"
            ),
            Column(
                "only_in_production", "bigint", "Trades of production that the exchange does not list.", default="0"
            ),
            Column(
                "differing", "bigint", "Trades on both sides whose size, price or kind is not the same.", default="0"
            ),
            Column("skipped", "bigint", "Objects of the listing that could not be read.", default="0"),
        ),
        key=("hour",),
    ),
    Table(
        "trade_parity",
        "One row per market-hour with a trade on either side, block trades apart: they are agreed off the book"
        " and never"
        " touch it.",
        (
            HOUR,
            TICKER,
            _IS_BLOCK,
            Column("production_count", "bigint", "Trades in production before the comparison."),
            Column("production_volume_e2", "bigint", "Their size."),
            Column("rest_count", "bigint", "Trades that the exchange lists."),
            Column("rest_volume_e2", "bigint", "Their size."),
            Column("inserted", "bigint", "Listed trades that production lacked and got, with source rest."),
            Column(
                "only_in_production", "bigint", "Trades of production that the exchange does not list, by trade_id."
            ),
            Column(
                "differing",
                "bigint",
                "Trades on both sides whose size, price or kind is not the same; production's stay as they are.",
            ),
            Column(
                "from_rest",
                "bigint",
                "Trades of production that no stream brought: filled by this comparison or an earlier one.",
            ),
            Column("state", "text", "complete, filled or differs; see trade_checks.state."),
            Column("checked_at", "timestamptz", "When the comparison was made, by production's clock."),
        ),
        key=("hour", "ticker", "is_block_trade"),
    ),
    Table(
        "trade_listing",
        "Trades of an hour (and a minute around it) as the exchange lists them, while they are compared; empty"
        " otherwise.",
        (
            Column("hour", "timestamptz", "The start of the hour that is compared."),
            Column("exchange_ts", "timestamptz", "The exchange's time of the trade, floored to the millisecond."),
            TICKER,
            Column("trade_id", "text", "The exchange's identifier of the trade."),
            Column("yes_price_e4", "integer", "Price of the yes contract."),
            Column("no_price_e4", "integer", "Price of the no contract."),
            Column("count_e2", "bigint", "Contracts traded."),
            Column("taker_side", "text", "Outcome that the taker bought, where the exchange says it.", nullable=True),
            Column("is_block_trade", "boolean", "Whether the trade was negotiated off the book."),
            Column(
                "created_time", "timestamptz", "The exchange's time of the trade, to the microsecond.", nullable=True
            ),
            Column("received_at", "timestamptz", "This platform's clock when the listing was read."),
        ),
        key=("hour", "ticker", "trade_id"),
    ),
)
