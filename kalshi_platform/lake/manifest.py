"""The manifest of a partition: without one it is not there, and a file that it does not name does not count.

`export.publish` puts one partition in place of another.
"""

from __future__ import annotations

import importlib.metadata
import io
from collections.abc import Iterator
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_platform.errors import LakeCorrupt
from kalshi_platform.lake.datasets import Dataset
from kalshi_platform.lake.layout import MANIFEST_NAME, OPEN, Partition, parse_partition
from kalshi_platform.lake.store import Lake, open_store, sha256
from kalshi_platform.lake.store.objects import ObjectStore

State: TypeAlias = Literal["closed", "open"]
FORMAT = 1


class DataFile(msgspec.Struct, frozen=True, forbid_unknown_fields=False):
    """One data file of a partition, and the first and last ticker in it, by their bytes.

    No tickers: the file has no rows, or an earlier version wrote it (`rows` tells which).
    """

    name: str
    bytes: int
    sha256: str
    rows: int
    ticker_min: str | None = None
    ticker_max: str | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One partition as it was published. `open`: exported while rows could still come; readers skip it unless asked."""

    table: str
    partition: str
    state: State
    rows: int
    time_min: datetime | None
    time_max: datetime | None
    files: tuple[DataFile, ...]
    schema_version: int
    code_version: str
    exported_at: datetime
    closed_at: datetime | None = None
    """When production closed the hours of these rows last, by its own clock."""
    closes: dict[str, str] = {}
    """The closes whose rows these are: hour (`2026-11-23T04`) → what production calls that close. Another close of one
    of these hours, or a close of another hour of the day, makes the export stale. Version 0.1.0 did not write it."""
    close_no: int | None = None
    """The highest number among these closes: production numbers them in the order in which they were made."""
    coverage_share: float | None = None
    """Of closed hours of order-book deltas: the share (0 … 1) of the markets' open time that is complete, of those
    recorded in the hour or followed in the one before. None: no market was open, or production cannot tell."""
    format: int = FORMAT

    @property
    def bytes(self) -> int:
        """Size of the data files together."""
        return sum(file.bytes for file in self.files)


def code_version() -> str:
    """The version of this package."""
    return importlib.metadata.version("kalshi-platform")


def encode(manifest: Manifest) -> bytes:
    """The manifest as JSON for people and programs."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(content: bytes, where: str) -> Manifest:
    """Read a manifest. Raises LakeCorrupt."""
    try:
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LakeCorrupt(f"{where} is not a manifest: {error}") from error


def read_manifest(lake: Lake, path: str) -> Manifest | None:
    """The manifest of the partition whose folder is `path`, or None where nothing is published."""
    content = open_store(lake).read(f"{path}/{MANIFEST_NAME}")
    return None if content is None else decode(content, f"{path}/{MANIFEST_NAME}")


def find_manifest(lake: Lake, partition: Partition) -> tuple[str, Manifest] | None:
    """The folder of a partition and its manifest; None if it is not published.

    A closed one comes before an open one, also where an earlier version put it; of two open ones, the one that lies
    where open ones belong.
    """
    store = open_store(lake)
    misplaced: tuple[str, Manifest] | None = None
    for path in filter(None, (partition.path, partition.former_path)):
        manifest = read_manifest(store, path)
        if manifest is not None and manifest.state == "closed":
            return path, manifest
        if manifest is not None:
            misplaced = misplaced or (path, manifest)
    opened = read_manifest(store, partition.open_path)
    return misplaced if opened is None else (partition.open_path, opened)


def verify(lake: Lake, path: str, manifest: Manifest | None = None) -> Manifest:
    """Read every file of a partition back and compare it with the manifest; return the manifest.

    Raises LakeCorrupt, naming each difference.
    """
    store = open_store(lake)
    manifest = manifest or read_manifest(store, path)
    if manifest is None:
        raise LakeCorrupt(f"{path} has no manifest: nothing is published there")
    problems = [problem for file in manifest.files for problem in _problems(store, path, file)]
    if sum(file.rows for file in manifest.files) != manifest.rows:
        problems.append(f"the files' rows do not add up to {manifest.rows}")
    listed = {file.name for file in manifest.files}
    unlisted = {stored.path.removeprefix(f"{path}/") for stored in store.list(f"{path}/")} - listed - {MANIFEST_NAME}
    # Of an export that is under way, or of one that was cut short; the next one removes the latter.
    problems.extend(f"{name} is not in the manifest" for name in sorted(unlisted))
    if problems:
        raise LakeCorrupt(f"{path}: {'; '.join(problems)}")
    return manifest


def published(lake: Lake, data: Dataset, prefix: str = "") -> Iterator[Partition]:
    """Yield the partitions of a data set that have a manifest, closed ones first.

    `prefix` narrows them: `date=2026-11`, say.
    """
    found = set()
    names = tuple(filter(None, (data.name, data.formerly)))
    for base in (f"{place}{data.layer}/{name}/" for place in ("", OPEN) for name in names):
        for stored in open_store(lake).list(base + prefix):
            folder, _, file = stored.path.removeprefix(base).rpartition("/")
            if file == MANIFEST_NAME:
                partition = parse_partition(data, folder.removeprefix("date=").replace("/hour=", "T"))
                if partition not in found:
                    found.add(partition)
                    yield partition


def _problems(store: ObjectStore, path: str, file: DataFile) -> Iterator[str]:
    found = sha256(store, f"{path}/{file.name}")
    if found is None:
        yield f"{file.name} is missing"
        return
    digest, size = found
    if (digest, size) != (file.sha256, file.bytes):
        yield f"{file.name} has {size} bytes and SHA-256 {digest}, not {file.bytes} and {file.sha256}"
        return
    stream = store.open(f"{path}/{file.name}") or io.BytesIO()
    with stream:
        try:
            rows = pq.read_metadata(stream).num_rows
        except (pa.ArrowInvalid, OSError) as error:
            yield f"{file.name} is not Parquet ({error})"
            return
    if rows != file.rows:
        yield f"{file.name} has {rows} rows, not {file.rows}"
