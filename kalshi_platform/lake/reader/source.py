"""Where rows of a range come from: closed partitions of the lake, open ones if wanted, or else production.

A partition is read as one of its manifests says, or from production as a whole, never from both. What is read from
production is looked up in the lake again afterwards: an hour that was exported meanwhile, and may be dropped from
production since, is read from the lake after all.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalshi_platform.errors import LakeCorrupt, LakeUnavailable
from kalshi_platform.lake import queries
from kalshi_platform.lake.closes import closes_of, counted_rows, hour_states, unclosed
from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.lake.export.parquet import to_schema
from kalshi_platform.lake.layout import Partition, partitions_between
from kalshi_platform.lake.manifest import Manifest, find_manifest
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

Holes: TypeAlias = Literal["raise", "mark"]
_T = TypeVar("_T")
_MAX_REPLACEMENTS = 5
_TICKERS_AT_ONCE = 256 * 1024


@dataclass(frozen=True)
class AbsentPartition:
    """A partition that a reader wanted and that is not there: `missing`, or `open` while only closed ones count."""

    partition: Partition
    reason: Literal["missing", "open"]


@dataclass(frozen=True)
class Published:
    """A published partition: the folder that it lies in, and its manifest."""

    partition: Partition
    path: str
    manifest: Manifest


@dataclass(frozen=True)
class Hot:
    """A partition that is read from production; `closes` as a manifest has them, `is_closed`: production has closed it.

    What production no longer has all rows of is no such partition.
    """

    partition: Partition
    closes: Mapping[str, str]
    is_closed: bool


Found: TypeAlias = Published | Hot | AbsentPartition


@dataclass(frozen=True)
class Selection:
    """Which rows are wanted: those of [start, end), of some markets or of all; `columns`: of which columns."""

    start: datetime
    end: datetime
    tickers: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None

    def filter(self, data: Dataset, names: Mapping[str, str | None]) -> pc.Expression:
        """The selection as a filter over files in which the columns are called `names`."""
        time = pc.field(names[data.time_column] or data.time_column)
        kind = data.schema.field(data.time_column).type
        rows = (time >= pa.scalar(self.start, kind)) & (time < pa.scalar(self.end, kind))
        if self.tickers is None or "ticker" not in names:
            return rows
        return pc.field("ticker").isin(pa.array(self.tickers, pa.string())) & rows

    def may_be_in(self, ticker_min: str | None, ticker_max: str | None) -> bool:
        """Whether a file of these first and last tickers, by their bytes, may hold a wanted market."""
        if self.tickers is None or ticker_min is None or ticker_max is None:
            return True
        low, high = ticker_min.encode(), ticker_max.encode()
        return any(low <= ticker.encode() <= high for ticker in self.tickers)


class Source:
    """The lake, and production behind it where `production_url` is given; `open`: open partitions count too.

    Within a `session`, all that comes from production comes from one snapshot, opened when it is needed first.
    """

    def __init__(self, store: ObjectStore, *, open: bool = False, production_url: str | None = None) -> None:
        self.store = store
        self.open = open
        self.production_url = production_url
        self._session: ExitStack | None = None
        self._snapshot: ArrowSnapshot | None = None
        self._hot: dict[Partition, Hot | None] = {}

    @property
    def takes_unclosed(self) -> bool:
        """Whether hours that are not closed yet are wanted."""
        return self.open or self.production_url is not None

    @contextmanager
    def session(self) -> Iterator[Source]:
        """Give this source for one piece of work; a session within a session is part of it."""
        if self._session is not None:
            yield self
            return
        with ExitStack() as session:
            self._session = session
            try:
                yield self
            finally:
                self._session, self._snapshot = None, None
                self._hot.clear()

    def production(self) -> ArrowSnapshot:
        """The snapshot of production of this session."""
        if self.production_url is None or self._session is None:
            raise RuntimeError("production is read within a session of a source that has its address")
        if self._snapshot is None:
            self._snapshot = self._session.enter_context(arrow_snapshot(self.production_url))
        return self._snapshot

    def find(self, data: Dataset, start: datetime, end: datetime) -> Iterator[Found]:
        """Yield the partitions of [start, end), ascending, each with where it is read from."""
        for partition in partitions_between(data, start, end):
            yield self.find_one(partition)

    def find_one(self, partition: Partition) -> Found:
        """Find where a partition is read from."""
        absent = AbsentPartition(partition, "missing")
        if (published := find_manifest(self.store, partition)) is not None:
            if published[1].state == "closed" or (self.open and self.production_url is None):
                return Published(partition, *published)
            absent = AbsentPartition(partition, "open")
        if self.production_url is None or not (partition.dataset.statement or partition.dataset.layer == "raw"):
            return absent
        if partition not in self._hot:
            self._hot[partition] = self._find_hot(partition)
        return self._hot[partition] or absent

    def _find_hot(self, partition: Partition) -> Hot | None:
        snapshot = self.production()
        if counted_rows(snapshot, partition).gone:
            return None
        hours = hour_states(snapshot, partition.start, partition.end)
        closes = closes_of(hours)
        return Hot(partition, closes, bool(closes) and not unclosed(partition, hours))

    def read(self, found: Published | Hot, rows: Selection) -> tuple[pa.Table, Published | Hot]:
        """Read rows of a partition, and return what they were read by: something else where it changed meanwhile."""
        if isinstance(found, Hot):
            table = self._read_production(found.partition, rows)
            now = find_manifest(self.store, found.partition)
            if now is None or now[1].state != "closed":
                return table, found
            found = Published(found.partition, *now)
        return self._read_consistently(found, lambda published: read_published(self.store, published, rows))

    def markets_of(self, found: Published | Hot, rows: Selection) -> set[str]:
        """The markets of which a partition has rows; of one in the lake all that its files hold."""
        if isinstance(found, Hot):
            table, _ = self.read(found, Selection(rows.start, rows.end, rows.tickers, ("ticker",)))
            return set(pc.unique(table.column("ticker")).to_pylist())
        return self._read_consistently(found, lambda published: _read_markets(self.store, published))[0]

    def _read_consistently(self, found: Published, read: Callable[[Published], _T]) -> tuple[_T, Published]:
        """Read a partition by its manifest, and again by the next one where it is replaced meanwhile."""
        for _ in range(_MAX_REPLACEMENTS):
            try:
                return read(found), found
            except (LakeCorrupt, LakeUnavailable):
                current = find_manifest(self.store, found.partition)
                if current is None or current[1] == found.manifest:
                    raise
                found = Published(found.partition, *current)
        raise LakeUnavailable(f"{found.partition.path} is replaced again and again while it is read; read again")

    def _read_production(self, partition: Partition, rows: Selection) -> pa.Table:
        batches = list(hot_batches(self.production(), partition, rows))
        table = pa.Table.from_batches(batches, schema=partition.dataset.schema)
        return table if rows.columns is None else table.select(list(rows.columns))


def make_source(lake: Lake | Source, *, open: bool = False, production_url: str | None = None) -> Source:
    """Make a source of the lake; one that is given stays as it is."""
    return lake if isinstance(lake, Source) else Source(open_store(lake), open=open, production_url=production_url)


def hot_batches(snapshot: ArrowSnapshot, partition: Partition, rows: Selection) -> Iterator[pa.RecordBatch]:
    """Yield rows of a partition from production, in the data set's order, with all its columns."""
    data = partition.dataset
    if data.statement:
        wanted = rows.filter(data, {name: name for name in data.schema.names})
        for batch in snapshot.batches(queries.rows_query(partition)):
            yield from pa.Table.from_batches([to_schema(batch, data)]).filter(wanted).to_batches()
        return
    low, high = max(rows.start, partition.start), min(rows.end, partition.end)
    query = queries.rows_between_query(data, low, high, rows.tickers)
    for batch in snapshot.batches(query):
        yield to_schema(batch, data)


