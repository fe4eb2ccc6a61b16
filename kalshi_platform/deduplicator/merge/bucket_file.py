"""Keeps rows in a temporary file by key, so that an hour is read once and worked on in parts that fit into memory.

One file holds all keys: rows are appended in Arrow's format as they come, and a key's rows are read back together, in
the order of their coming. What is in memory is a pair of numbers per appended piece.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from kalshi_platform.deduplicator.merge.market_buckets import Ints


class BucketFile:
    """Rows of one schema by key. Appending is for one thread; reading, when nothing is appended, for many."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._pieces: dict[int, list[tuple[int, int]]] = {}
        self._rows: dict[int, int] = {}
        self._file = path.open("w+b")
        path.unlink()  # the space is free again when the file is closed, however the process ends
        self._size = 0
        self._lock = threading.Lock()

    def keys_between(self, low: int, high: int) -> list[int]:
        """Return the keys of [low, high) with rows, ascending."""
        return sorted(key for key in self._pieces if low <= key < high)

    def rows(self, key: int) -> int:
        """Return how many rows a key has."""
        return self._rows.get(key, 0)

    def append(self, batch: pa.RecordBatch, keys: Ints) -> None:
        """Append rows, each under its key; those with a negative one are left out."""
        self._file.seek(self._size)  # a read leaves the place elsewhere
        for key, piece in split_batch(batch, keys):
            if key < 0:
                continue
            content = piece.serialize()
            self._file.write(content)
            self._pieces.setdefault(key, []).append((self._size, content.size))
            self._rows[key] = self._rows.get(key, 0) + piece.num_rows
            self._size += content.size

    def read(self, key: int) -> pa.Table:
        """Return a key's rows; an empty table without any."""
        found = []
        for start, size in self._pieces.get(key, ()):
            with self._lock:
                self._file.seek(start)
                content = self._file.read(size)
            found.append(pa.ipc.read_record_batch(pa.py_buffer(content), self.schema))
        return pa.Table.from_batches(found, self.schema)

    def close(self) -> None:
        """Close the file, which frees its space."""
        self._file.close()


def split_batch(batch: pa.RecordBatch, keys: Ints) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Split a batch by key, each part in the order of the batch."""
    if not len(keys):
        return
    if (keys[0] == keys).all():
        yield int(keys[0]), batch
        return
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    edges = np.flatnonzero(np.diff(ordered)) + 1
    rows = batch.take(pa.array(order))
    for low, high in zip([0, *edges.tolist()], [*edges.tolist(), len(keys)], strict=True):
        yield int(ordered[low]), rows.slice(low, high - low)
