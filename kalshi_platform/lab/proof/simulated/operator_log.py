"""Follows what an operator, which is a process of its own, writes of what it has done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


class OperatorLog:
    """Reads a log on from where it was read before; a line without its end is read once it has one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0

    def read_new(self, start: bytes) -> Iterator[bytes]:
        """Yield the new lines that begin with `start`; none while there is no log."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._read += len(line)
                if line.startswith(start):
                    yield line
