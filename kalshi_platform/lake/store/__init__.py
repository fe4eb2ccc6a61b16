"""From settings to a store."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

from kalshi_platform.lake.settings import BucketRoot, LakeSettings, parse_root
from kalshi_platform.lake.store.folder import FolderStore
from kalshi_platform.lake.store.objects import ObjectStore

_CHUNK_BYTES = 1024 * 1024

Lake: TypeAlias = LakeSettings | ObjectStore
"""What the functions of this room take: settings, or a store opened from them."""


def open_store(lake: Lake) -> ObjectStore:
    """Return the store that the settings name; a store is returned as it is. Raises ConfigurationError."""
    if not isinstance(lake, LakeSettings):
        return lake
    root = parse_root(lake.root)
    if isinstance(root, BucketRoot):
        # boto3 is heavy, and a folder needs none of it.
        from kalshi_platform.lake.store.s3 import S3Store

        return S3Store(root, lake)
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
