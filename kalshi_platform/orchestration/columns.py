"""Column schemas for the asset pages, read from the SQL files that make the tables, so that both cannot disagree."""

from __future__ import annotations

import re
from functools import cache

import dagster as dg

from kalshi_platform.storage.migrate import DatabaseKind, files_of

_TABLE = re.compile(
    r"(?:create_series_table\('(?P<series>\w+)',\s*\$c\$(?P<series_body>.*?)\$c\$"
    r"|CREATE TABLE IF NOT EXISTS (?P<plain>\w+) \((?P<plain_body>[^;]*?)\n\);)",
    re.DOTALL,
)
_COLUMN = re.compile(r"^(?P<name>[a-z_0-9]+)\s+(?P<type>[a-z]+(?:\[\])?)(?P<rest>.*)$")
_COMMENT = re.compile(r"COMMENT ON (TABLE|COLUMN) (?P<target>[\w.]+) IS '(?P<text>(?:[^']|'')*)';")
_KEY = re.compile(r"PRIMARY KEY \((?P<columns>[^)]+)\)")

_UNITS = (
    ("_e4", "1/10,000 dollar"),
    ("_e2", "1/100 contract"),
    ("_e6", "1/1,000,000 dollar"),
)
_MEANINGS = {
    "exchange_ts": "the exchange's clock, UTC",
    "received_at": "this platform's clock when the bytes were read, UTC",
    "known_at": "this platform's clock when the knowledge was obtained, UTC",
    "anchor_ts": "the book holds at the end of this moment, UTC",
    "snapshot_ts": "when the book was received, or the minute of the poll, UTC",
    "ticker": "the market (or event, or series) on the exchange",
    "stream_id": "the subscription of one connection that brought the row",
    "seq": "the exchange's number of the frame within that stream",
    "occurrence": "how many equal rows of this timestamp the stream had before",
    "gatherer": "who brought the row first",
    "batch_no": "the commit that brought the row",
    "fingerprint": "64-bit hash of the content",
    "payload": "the exchange's whole object",
}


@cache
def _tables(kind: DatabaseKind) -> dict[str, tuple[dg.TableSchema, str]]:
    text = "\n".join(file.text for file in files_of(kind))
    comments = {match["target"]: match["text"].replace("''", "'") for match in _COMMENT.finditer(text)}
    found: dict[str, tuple[dg.TableSchema, str]] = {}
    for match in _TABLE.finditer(text):
        name = match["series"] or match["plain"]
        body = match["series_body"] or match["plain_body"]
        found[name] = (_schema(name, body, comments), comments.get(name, ""))
    return found


def table_schema(kind: DatabaseKind, table: str) -> dg.TableSchema:
    """The columns of a table, with units and comments."""
    return _tables(kind)[table][0]


def table_comment(kind: DatabaseKind, table: str) -> str:
    """The comment on a table ("" without one)."""
    return _tables(kind)[table][1]


def column_metadata(kind: DatabaseKind, table: str) -> dict[str, object]:
    """Metadata for an asset's definition: what the Columns tab of its page shows, and the table's name."""
    return {"dagster/column_schema": table_schema(kind, table), "dagster/table_name": f"{kind}.{table}"}


def lake_metadata(key: str) -> dict[str, object]:
    """The same for a data set of the lake; `key` is `<layer>/<name>`."""
    from kalshi_platform.lake.schema import DATASETS

    data = DATASETS[key]
    columns = []
    for field in data.schema:
        notes = {name.decode(): text.decode() for name, text in (field.metadata or {}).items()}
        description = "; ".join(text for text in (notes.get("unit"), notes.get("description")) if text)
        constraints = dg.TableColumnConstraints(
            nullable=field.nullable, other=["key"] if field.name in data.identity else []
        )
        columns.append(dg.TableColumn(field.name, str(field.type), description or None, constraints))
    return {"dagster/column_schema": dg.TableSchema(columns), "dagster/table_name": f"lake.{key}"}


def meaning(column: str) -> str | None:
    """What a column's name says about its unit or origin."""
    for suffix, unit in _UNITS:
        if column.endswith(suffix):
            return unit
    return _MEANINGS.get(column)


def _schema(table: str, body: str, comments: dict[str, str]) -> dg.TableSchema:
    key = _KEY.search(body)
    key_columns = {name.strip() for name in key["columns"].split(",")} if key else set()
    columns = []
    for line in body.splitlines():
        match = _COLUMN.match(line.strip().rstrip(","))
        if match is None or match["name"].upper() in ("PRIMARY", "CHECK"):
            continue
        name, rest = match["name"], match["rest"]
        is_key = name in key_columns or "PRIMARY KEY" in rest
        columns.append(
            dg.TableColumn(
                name,
                match["type"],
                description=comments.get(f"{table}.{name}") or meaning(name),
                constraints=dg.TableColumnConstraints(
                    nullable=not is_key and "NOT NULL" not in rest, other=["key"] if is_key else []
                ),
            )
        )
    return dg.TableSchema(columns)
