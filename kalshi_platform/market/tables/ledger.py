"""The ledger: what a gatherer claims to have seen, committed in the transaction of the rows that it speaks of."""

from __future__ import annotations

from kalshi_platform.market.tables.definition import Column, Table

_STREAM_ID = Column("stream_id", "bigint", "The stream, see streams.")
_BATCH_NO = Column("batch_no", "bigint", "The commit that wrote the row, see batches.")
_TICKER = Column("ticker", "text", "The market's ticker.")

LEDGER = (
    Table(
        "sessions",
        "One row per WebSocket connection. A session without closed_at and without a live writer ended with its"
        " process.",
        (
            Column("session_id", "bigint", "The session's number, drawn by the gatherer."),
            Column("gatherer", "text", "The gatherer's name."),
            Column("connection", "text", "Which of the gatherer's connections it is."),
            Column("url", "text", "The address that it is connected to."),
            Column(
                "use_yes_price",
                "boolean",
                "The scale of no-side prices asked for; false = no-leg scale, always sent by this platform.",
            ),
            Column("opened_at", "timestamptz", "When the connection came up."),
            Column("closed_at", "timestamptz", "When it ended.", nullable=True),
            Column("close_reason", "text", "Why it ended.", nullable=True),
        ),
        key=("session_id",),
    ),
    Table(
        "streams",
        "One row per sid of a session. seq counts the frames of one stream.",
        (
            Column("stream_id", "bigint", "The stream's number, drawn by the gatherer."),
            Column("session_id", "bigint", "The session that carries it."),
            Column("sid", "integer", "The exchange's number of the subscription within the session."),
            Column("channel", "text", "The channel that is subscribed."),
            Column("opened_at", "timestamptz", "When the exchange acknowledged it, or its first frame came."),
            Column("ended_at", "timestamptz", "When it ended.", nullable=True),
            Column("end_reason", "text", "Why it ended.", nullable=True),
        ),
        key=("stream_id",),
    ),
    Table(
        "stream_segments",
        "Contiguous seq [seq_from, seq_to] received and committed with batch_no. Touching segments form a run. Exchange"
        " times are those of the deltas in it.",
        (
            _STREAM_ID,
            Column("seq_from", "bigint", "The first number of the segment."),
            Column("seq_to", "bigint", "The last number of the segment."),
            Column("exchange_ts_min", "timestamptz", "The earliest exchange time of the deltas in it.", nullable=True),
            Column("exchange_ts_max", "timestamptz", "The latest exchange time of the deltas in it.", nullable=True),
            _BATCH_NO,
        ),
        key=("stream_id", "seq_from"),
    ),
    Table(
        "book_subscriptions",
        "One row per interval in which a market's book is followed in a stream: from its snapshot (seq_from) to seq_to"
        " inclusive; open ones last as far as their run.",
        (
            _STREAM_ID,
            _TICKER,
            Column("seq_from", "bigint", "The number of the market's snapshot."),
            Column("seq_to", "bigint", "The last number that counts; NULL while it is open.", nullable=True),
            Column("end_reason", "text", "Why it ended.", nullable=True),
            Column("exchange_index", "integer", "The shard of the exchange that trades the market.", default="0"),
            _BATCH_NO,
        ),
        key=("stream_id", "ticker", "seq_from"),
    ),
    Table(
        "open_book_streams",
        "One row per stream with open book subscriptions. session_id is NULL for a stream that the ledger does not"
        " know.",
        (
            Column("stream_id", "bigint", "The stream, see streams.", nullable=True),
            Column("session_id", "bigint", "The session that carries it.", nullable=True),
            Column("last_seq", "bigint", "The last number that was committed.", nullable=True),
        ),
        is_view=True,
    ),
    Table(
        "sequence_gaps",
        "Frames that did not come: seq_expected … seq_seen - 1.",
        (
            _STREAM_ID,
            Column("seq_expected", "bigint", "The number that should have come."),
            Column("seq_seen", "bigint", "The number that came."),
            Column("detected_at", "timestamptz", "When it was noticed."),
            _BATCH_NO,
        ),
        key=("stream_id", "seq_expected", "seq_seen"),
    ),
    Table(
        "unknown_frames",
        "Messages of an unknown type in a stream of books: they may have changed one. Followed markets go on; that a"
        " book was not changed is shown by its next snapshot, and only then is it claimed from there on. The first of"
        " its type after each snapshot is kept.",
        (
            _STREAM_ID,
            Column("seq", "bigint", "The frame's number within the stream."),
            Column("frame_type", "text", "The type that the message names."),
            Column("ticker", "text", "The market that it names; empty when it may concern any.", default="''::text"),
            _BATCH_NO,
        ),
        key=("stream_id", "seq"),
    ),
    Table(
        "dead_letter_counts",
        "Dead letters that were counted and not kept: of each minute and reason only a sample is stored in"
        " dead_letters.",
        (
            Column("minute", "timestamptz", "The start of the minute."),
            Column("reason", "text", "Why the frames became no rows."),
            Column(
                "counted_by",
                "bigint",
                "The session whose frames these were; for rows that were put aside after that, the process that did.",
            ),
            Column("letters", "bigint", "How many were counted."),
        ),
        key=("minute", "reason", "counted_by"),
    ),
    Table(
        "snapshot_polls",
        "One row per poll of books over REST: the resolution that was achieved. Written a few seconds after the poll.",
        (
            Column("minute", "timestamptz", "The minute that the poll is of."),
            Column("started_at", "timestamptz", "When the poll began."),
            Column("finished_at", "timestamptz", "When it ended."),
            Column("markets_desired", "integer", "Markets whose books the poll should bring."),
            Column("markets_requested", "integer", "Markets whose books were requested within the budget."),
            Column("markets_answered", "integer", "Markets whose books came."),
            Column("markets_failed", "integer", "Markets whose books did not come."),
            Column("requests", "integer", "Requests that were sent."),
            Column("tokens", "double precision", "Read tokens of the account's budget that the requests cost."),
            Column(
                "oldest_age_s",
                "double precision",
                "After the poll: seconds since the book that was answered longest ago, of all desired markets. NULL"
                " when unknown.",
                nullable=True,
            ),
        ),
        key=("minute", "started_at"),
    ),
    Table(
        "batch_counter",
        "Its row lock is held to commit, so batch numbers become visible in order and a cursor over them misses"
        " nothing.",
        (
            Column("only_row", "boolean", "Always true: the table has one row.", default="true"),
            Column("last_batch_no", "bigint", "The number of the newest batch."),
            Column(
                "last_token",
                "uuid",
                "Drawn with last_batch_no; the number alone does not name a batch.",
                default="gen_random_uuid()",
            ),
            Column(
                "owner",
                "bigint",
                "The process that may change the ledger: drawn by it, set in the session that holds the lock of its"
                " name. NULL before the first.",
                nullable=True,
            ),
            Column("owner_name", "text", "The gatherer whose process that is.", nullable=True),
            Column(
                "owner_token",
                "bigint",
                "Written by versions before the journal: drawn for each change of the ledger. Now journal_position"
                " tells which change was the last.",
                nullable=True,
            ),
        ),
    ),
    Table(
        "journal_position",
        "One row: where the next block of the gatherer's journal begins that is not in this database.",
        (
            Column("batch_no", "bigint", "The commit that set the position, see batches; 0 before the first."),
            Column(
                "journal_id",
                "bigint",
                "The journal, by the number in the header of its segments. NULL before the first commit.",
                nullable=True,
            ),
            Column("segment", "bigint", "The number of the segment.", default="0"),
            Column(
                "segment_created_ns",
                "bigint",
                "When the segment was created, by its header, in nanoseconds since 1970: another segment may get the"
                " number of one that was lost. NULL where the header cannot be read.",
                nullable=True,
            ),
            Column("block_offset", "bigint", "Where the block begins in the segment, in bytes.", default="0"),
            Column("updated_at", "timestamptz", "When the position was set.", default="clock_timestamp()"),
        ),
        key=("batch_no",),
    ),
    Table(
        "batches",
        "One row per commit and table: where the rows of a batch lie in time, so that a reader past a cursor"
        " touches only"
        " those partitions. A commit that brought no row leaves one of table_name ledger.",
        (
            Column("batch_no", "bigint", "The number of the commit."),
            Column("table_name", "text", "The table that got rows, or ledger."),
            Column("rows", "bigint", "How many rows."),
            Column("time_min", "timestamptz", "The earliest time of these rows."),
            Column("time_max", "timestamptz", "The latest time of these rows."),
            Column("committed_at", "timestamptz", "When the batch was written.", default="clock_timestamp()"),
            Column(
                "token",
                "uuid",
                "The token of the batch, the same on all its lines. NULL on lines that are older than tokens.",
                nullable=True,
                default="batch_token()",
            ),
            Column(
                "bytes",
                "bigint",
                "About the size of its rows (as Arrow) in bytes; NULL on lines that are older than this column.",
                nullable=True,
            ),
        ),
        key=("batch_no", "table_name"),
    ),
)
