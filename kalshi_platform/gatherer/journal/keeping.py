"""Compresses and removes finished segments of a journal."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from kalshi_platform.gatherer.journal.block_format import Position
from kalshi_platform.gatherer.journal.segments import (
    compressed_name,
    fsync_folder,
    list_segments,
    open_compressed,
    segment_name,
)

# Of simulated books 11:1 at 105 MB/s; level 3 gives 9.3:1 at 670 MB/s, level 9 11.3:1 at 90 MB/s.
_LEVEL = 7
_CHUNK_BYTES = 4 * 1024**2
_PARTIAL = ".partial"


def compress_segment(folder: Path, number: int) -> Path:
    """Compress a finished segment (zstd) and remove the plain file; return the path of the compressed one.

    The compressed file is on disk, and was read back, before the plain one goes; its time of change is the plain one's.
    Raises OSError.
    """
    plain, compressed = folder / segment_name(number), folder / compressed_name(number)
    partial = compressed.with_name(compressed.name + _PARTIAL)
    status = plain.stat()
    codec = pa.Codec("zstd", compression_level=_LEVEL)
    try:
        with plain.open("rb") as source, partial.open("wb") as target:
            written = _copy(source, lambda chunk: target.write(codec.compress(chunk, asbytes=True)))
            target.flush()
            os.fsync(target.fileno())
        with open_compressed(partial) as copy:
            if _copy(copy, len) != written:
                raise OSError(f"{partial} does not read back as it was written")
        os.utime(partial, ns=(status.st_atime_ns, status.st_mtime_ns))
        partial.replace(compressed)
    finally:
        partial.unlink(missing_ok=True)
    fsync_folder(folder)
    plain.unlink()
    return compressed


def remove_segments(
    folder: Path,
    upto: Position,
    older_than_ns: int,
    is_archived: Callable[[int], bool] = lambda _: True,
    excess_bytes: int = 0,
) -> list[Path]:
    """Remove the oldest segments that are not needed; return their paths.

    A segment goes when it lies wholly before `upto` (what the database holds), is archived, and was last written before
    `older_than_ns` or is among the first `excess_bytes`. The first that stays ends it, so that no hole is made; the
    newest always stays. Raises OSError.
    """
    segments = list_segments(folder)
    removed: list[Path] = []
    for number, path in list(segments.items())[:-1]:
        status = path.stat()
        must_stay = status.st_mtime_ns >= older_than_ns and excess_bytes <= 0
        if number >= upto.segment or must_stay or not is_archived(number):
            break
        path.unlink()
        removed.append(path)
        excess_bytes -= status.st_size
    if removed:
        fsync_folder(folder)
    return removed


def _copy(source: BinaryIO, write: Callable[[bytes], object]) -> tuple[int, int]:
    """Hand the bytes of a file on in chunks; return their number and checksum."""
    size = crc = 0
    while chunk := source.read(_CHUNK_BYTES):
        write(chunk)
        size, crc = size + len(chunk), zlib.crc32(chunk, crc)
    return size, crc