def names_of(found: Published) -> Mapping[str, str | None]:
    """What the files of a partition call today's columns. Raises LakeCorrupt for a version that is not known."""
    data, version = found.partition.dataset, found.manifest.schema_version
    names = data.names_in(version)
    if names is None:
        raise LakeCorrupt(
            f"{found.path} has schema version {version}, this reader knows {data.version}; export it again"
        )
    return names


def read_published(store: ObjectStore, found: Published, rows: Selection) -> pa.Table:
    """Read rows of a partition in today's columns, also where an earlier version had fewer or called them otherwise."""
    data, names = found.partition.dataset, names_of(found)
    schema = data.schema if rows.columns is None else pa.schema([data.schema.field(name) for name in rows.columns])
    wanted = rows.filter(data, names)
    stored = [name for field in schema if (name := names[field.name]) is not None]
    tables = [schema.empty_table()]
    for file in found.manifest.files:
        if not rows.may_be_in(file.ticker_min, file.ticker_max):
            continue
        path = f"{found.path}/{file.name}"
        with store.open(path) or io.BytesIO() as stream:
            size = stream.seek(0, io.SEEK_END)
            if size != file.bytes:
                raise LakeCorrupt(f"{path} has {size} bytes; its manifest says {file.bytes}")
            stream.seek(0)
            try:
                tables.append(
                    _with_names_of_today(pq.read_table(stream, columns=stored, filters=wanted), schema, names)
                )
            except (pa.ArrowInvalid, ValueError, KeyError) as error:
                raise LakeCorrupt(f"{path} cannot be read: {error}") from error
    return pa.concat_tables(tables)


def _read_markets(store: ObjectStore, found: Published) -> set[str]:
    markets: set[str] = set()
    for file in found.manifest.files:
        path = f"{found.path}/{file.name}"
        with store.open(path) or io.BytesIO() as stream:
            try:
                parquet = pq.ParquetFile(stream, read_dictionary=["ticker"])
                for batch in parquet.iter_batches(_TICKERS_AT_ONCE, columns=["ticker"], use_threads=False):
                    markets.update(batch.column(0).dictionary.to_pylist())
            except (pa.ArrowInvalid, ValueError, KeyError) as error:
                raise LakeCorrupt(f"{path} cannot be read: {error}") from error
    return markets


def _with_names_of_today(content: pa.Table, schema: pa.Schema, names: Mapping[str, str | None]) -> pa.Table:
    columns = []
    for field in schema:
        name = names[field.name]
        values = pa.nulls(content.num_rows, field.type) if name is None else content.column(name)
        columns.append(values.cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)
