"""What every database of ours keeps about itself, and what services keep in theirs: switches, heartbeats, drops."""

from __future__ import annotations

from dataclasses import replace

from kalshi_platform.market.tables.definition import Column, Table

MIGRATIONS = Table(
    "schema_migrations",
    "One row per file of sql/ that was applied.",
    (
        Column("name", "text", "The file's path below sql/."),
        Column("sha256", "text", "Hash of the file as it was applied: a file that was changed since is refused."),
        Column("applied_at", "timestamptz", "When it was applied.", default="now()"),
    ),
    key=("name",),
)

COMMON = (
    Table(
        "schema_meta",
        "One row: the mode this database was made in. It never changes; another mode needs a new database.",
        (
            Column("only_row", "boolean", "Always true: the table has one row.", default="true"),
            Column("mode", "text", "native (range partitions) or the TimescaleDB edition."),
            Column("created_at", "timestamptz", "When the database was made.", default="now()"),
        ),
        key=("only_row",),
    ),
    Table(
        "series_tables",
        "Time-series tables of this database, their time column and the span of one partition (chunk).",
        (
            Column("table_name", "text", "The table."),
            Column("time_column", "text", "The column that it is partitioned by."),
            Column("partition_span", "interval", "The span of one partition."),
        ),
        key=("table_name",),
    ),
    Table(
        "dropped_hours",
        "Hours of a time-series table whose rows were dropped, by drop_partitions_before. A partition without any row"
        " leaves no line.",
        (
            Column("table_name", "text", "The table."),
            Column("hour", "timestamptz", "The start of the hour."),
            Column("dropped_at", "timestamptz", "When its rows were dropped.", default="clock_timestamp()"),
        ),
        key=("table_name", "hour"),
    ),
    Table(
        "service_switches",
        "The off switch: a service without a row, or with enabled = true, is kept alive. Names: gatherer/NAME,"
        " deduplicator.",
        (
            Column("service", "text", "gatherer/NAME or deduplicator."),
            Column("enabled", "boolean", "Whether the service is to run."),
            Column("reason", "text", "Why it was switched off or on.", default="''::text"),
            Column("changed_at", "timestamptz", "When it was switched last.", default="now()"),
        ),
        key=("service",),
    ),
    Table(
        "heartbeats",
        "One row per service, written every 5 s by the service itself. run_id: the Dagster run that hosts it, if any.",
        (
            Column("service", "text", "gatherer/NAME or deduplicator."),
            Column(
                "at",
                "timestamptz",
                "When the row was written, by the clock of this database server: its age is clock_timestamp() - at"
                " here, and by no other clock.",
            ),
            Column(
                "started_at",
                "timestamptz",
                "By the clock of the service's host, for people; no age is computed from it.",
            ),
            Column("host", "text", "The host that runs the service."),
            Column("pid", "integer", "Its process there."),
            Column("run_id", "text", "The Dagster run that hosts it, if any.", nullable=True),
            Column("state", "text", "What it is doing, in one word."),
            Column(
                "details",
                "jsonb",
                "Figures of the service: rates, queue, lag in ms, last message, gaps.",
                default="'{}'::jsonb",
            ),
        ),
        key=("service",),
    ),
)

WIRE_SHAPES = Table(
    "wire_shapes",
    "Fields of the exchange's messages and REST objects, one row per path and JSON type, as sampled frames and pages"
    " showed them. A row that is not shipped raised the alarm new_field once, or missing_field where json_type is"
    " absent.",
    (
        Column("source", "text", "frame for a WebSocket message, object for an object of a REST answer."),
        Column(
            "type", "text", "The frame's type, of lifecycle messages with the event type; or the kind of the object."
        ),
        Column(
            "path",
            "text",
            "Where the field stands: names joined by dots, [] for the elements of a list; empty for a type that is new"
            " as a whole.",
        ),
        Column(
            "json_type",
            "text",
            "object, list, str, int, float, bool or null; absent where sampled messages no longer have a field that"
            " each had.",
        ),
        Column("first_seen", "timestamptz", "When this gatherer saw it first."),
        Column("last_seen", "timestamptz", "When it was sampled last; written every ten minutes."),
        Column("is_shipped", "boolean", "Whether this version of the platform knows the field."),
        Column(
            "sample",
            "bytea",
            "The beginning of the first message or object that had it (or lacked it), as it came.",
        ),
    ),
    key=("source", "type", "path", "json_type"),
)
"""In a gatherer's timeseries database alone."""

PRODUCTION_DROPPED_HOURS = replace(
    next(table for table in COMMON if table.name == "dropped_hours"),
    meaning="Hours of a time-series table whose rows were dropped by drop_partitions_before, or which a close found"
    " with fewer rows than the close before had counted. A close that finds them all again takes the line back.",
)
"""In production closes write it as well."""
