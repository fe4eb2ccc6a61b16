"""Names, lists and opens the segment files of a journal, plain or compressed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from kalshi_platform.gatherer.journal.block_format import FormatError, SegmentInfo, decode_segment_header

SUFFIX = ".journal"
COMPRESSED_SUFFIX = ".journal.zst"
FOLDER = "journal"
"""The journal's folder inside the gatherer's."""
_HEADER_READ_BYTES = 4_096


def segment_name(number: int) -> str:
    """Return the name of a segment's file; names sort by number."""
    return f"{number:012}{SUFFIX}"


def compressed_name(number: int) -> str:
    """Return the name of a segment's compressed file."""
    return f"{number:012}{COMPRESSED_SUFFIX}"


def is_compressed(path: Path) -> bool:
    """Return whether a segment's file is compressed."""
    return path.name.endswith(COMPRESSED_SUFFIX)


def numbered(paths: Iterable[Path]) -> dict[int, Path]:
    """Return the segments among these files by number, ascending; of two of one number the plain one."""
    by_name = {path.name: path for path in paths}
    return {number: by_name[name] for number, name in _by_number(by_name).items()}


def list_segments(folder: Path) -> dict[int, Path]:
    """Return the segments of a folder by number, ascending; none where there is no folder. Raises OSError."""
    return {number: folder / name for number, name in _names(folder).items()}


def following_segment(folder: Path, number: int) -> int | None:
    """Return the number of the first segment of a folder after `number`, None without one. Raises OSError."""
    return next((each for each in _names(folder) if each > number), None)


def bytes_of_segments(folder: Path) -> int:
    """Return the size of all segments of a folder, in bytes. Raises OSError."""
    total = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            if _number_of(entry.name) is not None:
                # Another thread or process may just remove it.
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat().st_size
    return total


def open_segment(path: Path) -> BinaryIO:
    """Open a segment for reading its bytes as they were before compression. Raises OSError."""
    return open_compressed(path) if is_compressed(path) else cast("BinaryIO", path.open("rb", buffering=0))


def open_compressed(path: Path) -> BinaryIO:
    """Open a compressed file for reading what was compressed. Raises OSError."""
    return cast("BinaryIO", pa.CompressedInputStream(pa.OSFile(str(path)), "zstd"))


def read_segment_info(path: Path) -> SegmentInfo:
    """Read the header of a segment. Raises FormatError, OSError."""
    with open_segment(path) as file:
        return decode_segment_header(read_some(file, _HEADER_READ_BYTES))[0]


def created_ns(folder: Path, number: int) -> int | None:
    """Return when a segment was created, by its header; None without one that can be read."""
    try:
        path = list_segments(folder).get(number)
        return None if path is None else read_segment_info(path).created_at_ns
    except (FormatError, OSError):
        return None


def read_some(file: BinaryIO, size: int) -> bytes:
    """Read up to `size` bytes of a segment. Raises OSError; FormatError where they cannot be decompressed."""
    try:
        return file.read(size)
    except OSError as error:
        if error.errno is None:
            raise FormatError(f"bytes that cannot be decompressed: {error}") from error
        raise


def fsync_folder(folder: Path) -> None:
    """Make the names of new and removed files survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names(folder: Path) -> dict[int, str]:
    try:
        return _by_number(os.listdir(folder))  # noqa: PTH208 - a path for each of a thousand files takes milliseconds
    except FileNotFoundError:
        return {}


def _by_number(names: Iterable[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    for name in sorted(names):
        number = _number_of(name)
        # The plain name sorts first.
        if number is not None and number not in found:
            found[number] = name
    return found


def _number_of(name: str) -> int | None:
    stem, _, suffix = name.partition(".")
    is_segment = suffix in {SUFFIX[1:], COMPRESSED_SUFFIX[1:]} and stem.isascii() and stem.isdigit()
    return int(stem) if is_segment else None
