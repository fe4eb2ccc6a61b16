"""How far the merge has come: cursors, the activity of hours, what was refused, and what a person should look at."""

from __future__ import annotations

from kalshi_platform.market.tables.definition import Column, Table

GATHERER = Column("gatherer", "text", "The gatherer's name.")
HOUR = Column("hour", "timestamptz", "The start of the hour.")
TICKER = Column("ticker", "text", "The market's ticker.")

MERGE = (
    Table(
        "merge_cursors",
        "The last batch of each gatherer whose rows are in production; moved in the transaction that brings them.",
        (
            GATHERER,
            Column("batch_no", "bigint", "The last batch that was merged."),
            Column("last_commit_batch_no", "bigint", "The last batch with rows that was read.", nullable=True),
            Column(
                "last_commit_at",
                "timestamptz",
                "When the gatherer committed that batch: another moment under its number means that the database was"
                " restored, and numbers anew.",
                nullable=True,
            ),
            Column("merged_at", "timestamptz", "When the cursor was moved last.", default="now()"),
            Column("rows_read", "bigint", "Rows that were read so far.", default="0"),
            Column("last_error", "text", "Why the gatherer could not be read last.", nullable=True),
            Column("last_error_at", "timestamptz", "When that was.", nullable=True),
            Column(
                "token",
                "uuid",
                "The token of batch batch_no: where the gatherer has another one under that number, or none, its"
                " database is not the one that was read, and is read from its beginning. NULL: the batch is older than"
                " tokens, and last_commit_at decides.",
                nullable=True,
            ),
        ),
        key=("gatherer",),
    ),
    Table(
        "merge_counter",
        "Its row lock is held to commit. A row and no sequence: it is restored, and fails over, with the rows it"
        " speaks of.",
        (
            Column("only_row", "boolean", "Always true: the table has one row.", default="true"),
            Column("last_merge_no", "bigint", "The number of the newest merge."),
        ),
        key=("only_row",),
    ),
    Table(
        "hour_activity",
        "Which hours got rows, and when last; an hour whose last_merge_no is higher than its close_no must be closed"
        " again (hour_states says so).",
        (
            HOUR,
            Column("table_name", "text", "The table that got rows."),
            Column("rows_inserted", "bigint", "Rows that merges brought to the hour so far."),
            Column(
                "last_merged_at",
                "timestamptz",
                "For people: production's clock may have been set since. last_merge_no decides.",
            ),
            Column(
                "last_merge_no",
                "bigint",
                "Number of the last merge that brought rows to the hour.",
                default="next_merge_no()",
            ),
        ),
        key=("hour", "table_name"),
    ),
    Table(
        "dead_letters",
        "One row per refused row of a gatherer, however often it was read; of each gatherer and table at most some"
        " thousands. What is in it is in no other table of production, and no coverage claims it.",
        (
            GATHERER,
            Column("table_name", "text", "The table that the row is of."),
            Column("fingerprint", "uuid", "MD5 of the payload."),
            Column(
                "reason",
                "text",
                "refused (production's words are in detail), no_partition (a table stands in its way), out_of_bounds or"
                " misdated (its exchange time cannot be).",
            ),
            Column("detail", "text", "What exactly was wrong with it."),
            Column("payload", "text", "The row as JSON, in the columns of production."),
            Column("quarantined_at", "timestamptz", "When it was put here.", default="clock_timestamp()"),
        ),
        key=("gatherer", "table_name", "fingerprint"),
    ),
    Table(
        "merge_alarms",
        "What a person should look at, raised by the live merge; what the close of an hour raises stands in"
        " close_alarms."
        " A repeated alarm is counted in its row.",
        (
            Column("kind", "text", "What kind of alarm it is, see docs/operations.md."),
            Column("subject", "text", "What it is about."),
            Column("detail", "text", "What was found."),
            Column("times", "bigint", "How often it was raised.", default="1"),
            Column("first_raised_at", "timestamptz", "When it was raised first.", default="clock_timestamp()"),
            Column("last_raised_at", "timestamptz", "When it was raised last.", default="clock_timestamp()"),
        ),
        key=("kind", "subject"),
    ),
    Table(
        "alerts",
        "One row per kind and subject of an alarm that people are told of: what waits to be sent to"
        " KALSHI_ALERT_WEBHOOK_URL, and when it was sent last. Gatherers keep theirs in a file of their folder.",
        (
            Column("kind", "text", "What kind of alarm it is, see docs/operations.md."),
            Column("subject", "text", "What it is about."),
            Column("detail", "text", "What was found last."),
            Column("times", "bigint", "How often it was raised since it was sent last.", default="1"),
            Column(
                "raised_at",
                "timestamptz",
                "When it was raised last, by production's clock.",
                default="clock_timestamp()",
            ),
            Column(
                "is_waiting",
                "boolean",
                "Whether it is to be sent; after a day of vain attempts it is not sent any more.",
                default="true",
            ),
            Column(
                "claimed_until",
                "timestamptz",
                "Until when the process that sends it keeps it from others.",
                nullable=True,
            ),
            Column(
                "sent_at",
                "timestamptz",
                "When it was sent last; it is not sent again within an hour.",
                nullable=True,
            ),
            Column("attempts", "integer", "How often it was tried since it was sent last.", default="0"),
            Column("last_error", "text", "Why the last attempt failed.", nullable=True),
        ),
        key=("kind", "subject"),
    ),
    Table(
        "catalog_cursors",
        "Up to which change of its catalog each gatherer was read. A row taken away here has that catalog read from its"
        " beginning by the next merge.",
        (
            GATHERER,
            Column("change_no", "bigint", "The last change that was read, see the gatherer's catalog_changes."),
            Column(
                "token",
                "uuid",
                "The token of that change: a catalog that has another one under the number was restored or made anew,"
                " and is read from its beginning.",
            ),
            Column("merged_at", "timestamptz", "When the cursor was moved last.", default="clock_timestamp()"),
        ),
        key=("gatherer",),
    ),
    Table(
        "catalog_pending",
        "Objects that were merged while the catalog of a gatherer could not be read; they are read there when it"
        " answers again.",
        (
            GATHERER,
            Column("table_name", "text", "series, events or markets."),
            Column("ticker", "text", "The object's ticker."),
        ),
        key=("gatherer", "table_name", "ticker"),
    ),
)
