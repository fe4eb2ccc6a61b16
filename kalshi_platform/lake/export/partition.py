"""Production, or raw hours of the lake → one partition of the lake, streamed in bounded memory.

`closed` promises that production has closed the time and holds what it held then; `open` is a look at what is there,
and never replaces `closed`.
An empty partition gets one file without rows, because readers that take a glob fail where it matches nothing, and learn
the columns and their types from the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path

import msgspec
import pyarrow as pa

from kalshi_platform.clock import SYSTEM_CLOCK, Clock
from kalshi_platform.errors import FewerRows, HourNotClosed, LakeCorrupt, LakeUnavailable, PartitionBusy
from kalshi_platform.lake import queries
from kalshi_platform.lake.closes import CountedRows, HourState, closes_of, counted_rows, hour_states, unclosed
from kalshi_platform.lake.derive import derive_day, find_raw_hours
from kalshi_platform.lake.export.parquet import Parts, to_schema, write_parts
from kalshi_platform.lake.export.production_rows import count_rows, rows_in_order, rows_of_statement
from kalshi_platform.lake.export.publish import publish, read_current, remove, republish
from kalshi_platform.lake.export.read_ahead import read_ahead
from kalshi_platform.lake.export.record_sort import CountedTicker
from kalshi_platform.lake.index import index_partition, lock_name
from kalshi_platform.lake.layout import Partition, find_dataset, partition_starting
from kalshi_platform.lake.manifest import Manifest, State, code_version, read_manifest
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.monitoring.event_log import event_logger
from kalshi_platform.monitoring.progress import report_progress
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
    changed. Of a raw hour whose rows production has dropped the published files stay, and the manifest names the
    present close. Raises HourNotClosed (the time runs still, or production has not closed it, or not again after late
    rows), FewerRows (production has lost rows of the time since its close or the export before; `allow_fewer_rows`
    allows that, but not to replace what the lake alone still holds), StaleInput (the raw hours that it is made from are
    not in the lake, or not of production's present closes), PartitionBusy (another export writes it), LakeCorrupt (the
    rows streamed are not those counted in the same snapshot, or `open` meets a manifest that cannot be read),
    SchemaMismatch, DatabaseUnavailable, LakeUnavailable, ConfigurationError. Whatever is raised, what was
    published before can be read.
    """
    _check_ended(partition, state, clock)
    store = open_store(lake)
    with _exclusive(production_url, store, partition) as (database, lock):
        published = _find_published(store, partition, state)
        current = None if published is None else published.manifest
        if state == "open" and current is not None and current.state == "closed":
            _log.info("closed_partition_kept", partition=partition.path)
            return current
        path = partition.path if state == "closed" else partition.open_path
        with store.staging() as folder:
            if partition.dataset.builder is None:
                content = _from_production(production_url, store, partition, state, published, allow_fewer_rows, folder)
            else:
                content = _from_raw_hours(production_url, store, partition, current, allow_fewer_rows, folder)
            if content.parts is None and published is not None:
                path = published.path
                manifest = _with_closes(published.manifest, content.hours, clock)
                manifest = republish(store, path, manifest, published.manifest, lock.is_held)
            else:
                manifest = _manifest_of(partition, state, content, clock)
                manifest = publish(store, path, content.written, manifest, read_current(store, path), lock.is_held)
        _remove_elsewhere(store, partition, path, published)
        _index(database, store, partition)
    _log.info("partition_exported", partition=path, rows=manifest.rows, size_bytes=manifest.bytes, state=state)
    return manifest


@dataclass(frozen=True)
class _Published:
    """A partition that stands in the place of closed ones, today's or the former; its manifest can be read."""

    path: str
    manifest: Manifest


def _find_published(store: ObjectStore, partition: Partition, state: State) -> _Published | None:
    """Find what is published. Raises LakeCorrupt where a look at open rows meets a manifest that cannot be read.

    A closed export makes such a partition anew; it may be a closed one, which no open export replaces.
    """
    for path in filter(None, (partition.path, partition.former_path)):
        try:
            manifest = read_manifest(store, path) if state == "open" else read_current(store, path)
        except LakeCorrupt as error:
            raise LakeCorrupt(
                f"{path} may hold a closed partition ({error}), which an open export does not replace: nothing was"
                f" changed; export it without --open: kalshi-platform export {partition.dataset.key} {partition.key}"
            ) from error
        if manifest is not None:
            return _Published(path, manifest)
    return None


