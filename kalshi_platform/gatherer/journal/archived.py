"""Records which segments of a journal the lake holds: written by the run that archives, read by the gatherer.

A segment is named here only after it was read back from the lake and compared. The file is replaced whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import msgspec

from kalshi_platform.gatherer.journal.segments import fsync_folder

FILE_NAME = "archived.json"


class ArchivedSegments(msgspec.Struct, frozen=True, kw_only=True):
    """Names the archived segments of the journal `journal_id` that are still in its folder, and where they went.

    `segments`: number → when the segment was created, in ns; 0 where its header cannot be read. `open_hours`: the hours
    in the lake that may still get segments, although all that there are now are archived.
    """

    journal_id: int
    lake: str
    segments: dict[int, int] = msgspec.field(default_factory=dict)
    open_hours: frozenset[datetime] = frozenset()

    def has(self, journal_id: int, number: int, created_ns: int) -> bool:
        """Return whether the lake holds this segment, and not only another that had its number.

        One whose header cannot be read (`created_ns` 0) is taken for the one of its number.
        """
        held = self.segments.get(number) if journal_id == self.journal_id else None
        return held is not None and created_ns in (0, held)


def read_archived(folder: Path) -> ArchivedSegments | None:
    """Read what is archived of the journal in `folder`; None where nothing is known. Raises OSError."""
    try:
        content = (folder / FILE_NAME).read_bytes()
        return msgspec.json.decode(content, type=ArchivedSegments)
    except (FileNotFoundError, msgspec.MsgspecError):  # the next run of the archive compares and writes it anew
        return None


def write_archived(folder: Path, archived: ArchivedSegments, present: Iterable[int]) -> None:
    """Replace what is recorded, without segments that are gone. The caller is the only one that writes.

    Raises OSError.
    """
    kept = msgspec.structs.replace(
        archived, segments={each: archived.segments[each] for each in present if each in archived.segments}
    )
    temporary = folder / f"{FILE_NAME}.new"
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(kept))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / FILE_NAME)
    fsync_folder(folder)
