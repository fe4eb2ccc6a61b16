"""Finds the segments that hold the frames of an hour: in the lake, and in the journal on this host."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path

from kalshi_platform.archive.archive_frames import journal_folder, read_info
from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.gatherer.journal.segments import compressed_name, list_segments
from kalshi_platform.gatherer.settings import GathererSettings
from kalshi_platform.lake.frame_archive import FramesPartition, frames_partition, read_frames_manifest
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.times import HOUR, us_from_datetime

# Two connections may be so far apart at the turn of an hour; the writer begins no segment for smaller steps back.
_OVERLAP_NS = 60 * 10**9
_HOUR_NS = 3_600 * 10**9
WARM_UP_NS = 120 * 10**9
"""What is decoded before an hour, so that equal rows are counted as ingest counts them after a start."""


@dataclass(frozen=True)
class _Piece:
    """A segment somewhere: `place` puts it into a folder and returns its path there.

    `ends_ns`: its frames were received before that, by what is known of it alone.
    """

    journal_id: int
    number: int
    created_ns: int
    begins_ns: int
    ends_ns: int
    place: Callable[[Path], Path]

    def is_copy_of(self, other: _Piece) -> bool:
        """Return whether this is the same segment, by what its header says as far as it can be read."""
        is_same_number = (self.journal_id, self.number) == (other.journal_id, other.number)
        return is_same_number and self.created_ns in (0, other.created_ns)


@dataclass(frozen=True)
class HourSources:
    """The segments of an hour as files, in the order of recording; and how many of them came from where.

    Each list holds ascending numbers of one journal.
    """

    journals: tuple[tuple[Path, ...], ...]
    from_lake: int
    from_journal: int


def fetch_hour(store: ObjectStore | None, gatherer: GathererSettings, hour: datetime, folder: Path) -> HourSources:
    """Put the segments into `folder` that hold the frames received in an hour, and those just before.

    The lake comes first; what it does not hold is taken from the journal on this host. Raises LakeUnavailable,
    LakeCorrupt, LakeArchived, UnknownPartition, OSError.
    """
    partition = frames_partition(gatherer.name, hour)
    begins_ns = us_from_datetime(partition.start) * 1_000
    low_ns, high_ns = begins_ns - WARM_UP_NS, begins_ns + _HOUR_NS + _OVERLAP_NS
    found = [] if store is None else _list_archived(store, partition)
    in_lake = len(found)
    for local in _list_local(gatherer):
        if not any(local.is_copy_of(each) for each in found[:in_lake]):
            found.append(local)
    needed: list[list[_Piece]] = []
    for pieces in _runs(found):
        # Where a clock was set back, the next segment begins before this one ends.
        following = [*(each.begins_ns for each in pieces[1:]), high_ns]
        run = [
            piece
            for piece, next_begins_ns in zip(pieces, following, strict=True)
            if piece.begins_ns < high_ns and max(piece.ends_ns, next_begins_ns) > low_ns
        ]
        if run:
            needed.append(run)
    journals: list[tuple[Path, ...]] = []
    for at, run in enumerate(sorted(needed, key=lambda run: run[0].begins_ns)):
        own = folder / str(at)
        own.mkdir()
        journals.append(tuple(each.place(own) for each in run))
    pieces = [each for run in needed for each in run]
    from_lake = sum(each in found[:in_lake] for each in pieces)
    return HourSources(tuple(journals), from_lake, len(pieces) - from_lake)


def _runs(found: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Yield the segments by journal, in the order of recording; where a number comes again another list begins."""
    for _, journal in groupby(sorted(found, key=lambda each: each.journal_id), key=lambda each: each.journal_id):
        pieces = sorted(journal, key=lambda each: each.number)
        if len({each.number for each in pieces}) < len(pieces):
            # The newest were lost, and others got their numbers.
            pieces.sort(key=lambda each: each.created_ns or each.begins_ns)
        run: list[_Piece] = []
        for piece in pieces:
            if run and piece.number <= run[-1].number:
                yield run
                run = []
            run.append(piece)
        yield run


def _list_archived(store: ObjectStore, partition: FramesPartition) -> list[_Piece]:
    """List what the lake holds of the hour, the one before and the one after."""
    found: list[_Piece] = []
    for start in (partition.start - HOUR, partition.start, partition.end):
        each = FramesPartition(partition.gatherer, start)
        manifest = read_frames_manifest(store, each)
        for segment in () if manifest is None else manifest.segments:

            def place(folder: Path, path: str = f"{each.path}/{segment.name}", number: int = segment.number) -> Path:
                file = folder / compressed_name(number)
                if not store.fetch(path, file):
                    raise LakeCorrupt(f"{path} is missing: archive the hour again, or bring it back from a copy")
                return file

            begins_ns = segment.received_min_ns or us_from_datetime(start) * 1_000
            ends_ns = (segment.received_max_ns or begins_ns) + 1
            found.append(_Piece(*segment.identity, begins_ns, ends_ns, place))
    return found


def _list_local(gatherer: GathererSettings) -> list[_Piece]:
    """List what the journal on this host holds, the segment that is written now too."""
    found: list[_Piece] = []
    journal_id: int | None = None
    for number, path in sorted(list_segments(journal_folder(gatherer)).items(), reverse=True):
        try:
            info = read_info(path, gatherer.name, number, journal_id)
        except FileNotFoundError:  # it was just removed; the lake holds it then
            continue
        journal_id = info.journal_id

        def place(folder: Path, path: Path = path) -> Path:
            # The gatherer may compress or remove it meanwhile.
            file = folder / path.name
            try:
                file.hardlink_to(path)
            except OSError:
                shutil.copyfile(path, file)
            return file

        begins_ns = info.received_from_ns
        ends_ns = begins_ns - begins_ns % _HOUR_NS + _HOUR_NS
        found.append(_Piece(info.journal_id, number, info.created_at_ns, begins_ns, ends_ns, place))
    return found