def _remove_elsewhere(store: ObjectStore, partition: Partition, path: str, published: _Published | None) -> None:
    """Take away what the partition at `path` replaces in other folders.

    A closed one replaces all; where it stayed in its former folder, or an open one was exported, only what is open.
    """
    if path == partition.path:
        others = {partition.former_path, partition.open_path}
    else:
        is_open = published is not None and published.manifest.state == "open"
        others = {published.path if is_open and published is not None else None, partition.open_path}
    for other in filter(None, others - {path}):
        remove(store, other)


def _manifest_of(partition: Partition, state: State, content: _Content, clock: Clock) -> Manifest:
    parts = content.written
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
        coverage_share=content.coverage_share,
    )
    return _with_closes(manifest, content.hours, clock)


def _with_closes(manifest: Manifest, hours: Sequence[HourState], clock: Clock) -> Manifest:
    """A manifest that names the present closes of its hours."""
    return msgspec.structs.replace(
        manifest,
        exported_at=clock.now(),
        closed_at=max((hour.closed_at for hour in hours if hour.closed_at is not None), default=None),
        closes=closes_of(hours),
        close_no=max((hour.close_no for hour in hours if hour.close_no is not None), default=None),
    )


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
    """What a partition is published with: its hours as production has closed them, its files, its share of coverage.

    `parts`: None where the files that are published stay.
    """

    hours: Sequence[HourState]
    parts: Parts | None
    coverage_share: float | None = None

    @property
    def written(self) -> Parts:
        """The new files."""
        assert self.parts is not None  # noqa: S101 - asked for only where files were written
        return self.parts


def _from_production(
    production_url: str,
    store: ObjectStore,
    partition: Partition,
    state: State,
    published: _Published | None,
    allow_fewer_rows: bool,
    folder: Path,
) -> _Content:
    """Write the rows that production has of a partition, out of one snapshot; none where it has dropped those."""
    current = None if published is None else published.manifest
    with arrow_snapshot(production_url) as snapshot:
        hours = _closed_hours(snapshot, partition) if state == "closed" else []
        counted = _count(snapshot, partition)
        before = counted_rows(snapshot, partition)
        if state == "closed" and before.gone and _keeps_published(store, partition, counted, published):
            return _Content(hours, None)
        complete = state == "open" or _check_complete(partition, counted, before, hours, current, allow_fewer_rows)
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
            reported = _report_rows(batches, partition)
            return _Content(hours, write_parts(reported, partition.dataset, folder, about=_about(partition, "closed")))


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


def _keeps_published(store: ObjectStore, partition: Partition, counted: _Counted, published: _Published | None) -> bool:
    """Whether the files that are published stay, because production has dropped rows which they hold.

    Whatever is allowed, these are the only copy: an export neither replaces them by what is left nor fails. Raises
    FewerRows where files lie there that are no whole closed partition, or where it is made from several hours.
    """
    paths = filter(None, (partition.path, partition.former_path))
    stored = {each.path: each.bytes for path in paths for each in store.list(f"{path}/")}
    if not stored or (published is not None and published.manifest.rows <= counted.rows):
        return False
    name = f"{partition.dataset.key} {partition.key}"
    is_whole = (
        published is not None
        and published.manifest.state == "closed"
        and all(stored.get(f"{published.path}/{file.name}") == file.bytes for file in published.manifest.files)
    )
    if published is None or not is_whole or partition.dataset.statement:
        raise FewerRows(
            f"{name}: production has dropped rows of it and holds {counted.rows}; what lies in the lake may be all that"
            " is left of them and stays, with --allow-fewer-rows too. Where its manifest or files are damaged bring"
            f" them back from a copy of the lake, or move {partition.path} away and export with --allow-fewer-rows",
            partition=name,
            rows=counted.rows,
            wanted=0 if published is None else published.manifest.rows,
        )
    _log.warning(
        "dropped_partition_kept",
        partition=published.path,
        rows=published.manifest.rows,
        production_rows=counted.rows,
    )
    return True


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
        reported = _report_rows(batches, partition, counted.rows)
        parts = write_parts(reported, data, folder, about=_about(partition, state))
    if parts.rows != counted.rows:
        raise LakeCorrupt(f"{partition.path}: {parts.rows} rows were read, but production holds {counted.rows}")
    return parts


def _report_rows(
    batches: Iterable[pa.RecordBatch], partition: Partition, total: int | None = None
) -> Iterator[pa.RecordBatch]:
    """Pass batches on, and report how many rows there were."""
    rows = 0
    for batch in batches:
        yield batch
        rows += batch.num_rows
        report_progress(f"rows of {partition.dataset.key} {partition.key}", rows, total)


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
