"""Defines where frames as received lie in the lake, and the manifest of an hour of one gatherer's.

    raw/frames/date=YYYY-MM-DD/hour=HH/gatherer=NAME/NNNNNNNNNNNN.journal.zst  and  _manifest.json

The files are segments of the gatherer's journal, compressed and otherwise as they were written (docs/journal.md). A
segment belongs to the hour in which its first frame was received. No Parquet reader meets them: `raw/frames` is no
data set of `lake.datasets`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Literal, TypeAlias

import msgspec

from kalshi_platform.errors import LakeCorrupt, UnknownPartition
from kalshi_platform.lake.layout import MANIFEST_NAME, partition_path
from kalshi_platform.lake.store import Lake, open_store, sha256
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.market.times import HOUR

FRAMES = "raw/frames"
"""The key of the data set, as the keys of others are written."""
FORMAT = 1
_SUFFIX = ".journal.zst"
_SEGMENT = re.compile(r"(\d{12,})(?:-[0-9a-f]{16})?\.journal\.zst", re.ASCII)
_FOLDER = re.compile(r"raw/frames/date=(\d{4}-\d\d-\d\d)/hour=(\d\d)/gatherer=([\w-]+)", re.ASCII)

FramesState: TypeAlias = Literal["closed", "open"]


@dataclass(frozen=True, order=True)
class FramesPartition:
    """One UTC hour of one gatherer's frames."""

    gatherer: str
    start: datetime

    @property
    def end(self) -> datetime:
        """The first moment after the hour."""
        return self.start + HOUR

    @property
    def key(self) -> str:
        """The key that Dagster uses: `2026-11-23-04:00`."""
        return f"{self.start:%Y-%m-%d-%H:%M}"

    @property
    def path(self) -> str:
        """The folder of the hour, relative to the lake's root."""
        return f"{partition_path('raw', 'frames', self.start.date(), self.start.hour)}/gatherer={self.gatherer}"

    @property
    def manifest_path(self) -> str:
        """The path of its manifest, relative to the lake's root."""
        return f"{self.path}/{MANIFEST_NAME}"


class ArchivedSegment(msgspec.Struct, frozen=True, kw_only=True):
    """One segment: `bytes` and `sha256` are of the compressed file, `bytes_raw` is its size before.

    `number` counts within the journal `journal_id`; where the newest segments were lost others got their numbers, with
    another `created_at_ns` (0 where the header cannot be read). `frames` and `blocks` are what its reader finds in it,
    `damages` how many places are no block, without the torn end that a killed process leaves. Receive times are this
    platform's clock, in ns since 1970; None without frames.
    """

    name: str
    number: int
    journal_id: int
    created_at_ns: int
    sha256: str
    bytes: int
    bytes_raw: int
    blocks: int
    frames: int
    damages: int
    received_min_ns: int | None
    received_max_ns: int | None
    code_version: str
    """The version that recorded."""

    @property
    def identity(self) -> tuple[int, int, int]:
        """Names the segment: journal, number, and when it was created."""
        return self.journal_id, self.number, self.created_at_ns


class FramesManifest(msgspec.Struct, frozen=True, kw_only=True):
    """An hour of one gatherer's frames. `open`: segments of the hour can still come.

    Segments stand in the order in which they were written: ascending by number within a journal.
    """

    table: str = FRAMES
    gatherer: str
    partition: str
    state: FramesState
    segments: tuple[ArchivedSegment, ...]
    archived_at: datetime
    code_version: str
    """The version that archived."""
    format: int = FORMAT

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return sum(each.frames for each in self.segments)

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return sum(each.blocks for each in self.segments)

    @property
    def damages(self) -> int:
        """In how many places the segments are damaged."""
        return sum(each.damages for each in self.segments)

    @property
    def bytes(self) -> int:
        """Size of the files together."""
        return sum(each.bytes for each in self.segments)

    @property
    def bytes_raw(self) -> int:
        """Size of the segments together before they were compressed."""
        return sum(each.bytes_raw for each in self.segments)

    @property
    def time_min(self) -> datetime | None:
        """When the first frame was received, cut to microseconds."""
        return _time(min((each.received_min_ns for each in self.segments if each.received_min_ns), default=None))

    @property
    def time_max(self) -> datetime | None:
        """When the last frame was received, cut to microseconds."""
        return _time(max((each.received_max_ns for each in self.segments if each.received_max_ns), default=None))


