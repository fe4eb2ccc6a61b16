"""Puts finished segments of a gatherer's journal into the lake, an hour at a time, on the host of the gatherer.

Each segment is read back from the lake: the file by its checksum, every block in it by its own. Only then does the
hour's manifest name it, and only then is it recorded beside the journal that it may be removed there. Wherever a run is
cut short, the lake holds the hour as its manifest says, and the next run continues.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from filelock import FileLock, Timeout

from kalshi_platform.clock import Clock
from kalshi_platform.errors import ConfigurationError, LakeArchived, LakeCorrupt, LakeUnavailable, PartitionBusy
from kalshi_platform.gatherer.journal.archived import ArchivedSegments, read_archived, write_archived
from kalshi_platform.gatherer.journal.block_format import Damage, FormatError, SegmentInfo
from kalshi_platform.gatherer.journal.keeping import compress_segment
from kalshi_platform.gatherer.journal.reader import JournalReader
from kalshi_platform.gatherer.journal.segments import (
    FOLDER,
    compressed_name,
    is_compressed,
    list_segments,
    read_segment_info,
)
from kalshi_platform.gatherer.lock import is_folder_locked
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.lake.frame_archive import (
    ArchivedSegment,
    FramesManifest,
    FramesPartition,
    encode_frames,
    find_differences,
    find_segment,
    frames_partition,
    read_frames_manifest,
    segment_name,
    segment_number_of,
)
from kalshi_platform.lake.index import index_frames
from kalshi_platform.lake.manifest import code_version
from kalshi_platform.lake.store import Lake, open_store
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.times import HOUR, hour_of
from kalshi_platform.monitoring.event_log import event_logger

_log = event_logger(__name__)
_LOCK_FILE = "archive.lock"
_LOCK_PATIENCE_S = 30.0
_PAGE_BYTES = 4_096
_S_NS = 1_000_000_000


@dataclass(frozen=True)
class ArchivedHour:
    """What the lake holds of an hour now, None for nothing, and how many segments of it this run added."""

    partition: FramesPartition
    manifest: FramesManifest | None
    added: int


@dataclass(frozen=True)
class _LocalSegment:
    """A finished segment in the gatherer's folder."""

    path: Path
    info: SegmentInfo

    @property
    def hour(self) -> datetime:
        return hour_of(datetime.fromtimestamp(self.info.received_from_ns // _S_NS, UTC))


@dataclass(frozen=True)
class _Journal:
    """The finished segments of a folder that can be named, and the hour of the one that is still written, if any is."""

    segments: Mapping[int, _LocalSegment]
    unfinished_hour: datetime | None

    def is_finished(self, hour: datetime, now: datetime) -> bool:
        """Return whether no more segments of an hour are to come."""
        return now >= hour + HOUR if self.unfinished_hour is None else self.unfinished_hour > hour


def journal_folder(gatherer: GathererSettings) -> Path:
    """Return the folder of a gatherer's journal."""
    return gatherer.folder / FOLDER


def find_hours_to_archive(gatherer: GathererSettings, lake_root: str, clock: Clock) -> list[datetime]:
    """Return the hours of which the journal holds finished segments that are not in this lake, or that can be closed.

    Only headers of segments are read. Raises OSError.
    """
    folder = journal_folder(gatherer)
    known = read_archived(folder)
    journal = _read_journal(gatherer, known if known is not None and known.lake == lake_root else None)
    hours = {each.hour for each in journal.segments.values()}
    if known is not None and known.lake == lake_root:
        hours |= {hour for hour in known.open_hours if journal.is_finished(hour, clock.now())}
    return sorted(hours)


def archive_hour(lake: Lake, gatherer: GathererSettings, hour: datetime, clock: Clock) -> ArchivedHour:
    """Archive the finished segments that a gatherer's journal holds of the hour that starts at `hour`.

    What the lake holds already is not written again. The manifest is closed once a later hour is recorded, or none at
    all and the hour is over; one that is lost is made anew from the segments there. Raises PartitionBusy (another run
    archives this journal), ConfigurationError, LakeUnavailable, LakeCorrupt (a segment is not what was written: nothing
    is recorded as archived), UnknownPartition.
    """
    partition = frames_partition(gatherer.name, hour)
    store, folder = open_store(lake), journal_folder(gatherer)
    with _alone(folder):
        before = _read_current(store, partition)
        # Before the segments are listed, so that none which comes meanwhile is taken for absent.
        now = clock.now()
        journal = _read_journal(gatherer, None)
        local = {number: each for number, each in journal.segments.items() if each.hour == partition.start}
        held = _recover_segments(store, partition, local) if before is None else before.segments
        if not held and not local:
            return ArchivedHour(partition, None, 0)
        known = read_archived(folder)
        trusted = known if known is not None and known.lake == store.root else None
        segments, added = _add_segments(store, partition, held, local, trusted)
        is_closed = journal.is_finished(partition.start, now)
        manifest = FramesManifest(
            gatherer=gatherer.name,
            partition=partition.key,
            state="closed" if is_closed else "open",
            segments=segments,
            archived_at=now,
            code_version=code_version(),
        )
        manifest = _publish(store, partition, before, manifest)
        index_frames(store, partition, manifest)
        _record(folder, store.root, partition, manifest, journal)
    _log.info(
        "frames_archived",
        gatherer=gatherer.name,
        hour=partition.key,
        state=manifest.state,
        segments=len(segments),
        added=added,
        frames=manifest.frames,
        size_bytes=manifest.bytes,
    )
    return ArchivedHour(partition, manifest, added)


def verify_hour(lake: Lake, gatherer: str, hour: datetime) -> FramesManifest | None:
    """Read everything back that the lake holds of an hour of frames; return its manifest, None where there is none.

    Raises LakeCorrupt, naming each difference, LakeArchived, LakeUnavailable, UnknownPartition.
    """
    store, partition = open_store(lake), frames_partition(gatherer, hour)
    manifest = read_frames_manifest(store, partition)
    if manifest is None:
        return None
    if problems := find_differences(store, partition, manifest.segments):
        raise LakeCorrupt(f"{partition.path}: {'; '.join(problems)}")
    return manifest


def summarize_segment(path: Path, name: str, info: SegmentInfo) -> ArchivedSegment:
    """Read a compressed segment whole, each block by its checksum; describe it. Raises OSError.

    `path` has the name of a segment's file; `name` is the one in the lake.
    """
    blocks = frames = damages = 0
    first: int | None = None
    last: int | None = None
    with closing(JournalReader([path])) as reader:
        while (item := reader.next()) is not None:
            if isinstance(item, Damage):
                damages += not item.is_torn
                continue
            blocks += 1
            times = item.batch.received_at_ns
            frames += len(times)
            if times:
                first = min(times) if first is None else min(first, *times)
                last = max(times) if last is None else max(last, *times)
        bytes_raw = reader.position.offset
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            digest.update(chunk)
    return ArchivedSegment(
        name=name,
        number=info.number,
        journal_id=info.journal_id,
        created_at_ns=info.created_at_ns,
        sha256=digest.hexdigest(),
        bytes=path.stat().st_size,
        bytes_raw=bytes_raw,
        blocks=blocks,
        frames=frames,
        damages=damages,
        received_min_ns=first,
        received_max_ns=last,
        code_version=info.code_version,
    )


def _add_segments(
    store: ObjectStore,
    partition: FramesPartition,
    kept: tuple[ArchivedSegment, ...],
    local: Mapping[int, _LocalSegment],
    trusted: ArchivedSegments | None,
) -> tuple[tuple[ArchivedSegment, ...], int]:
    """Store what the manifest before does not hold intact; return all segments of the hour, and how many are new.

    `kept`: what it named. Segments that are `trusted` were read back before: only their size is compared.
    """
    held = {each.identity: each for each in kept}
    sizes = {
        stored.path.removeprefix(f"{partition.path}/"): stored.bytes for stored in store.list(f"{partition.path}/")
    }
    new: list[ArchivedSegment] = []
    with store.staging() as staging:
        files: dict[str, Path] = {}
        for number, each in sorted(local.items()):
            before = find_segment(kept, each.info.identity)
            if before is not None and sizes.get(before.name) == before.bytes:
                is_trusted = trusted is not None and trusted.has(*each.info.identity)
                if is_trusted or _is_intact(store, partition, before):
                    continue
            name = segment_name(each.info.identity, kept) if before is None else before.name
            file = _stage(each.path, number, staging)
            new.append(summarize_segment(file, name, each.info))
            files[f"{partition.path}/{name}"] = file
        if files:
            store.put_files(files)
    for each_new in new:
        _verify(store, partition, each_new, local[each_new.number].info)
    replaced = {each.name for each in new}
    held = {at: each for at, each in held.items() if each.name not in replaced} | {each.identity: each for each in new}
    # A journal that was begun anew came after the one before.
    journals = list(dict.fromkeys(journal_id for journal_id, _, _ in held))
    return tuple(held[at] for at in sorted(held, key=lambda at: (journals.index(at[0]), *at[1:]))), len(new)


def _read_current(store: ObjectStore, partition: FramesPartition) -> FramesManifest | None:
    """The manifest that is there now; None also where what lies in its place cannot be read."""
    try:
        return read_frames_manifest(store, partition)
    except LakeCorrupt as error:
        _log.warning(
            "manifest_unreadable",
            partition=partition.path,
            error=error,
            consequence="it is made anew from the segments",
        )
        return None


def _recover_segments(
    store: ObjectStore, partition: FramesPartition, local: Mapping[int, _LocalSegment]
) -> tuple[ArchivedSegment, ...]:
    """Describe the segments that lie in the lake without a manifest, but for those that the journal still has."""
    ours = {each.info.identity for each in local.values()}
    found: list[ArchivedSegment] = []
    for stored in list(store.list(f"{partition.path}/")):
        name = stored.path.removeprefix(f"{partition.path}/")
        number = segment_number_of(name)
        if number is None:
            continue
        with store.staging() as staging:
            file = staging / compressed_name(number)
            if store.fetch(stored.path, file):
                segment = summarize_segment(file, name, read_info(file, partition.gatherer, number, None))
                if segment.identity not in ours:
                    found.append(segment)
    return tuple(sorted(found, key=lambda each: each.received_min_ns or 0))


def _stage(path: Path, number: int, staging: Path) -> Path:
    """Copy a segment into a staging folder, compressed; return its file. Raises LakeUnavailable if a disk refuses."""
    try:
        try:
            file = _copy_readable(path, staging)
        except FileNotFoundError:  # the gatherer has just compressed it
            file = _copy_readable(path.with_name(compressed_name(number)), staging)
        return file if is_compressed(file) else compress_segment(staging, number)
    except OSError as error:
        raise LakeUnavailable(f"{path} could not be copied on its way to the lake: {error}") from error


def _copy_readable(path: Path, folder: Path) -> Path:
    """Copy a file into a folder; what its disk cannot read becomes zeros, which a reader finds to be a damage.

    Else one bad sector would keep every later segment on the disk. Raises OSError.
    """
    copy = folder / path.name
    try:
        return Path(shutil.copyfile(path, copy))
    except OSError as error:
        if error.errno != errno.EIO:
            raise
    lost = 0
    with path.open("rb", buffering=0) as source, copy.open("wb") as target:
        size = os.fstat(source.fileno()).st_size
        for at in range(0, size, _PAGE_BYTES):
            wanted = min(_PAGE_BYTES, size - at)
            try:
                page = os.pread(source.fileno(), wanted, at)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                page = b""
            lost += wanted - len(page)
            target.write(page.ljust(wanted, b"\0"))
    _log.error("segment_partly_unreadable", segment=str(path), size_bytes=size, lost_bytes=lost)
    return copy


def _is_intact(store: ObjectStore, partition: FramesPartition, segment: ArchivedSegment) -> bool:
    try:
        return not find_differences(store, partition, (segment,))
    except LakeArchived:  # nobody writes there, and to look at it would cost a restoration
        return True


def _verify(store: ObjectStore, partition: FramesPartition, segment: ArchivedSegment, info: SegmentInfo) -> None:
    """Read a segment back from the lake, each block too. Raises LakeCorrupt."""
    path = f"{partition.path}/{segment.name}"
    with store.staging() as staging:
        file = staging / compressed_name(segment.number)
        if not store.fetch(path, file):
            raise LakeCorrupt(f"{path} was stored and is not there; archive the hour again")
        found = summarize_segment(file, segment.name, info)
    if found != segment:
        raise LakeCorrupt(f"{path} is not what was stored; archive the hour again")


def _publish(
    store: ObjectStore, partition: FramesPartition, before: FramesManifest | None, manifest: FramesManifest
) -> FramesManifest:
    """Write the manifest, unless the one before says the same; return the one that stands."""
    if before is not None and before == msgspec.structs.replace(
        manifest, archived_at=before.archived_at, code_version=before.code_version
    ):
        return before
    store.write(partition.manifest_path, encode_frames(manifest))
    if read_frames_manifest(store, partition) != manifest:
        raise LakeCorrupt(f"{partition.manifest_path} is not what was stored; archive the hour again")
    return manifest


def _record(folder: Path, root: str, partition: FramesPartition, manifest: FramesManifest, journal: _Journal) -> None:
    """Record beside the journal what of it the lake holds, so that it may be removed."""
    if not journal.segments:
        return
    journal_id = max(journal.segments.items())[1].info.journal_id
    known = read_archived(folder)
    if known is None or known.journal_id != journal_id or known.lake != root:
        known = ArchivedSegments(journal_id=journal_id, lake=root)
    segments = {each.number: each.created_at_ns for each in manifest.segments if each.journal_id == journal_id}
    is_open = {partition.start} if manifest.state == "open" else set()
    archived = msgspec.structs.replace(
        known,
        segments=known.segments | segments,
        open_hours=known.open_hours - {partition.start} | is_open,
    )
    write_archived(folder, archived, list_segments(folder))


def _read_journal(gatherer: GathererSettings, known: ArchivedSegments | None) -> _Journal:
    """List the finished segments, without those that are `known` to be archived. Raises OSError.

    The last one is finished once no process writes to the folder: the next one begins another.
    """
    paths = list_segments(journal_folder(gatherer))
    unfinished = max(paths, default=None) if is_folder_locked(gatherer) else None
    found: dict[int, _LocalSegment] = {}
    unfinished_hour = None
    journal_id: int | None = None
    # The newest first: it says which journal this is.
    for number, path in sorted(paths.items(), reverse=True):
        try:
            segment = _LocalSegment(path, read_info(path, gatherer.name, number, journal_id))
        except FileNotFoundError:  # compressed or removed meanwhile: the next run finds what there is
            continue
        journal_id = segment.info.journal_id
        if known is not None and journal_id != known.journal_id:
            known = None
        if number == unfinished:
            unfinished_hour = segment.hour
        elif known is None or not known.has(*segment.info.identity):
            found[number] = segment
    return _Journal(found, unfinished_hour)


def read_info(path: Path, gatherer: str, number: int, journal_id: int | None) -> SegmentInfo:
    """Read the header of a segment; of one with a damaged header what its blocks and `journal_id`, its next one's, say.

    When that was created is then 0. Of what its disk cannot read the time of its last change says the hour. Raises
    OSError.
    """
    try:
        return read_segment_info(path)
    except (FormatError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EIO:
            raise
        received_ns = written_ns = path.stat().st_mtime_ns
        with closing(JournalReader([path])) as reader, suppress(OSError):
            while isinstance(item := reader.next(), Damage):
                pass
            received_ns = written_ns if item is None else item.received_at_ns
        return SegmentInfo(journal_id or 0, gatherer, number, 0, received_ns, code_version="")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the lock of the archive of a journal. Raises PartitionBusy, ConfigurationError."""
    if not folder.is_dir():
        raise ConfigurationError(
            [f"there is no journal in {folder}: archive on the gatherer's host, with its KALSHI_STATE_DIR"]
        )
    try:
        with FileLock(folder / _LOCK_FILE, _LOCK_PATIENCE_S, mode=0o600):
            yield
    except Timeout:
        raise PartitionBusy(f"another run archives the journal in {folder}; try again when it is done") from None
