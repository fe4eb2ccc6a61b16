"""Production, or raw hours of the lake → one partition of the lake, streamed in bounded memory.

`closed` promises that production has closed the time and holds what it held then; `open` is a look at what is there,
and never replaces `closed`.
An empty partition gets one file without rows, because readers that take a glob fail where it matches nothing, and learn
the columns and their types from the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import FewerRows, HourNotClosed, LakeCorrupt, LakeUnavailable, PartitionBusy
from kalshi_platform.lake import queries
from kalshi_platform.lake.closes import CountedRows, HourState, closes_of, counted_rows, hour_states, unclosed
from kalshi_platform.lake.derive import derive_day, find_raw_hours
from kalshi_platform.lake.export.parquet import Parts, to_schema, write_parts
from kalshi_platform.lake.export.production_rows import count_rows, rows_in_order, rows_of_statement
from kalshi_platform.lake.export.publish import publish, read_current, remove
from kalshi_platform.lake.export.read_ahead import read_ahead
from kalshi_platform.lake.export.record_sort import CountedTicker
from kalshi_platform.lake.index import index_partition, lock_name
from kalshi_platform.lake.layout import Partition, find_dataset, partition_starting
from kalshi_platform.lake.manifest import Manifest, State, code_version
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.storage.migrate import check
from kalshi_platform.storage.pool import AdvisoryLock, Database
from kalshi_platform.storage.read import ArrowSnapshot, arrow_snapshot

_log = event_logger(__name__)


def export_raw(
    lake: Lake,
    production_url: str,
    table: str,
    hour: datetime,
    state: State,
    clock: Clock = SYSTEM_CLOCK,
    *,
    allow_fewer_rows: bool = False,
) -> Manifest:
    """Export one hour of a raw table; see `export_partition`."""
    partition = partition_starting(find_dataset(f"raw/{table}"), hour)
    return export_partition(lake, production_url, partition, state, clock, allow_fewer_rows=allow_fewer_rows)


def export_daily(
    lake: Lake,
    production_url: str,
    dataset: str,
    day: date,
    state: State,
    clock: Clock = SYSTEM_CLOCK,
    *,
    allow_fewer_rows: bool = False,
) -> Manifest:
    """Export one day of a data set that is not raw; see `export_partition`."""
    partition = partition_starting(find_dataset(dataset), day)
    return export_partition(lake, production_url, partition, state, clock, allow_fewer_rows=allow_fewer_rows)


def export_partition(
    lake: Lake,
    production_url: str,
    partition: Partition,
    state: State,
    clock: Clock = SYSTEM_CLOCK,
    *,
    allow_fewer_rows: bool = False,
) -> Manifest:
    """Export one partition and return the manifest that stands then; the same rows give the same bytes and names.

    `open` over a closed partition changes nothing and returns the closed manifest; so does `closed` where nothing has
    changed. Raises HourNotClosed (the time runs still, or production has not closed it, or not again after late rows),
    FewerRows (production has lost rows of the time since its close or the export before; not with `allow_fewer_rows`),
    StaleInput (the raw hours that it is made from are not in the lake, or not of production's present closes),
    PartitionBusy (another export writes it), LakeCorrupt (the rows streamed are not those counted in the same
    snapshot), SchemaMismatch, DatabaseUnavailable, LakeUnavailable, ConfigurationError. Whatever is raised, what was
    published before can be read.
    """
    _check_ended(partition, state, clock)
    store = open_store(lake)
    with _exclusive(production_url, store, partition) as (database, lock):
        current = read_current(store, partition.path)
        if current is None and partition.former_path is not None:
            current = read_current(store, partition.former_path)
        if state == "open" and current is not None and current.state == "closed":
            _log.info("closed_partition_kept", partition=partition.path)
            return current
        path = partition.path if state == "closed" else partition.open_path
        replaced = read_current(store, path)
        with store.staging() as folder:
            if partition.dataset.builder is None:
                content = _from_production(production_url, partition, state, current, allow_fewer_rows, folder)
            else:
                content = _from_raw_hours(production_url, store, partition, current, allow_fewer_rows, folder)
            hours, parts = content.hours, content.parts
            manifest = Manifest(
                table=partition.dataset.key,
                partition=partition.key,
                state=state,
                rows=parts.rows,
                time_min=parts.time_min,
                time_max=parts.time_max,
                files=(),
                schema_version=partition.dataset.version,
                code_version=code_version(),
                exported_at=clock.now(),
                closed_at=max((hour.closed_at for hour in hours if hour.closed_at is not None), default=None),
                closes=closes_of(hours),
                close_no=max((hour.close_no for hour in hours if hour.close_no is not None), default=None),
                coverage_share=content.coverage_share,
            )
            manifest = publish(store, path, parts, manifest, replaced, lock.is_held)
        for other in filter(None, (partition.path, partition.former_path, partition.open_path)):
            if other != path:
                remove(store, other)
        _index(database, store, partition)
    _log.info("partition_exported", partition=path, rows=manifest.rows, size_bytes=manifest.bytes, state=state)
    return manifest


def _index(database: Database, store: ObjectStore, partition: Partition) -> None:
    """Show the partition in the lake's index; exports of other partitions wait for that."""
    try:
        with database.transaction() as transaction:
            transaction.lock(lock_name(store))
            index_partition(store, partition)
    except LakeUnavailable as error:
        raise LakeUnavailable(
            f"{partition.path} is published, but the lake's index does not show it; export it again, or run:"
            f" kalshi-platform lake-index ({error})"
        ) from error


def _about(partition: Partition, state: State) -> Mapping[str, str]:
    """What every file says of the partition that it is of."""
    return {"kalshi.state": state, "kalshi.partition": partition.key}


@dataclass(frozen=True)
class _Content:
    """What a partition is published with: its hours as production has closed them, its files, its share of coverage."""

    hours: Sequence[HourState]
    parts: Parts
    coverage_share: float | None = None


def _from_production(
    production_url: str,
    partition: Partition,
    state: State,
    current: Manifest | None,
    allow_fewer_rows: bool,
    folder: Path,
) -> _Content:
    """Write the rows that production has of a partition, out of one snapshot."""
    with arrow_snapshot(production_url) as snapshot:
        hours = _closed_hours(snapshot, partition) if state == "closed" else []
        counted = _count(snapshot, partition)
        complete = state == "open" or _check_complete(
            partition, counted, counted_rows(snapshot, partition), hours, current, allow_fewer_rows
        )
        coverage_share = _coverage_share(snapshot, partition) if hours and complete else None
        return _Content(hours, _write(snapshot, partition, state, counted, folder), coverage_share)


def _from_raw_hours(
    production_url: str,
    store: ObjectStore,
    partition: Partition,
    current: Manifest | None,
    allow_fewer_rows: bool,
    folder: Path,
) -> _Content:
    """Write what the lake's own raw hours give; production only says which closes these must be of."""
    with arrow_snapshot(production_url) as snapshot:
        hours = _closed_hours(snapshot, partition)
    if current is not None and current.state == "closed" and not allow_fewer_rows:
        _check_closes_known(partition, hours, current)
    raw = find_raw_hours(store, partition, hours)
    with _explain_full_disk(partition, folder):
        rows = (to_schema(batch, partition.dataset) for batch in derive_day(store, raw, folder))
        with closing(rows), read_ahead(rows) as batches:
            return _Content(hours, write_parts(batches, partition.dataset, folder, about=_about(partition, "closed")))


def _check_closes_known(partition: Partition, hours: Sequence[HourState], current: Manifest) -> None:
    """Raise FewerRows where production does not know of hours any more whose rows the published partition has."""
    forgotten = sorted(set(current.closes) - set(closes_of(hours)))
    if forgotten:
        raise FewerRows(
            f"{partition.dataset.key} {partition.key}: production does not know any more that it closed"
            f" {', '.join(forgotten)} (it was restored to an older state), but the lake holds what is made from that."
            " What is published stays. Close these hours again (kalshi-platform close-hour HOUR), or export with"
            " --allow-fewer-rows (in Dagster: allow_fewer_rows: true) to publish what is left",
            partition=f"{partition.dataset.key} {partition.key}",
            rows=0,
            wanted=current.rows,
        )


@dataclass(frozen=True)
class _Counted:
    """How many rows a partition must have, of a raw table by market; `source`: rows of production it is made from."""

    rows: int
    source: int
    by_ticker: Sequence[CountedTicker] = ()


def _count(snapshot: ArrowSnapshot, partition: Partition) -> _Counted:
    if not partition.dataset.statement:
        by_ticker = count_rows(snapshot, partition)
        rows = sum(each.rows for each in by_ticker)
        return _Counted(rows, rows, by_ticker)
    rows, source = (
        snapshot.table(query).column("rows")[0].as_py()
        for query in (queries.expected_query(partition), queries.source_query(partition))
    )
    return _Counted(rows, source)


def _check_complete(
    partition: Partition,
    counted: _Counted,
    before: CountedRows,
    hours: Sequence[HourState],
    current: Manifest | None,
    allow_fewer_rows: bool,
) -> bool:
    """Whether production still has all rows that it had at the close, and that the lake has.

    Raises FewerRows where it has not, unless that is allowed.
    """
    name = f"{partition.dataset.key} {partition.key}"
    source = partition.dataset.source
    if before.gone or counted.source < before.rows:
        had = f", but had {before.rows} when the time was closed" if before.rows else ""
        gone = f"; those of {_names(before.gone)} were dropped" if before.gone else ""
        what = f"production holds {counted.source} rows of {source}{had}{gone}"
        rows, wanted = counted.source, before.rows
    elif current is not None and counted.rows < _published_rows(partition, hours, current):
        what = f"production gives {counted.rows} rows, but the lake holds {current.rows}"
        rows, wanted = counted.rows, current.rows
    else:
        return True
    if not allow_fewer_rows:
        raise FewerRows(
            f"{name}: {what}. Rows were dropped there, or production was restored to an older state. What is published"
            " stays. Bring the rows back (kalshi-platform close-hour HOUR merges them again from the gatherers), or"
            " export with --allow-fewer-rows (in Dagster: allow_fewer_rows: true) to publish what is left",
            partition=name,
            rows=rows,
            wanted=wanted,
        )
    _log.warning("fewer_rows_exported", partition=partition.path, reason=what, allowed_by="allow_fewer_rows")
    return False


def _published_rows(partition: Partition, hours: Sequence[HourState], current: Manifest) -> int:
    """How many rows of the published partition a new export must have at least."""
    is_same_kind = not partition.dataset.statement or current.schema_version == partition.dataset.version
    if current.state != "closed" or not is_same_kind:
        return 0
    last = max((hour.close_no for hour in hours if hour.close_no is not None), default=0)
    is_made_anew = current.close_no is not None and last > current.close_no
    return 0 if partition.dataset.made_by_close and is_made_anew else current.rows


def _write(snapshot: ArrowSnapshot, partition: Partition, state: State, counted: _Counted, folder: Path) -> Parts:
    """Write the rows of a partition and compare their number with that of the same snapshot."""
    data = partition.dataset
    rows = (
        rows_of_statement(snapshot, partition)
        if data.statement
        else rows_in_order(snapshot, partition, counted.by_ticker, folder)
    )
    with _explain_full_disk(partition, folder), rows as batches:
        parts = write_parts(batches, data, folder, about=_about(partition, state))
    if parts.rows != counted.rows:
        raise LakeCorrupt(f"{partition.path}: {parts.rows} rows were read, but production holds {counted.rows}")
    return parts


@contextmanager
def _explain_full_disk(partition: Partition, folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LakeUnavailable(
            f"{partition.path}: the files cannot be written to {folder.parent} ({error.strerror or error}): nothing was"
            " replaced; make room there, or see what is wrong with it"
        ) from error


def _check_ended(partition: Partition, state: State, clock: Clock) -> None:
    now = clock.now()
    if now < partition.start:
        raise HourNotClosed(f"{partition.dataset.key} {partition.key} lies in the future")
    if state == "open" and partition.dataset.builder is not None:
        raise HourNotClosed(
            f"{partition.dataset.key} is made from closed raw hours of the lake, so it cannot be exported with --open"
        )
    if state == "closed" and now < partition.source_end:
        is_raw = partition.dataset.builder is None
        raise HourNotClosed(
            f"{partition.dataset.key} {partition.key} runs until {partition.source_end:%Y-%m-%d %H:%M}"
            f" UTC; wait for it to end{', or export it as it is with --open' if is_raw else ''}"
        )


def _closed_hours(snapshot: ArrowSnapshot, partition: Partition) -> list[HourState]:
    """The hours of the partition. Raises HourNotClosed when one is not closed, or not any more."""
    hours = hour_states(snapshot, partition.source_start, partition.source_end)
    lacking = unclosed(partition, hours)
    if lacking:
        never = [hour.hour for hour in lacking if hour.closed_at is None]
        reopened = [hour.hour for hour in lacking if hour.closed_at is not None]
        what = f"production has not closed {_names(never)}" if never else ""
        late = f"rows came after the close of {_names(reopened)}" if reopened else ""
        raise HourNotClosed(
            f"{partition.dataset.key} {partition.key}: {' and '.join(filter(None, (what, late)))};"
            " run: kalshi-platform close-hour HOUR, or export what is there with --open"
        )
    return hours


def _coverage_share(snapshot: ArrowSnapshot, partition: Partition) -> float | None:
    """How much of the recorded markets' open time production knows to be complete; None where nothing can say it."""
    if partition.dataset.key != "raw/orderbook_deltas":
        return None
    share: float | None = snapshot.table(queries.coverage_query(partition)).column("share")[0].as_py()
    return share


def _names(hours: Sequence[datetime]) -> str:
    return ", ".join(f"{hour:%Y-%m-%dT%H}" for hour in hours)


@contextmanager
def _exclusive(
    production_url: str, store: ObjectStore, partition: Partition
) -> Iterator[tuple[Database, AdvisoryLock]]:
    database = Database(production_url, name="production")
    try:
        check(database, "production")
        with database.advisory_lock("lake export", store.root, partition.path) as lock:
            if lock is None:
                raise PartitionBusy(f"another export writes {partition.path}; try again when it is done")
            yield database, lock
    finally:
        database.dispose()
