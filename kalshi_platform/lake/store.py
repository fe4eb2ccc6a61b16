"""One small interface over the two kinds of root.

Paths are relative to the root and use `/`. A write is whole or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

from kalshi_platform.lake.settings import BucketRoot, LakeSettings, parse_root

_CHUNK_BYTES = 1024 * 1024


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

    def spool(self) -> AbstractContextManager[Path]:
        """A temporary folder of this machine for files on their way to `put_file`; removed afterwards."""

    def put_file(self, path: str, file: Path) -> None:
        """Store a spooled file, replacing what was there; the local file may be gone afterwards."""

    def write(self, path: str, content: bytes) -> None:
        """Store a small object, replacing what was there."""

    def read(self, path: str) -> bytes | None:
        """The content of a small object, or None where there is none."""

    def open(self, path: str) -> BinaryIO | None:
        """A seekable stream of an object that reads only the ranges asked for, or None where there is none."""

    def delete(self, path: str) -> None:
        """Remove an object; one that is not there is no error."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Objects whose path starts with `prefix`, ascending by path."""


Lake: TypeAlias = LakeSettings | ObjectStore
"""What the functions of this room take: settings, or a store opened from them."""


def open_store(lake: Lake) -> ObjectStore:
    """Return the store that the settings name; a store is returned as it is. Raises ConfigurationError."""
    if not isinstance(lake, LakeSettings):
        return lake
    root = parse_root(lake.root)
    if isinstance(root, BucketRoot):
        from kalshi_platform.lake.store_s3 import S3Store

        return S3Store(root, lake)
    from kalshi_platform.lake.store_folder import FolderStore

    return FolderStore(root)


def sha256(store: ObjectStore, path: str) -> tuple[str, int] | None:
    """Read an object back; return its SHA-256 (hex) and its size in bytes, or None where there is none."""
    stream = store.open(path)
    if stream is None:
        return None
    digest, size = hashlib.sha256(), 0
    with stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size