def parse_frames_path(path: str) -> FramesPartition | None:
    """The partition whose folder is `path`; None where it is none of frames."""
    match = _FOLDER.fullmatch(path)
    if match is None:
        return None
    day, hour = date.fromisoformat(match[1]), int(match[2])
    return FramesPartition(match[3], datetime(day.year, day.month, day.day, hour, tzinfo=UTC))


def frames_partition(gatherer: str, hour: datetime) -> FramesPartition:
    """The partition of the hour that starts at `hour` (aware). Raises UnknownPartition for another moment."""
    start = hour.astimezone(UTC)
    if start != start.replace(minute=0, second=0, microsecond=0):
        raise UnknownPartition(f"{hour.isoformat()} is not the start of an hour")
    return FramesPartition(gatherer, start)


def segment_name(identity: tuple[int, int, int], others: tuple[ArchivedSegment, ...] = ()) -> str:
    """The name of a segment's file beside `others`; `identity`: journal, number, and when it was created.

    Where the folder or its newest segments were lost within an hour, numbers come again: then the names say, too, when
    the segment was created.
    """
    _, number, created_at_ns = identity
    taken = any(each.number == number and each.identity != identity for each in others)
    return f"{number:012d}{f'-{created_at_ns:016x}' if taken else ''}{_SUFFIX}"


def find_segment(segments: tuple[ArchivedSegment, ...], identity: tuple[int, int, int]) -> ArchivedSegment | None:
    """The segment of this identity; of one whose header cannot be read, the latest of its journal and number."""
    *place, created_at_ns = identity
    return next(
        (
            each
            for each in reversed(segments)
            if [each.journal_id, each.number] == place and created_at_ns in (0, each.created_at_ns)
        ),
        None,
    )


def segment_number_of(name: str) -> int | None:
    """The number of the segment in a file of this name; None for any other file."""
    match = _SEGMENT.fullmatch(name)
    return None if match is None else int(match[1])


def encode_frames(manifest: FramesManifest) -> bytes:
    """The manifest as JSON for people and programs, with its sums."""
    sums = {
        "frames": manifest.frames,
        "blocks": manifest.blocks,
        "damages": manifest.damages,
        "bytes": manifest.bytes,
        "bytes_raw": manifest.bytes_raw,
        "time_min": manifest.time_min,
        "time_max": manifest.time_max,
    }
    content = msgspec.to_builtins(manifest, builtin_types=(datetime,))
    segments = content.pop("segments")
    return msgspec.json.format(msgspec.json.encode({**content, **sums, "segments": segments}), indent=2) + b"\n"


def decode_frames(content: bytes, where: str) -> FramesManifest:
    """Read a manifest. Raises LakeCorrupt."""
    try:
        return msgspec.json.decode(content, type=FramesManifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LakeCorrupt(f"{where} is not a manifest of frames: {error}") from error


def read_frames_manifest(lake: Lake, partition: FramesPartition) -> FramesManifest | None:
    """The manifest of an hour of frames, or None where nothing is archived. Raises LakeCorrupt, LakeUnavailable."""
    content = open_store(lake).read(partition.manifest_path)
    return None if content is None else decode_frames(content, partition.manifest_path)


def archived_partitions(lake: Lake, prefix: str = "") -> Iterator[FramesPartition]:
    """Yield the hours of frames that have a manifest, by path. `prefix` narrows them: `date=2026-11`, say."""
    for stored in open_store(lake).list(f"{FRAMES}/{prefix}"):
        folder, _, file = stored.path.rpartition("/")
        partition = parse_frames_path(folder)
        if file == MANIFEST_NAME and partition is not None:
            yield partition


def find_differences(
    store: ObjectStore, partition: FramesPartition, segments: tuple[ArchivedSegment, ...]
) -> list[str]:
    """Read segments back whole; name each that is not as the manifest says. Raises LakeUnavailable, LakeArchived."""
    problems = []
    for each in segments:
        found = sha256(store, f"{partition.path}/{each.name}")
        if found is None:
            problems.append(f"{each.name} is missing")
        elif found != (each.sha256, each.bytes):
            problems.append(
                f"{each.name} has {found[1]} bytes and SHA-256 {found[0]}, not {each.bytes} and {each.sha256}"
            )
    return problems


def _time(ns: int | None) -> datetime | None:
    return (
        None
        if ns is None
        else datetime.fromtimestamp(ns // 1_000_000_000, UTC).replace(microsecond=ns % 1_000_000_000 // 1_000)
    )
