"""One small interface over the two kinds of root.

Paths are relative to the root and use `/`. A write is whole or not at all.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class StoredObject:
    """An object of the lake."""

    path: str
    bytes: int


class ObjectStore(Protocol):
    """Where the lake's files lie. All methods raise ConfigurationError, naming the remedy, or LakeUnavailable."""

    @property
    def root(self) -> str:
        """The root as an address, for messages and readers of other tools."""

    @property
    def scan_options(self) -> Mapping[str, str]:
        """How Polars reaches the store by itself; secrets are among it."""

    def address(self, path: str) -> str:
        """The address of an object, for Polars' own reading."""

    def staging(self) -> AbstractContextManager[Path]:
        """A temporary folder of this machine for files on their way to `put_files`; removed afterwards."""

    def put_files(self, files: Mapping[str, Path]) -> None:
        """Store staged files (by path), replacing what was there; the local files may be gone afterwards.

        None of them appears before all of them are stored; then they appear within a moment, one after the other.
        """

    def write(self, path: str, content: bytes) -> None:
        """Store a small object, replacing what was there."""

    def read(self, path: str) -> bytes | None:
        """The content of a small object, or None where there is none."""

    def open(self, path: str) -> BinaryIO | None:
        """A seekable stream of an object that reads only the ranges asked for, or None where there is none."""

    def fetch(self, path: str, file: Path) -> bool:
        """Put an object's content into a new file of a staging folder; False where there is none.

        The file keeps that content whatever becomes of the object. It may share its place on the disk: never write it.
        """

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects whose path starts with `prefix`, ascending by path."""
