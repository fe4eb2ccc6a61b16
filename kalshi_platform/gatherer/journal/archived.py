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

    `open_hours`: the hours in the lake that may still get segments, although all that there are now are archived.
    """

    journal_id: int
    lake: str
    numbers: frozenset[int] = frozenset()
    open_hours: frozenset[datetime] = frozenset()

    def has(self, journal_id: int, number: int) -> bool:
        """Return whether the lake holds this segment."""
        return journal_id == self.journal_id and number in self.numbers


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
    kept = msgspec.structs.replace(archived, numbers=archived.numbers.intersection(present))
    temporary = folder / f"{FILE_NAME}.new"
    with temporary.open("wb") as file:
        file.write(msgspec.json.encode(kept, order="deterministic"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / FILE_NAME)
    fsync_folder(folder)
