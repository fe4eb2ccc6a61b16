"""Writes the data dictionary as Markdown: every table of every database and every data set of the lake. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from kalshi_platform.lake.datasets import DATASETS, Dataset
from kalshi_platform.market.tables import DATABASES, Column, Database, Table

_TITLES: dict[Database, tuple[str, str]] = {
    "timeseries": (
        "A gatherer's timeseries database",
        "What one gatherer recorded, and its ledger: what it claims to have seen.",
    ),
    "catalog": (
        "A catalog database",
        "Series, events and markets. Each gatherer has one, and production has these tables too.",
    ),
    "production": (
        "The production database",
        "Every message once, whichever gatherers saw it, and what is known of its completeness.",
    ),
}
_HEADINGS = ("column", "type", "unit", "null", "key", "default", "meaning")


def data_dictionary() -> Iterator[str]:
    """Yield the lines of the page. A table that several databases have stands under the first of them."""
    shown: set[int] = set()
    for kind, (title, text) in _TITLES.items():
        tables = DATABASES[kind]
        yield from ("", f"## {title}", "", text)
        again = [f"`{name}`" for name, table in tables.items() if id(table) in shown]
        if again:
            yield from ("", f"It has these tables of the databases above as well: {', '.join(again)}.")
        for table in tables.values():
            if id(table) not in shown:
                yield from _table(kind, table)
        shown |= {id(table) for table in tables.values()}
    yield from ("", "## The lake", "", "Parquet files, one folder per hour (`raw`) or day; see [the lake](lake.md).")
    for data in DATASETS.values():
        yield from _dataset(data)
    yield ""


def _table(kind: Database, table: Table) -> Iterator[str]:
    notes = [table.meaning]
    if table.time_column:
        notes.append(f"A time-series table, partitioned by `{table.time_column}`.")
    if table.is_view:
        notes.append("A view.")
    yield from ("", f"### {kind}: `{table.name}`", "", " ".join(notes), "")
    yield from _columns(table.columns, table.key)


def _dataset(data: Dataset) -> Iterator[str]:
    source = _code(data.inputs) if data.inputs else f"production's `{data.source}`"
    made = "the table of production" if data.layer == "raw" else f"made from {source}"
    facts = f"{data.kind.capitalize()}, {made}; sorted by {_code(data.order)}; schema version {data.version}."
    yield from ("", f"### lake: `{data.key}`", "", f"{data.description} {facts}", "")
    yield from _columns(data.columns, data.identity)


def _columns(columns: Iterable[Column], key: Sequence[str]) -> Iterator[str]:
    yield _line(_HEADINGS)
    yield _line(["---"] * len(_HEADINGS))
    for column in columns:
        place = str(key.index(column.name) + 1) if column.name in key else ""
        default = "filled by the database" if column.generated else f"`{column.default}`" if column.default else ""
        null = "yes" if column.nullable else ""
        yield _line((f"`{column.name}`", column.type, column.unit, null, place, default, column.meaning))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _code(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
