"""Rows in a temporary file by key."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from kalshi_platform.deduplicator.merge.bucket_file import BucketFile

SCHEMA = pa.schema([("n", pa.int64())])


def batch(*numbers: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(numbers, pa.int64())], schema=SCHEMA)


def test_rows_appended_after_a_read_come_behind_those_before(tmp_path: Path) -> None:
    file = BucketFile(tmp_path / "rows", SCHEMA)
    file.append(batch(1, 2, 3), np.array([7, 8, 7]))
    assert file.read(7).column("n").to_pylist() == [1, 3]
    file.append(batch(4, 5), np.array([7, 9]))
    assert {key: file.read(key).column("n").to_pylist() for key in (7, 8, 9)} == {7: [1, 3, 4], 8: [2], 9: [5]}
    file.close()
