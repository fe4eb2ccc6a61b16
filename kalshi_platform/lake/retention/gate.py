"""Decides whether the lake verifiably holds an hour of a table: closed, current, and read back byte for byte."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from kalshi_platform.errors import LakeArchived, LakeCorrupt
from kalshi_platform.lake.closes import HourState, closes_of
from kalshi_platform.lake.datasets import DATASETS
from kalshi_platform.lake.layout import MANIFEST_NAME, Partition
from kalshi_platform.lake.manifest import Manifest, find_manifest, verify
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.storage.pool import Database
from kalshi_platform.storage.queries import load

_SQL = load(Path(__file__).with_name("queries.sql"))


class HeldHour(NamedTuple):
    """An hour that the lake holds: `close_id` names the close it was made from, `digest` is of its manifest."""

    partition: Partition
    close_id: str
    rows: int
    digest: str


class HourRefused(Exception):
    """The lake does not verifiably hold the hour; the text says why, and what to do."""


@dataclass(frozen=True)
class _Found:
    path: str
    manifest: Manifest
    digest: str


class LakeGate:
    """Checks partitions of the lake; `remembers`: whether what was read back is recorded in production.

    `verified_since`: a record older than this counts for archived partitions only.
    """

    def __init__(
        self, store: ObjectStore, production: Database, now: datetime, verified_for: timedelta, *, remembers: bool
    ) -> None:
        self._store = store
        self._production = production
        self._now = now
        self._verified_since = now - verified_for
        self._remembers = remembers
        self._checked: dict[str, HeldHour | str] = {}

    def check(self, table: str, state: HourState) -> HeldHour:
        """Return what the lake holds of an hour of a table, which production describes by `state`. Raises HourRefused.

        Raises LakeUnavailable, DatabaseUnavailable and ConfigurationError too.
        """
        data = DATASETS.get(f"raw/{table}")
        if data is None:
            raise HourRefused(f"the lake has no data set of {table}")
        partition = Partition(data, state.hour)
        found = self._checked.get(partition.path)
        if found is None:
            try:
                found = self._check(partition, state)
            except HourRefused as refusal:
                found = str(refusal)
            self._checked[partition.path] = found
        if isinstance(found, str):
            raise HourRefused(found)
        return found

    def is_unchanged(self, held: HeldHour) -> bool:
        """Return whether the manifest still is the one that was verified."""
        found = self._find(held.partition)
        return found is not None and found.digest == held.digest

    def _check(self, partition: Partition, state: HourState) -> HeldHour:
        name = f"{partition.dataset.key} {state.hour:%Y-%m-%dT%H}"
        if state.closed_at is None or state.close_id is None:
            raise HourRefused(f"production has not closed {state.hour:%Y-%m-%dT%H}: kalshi-platform close-hour")
        if state.reopened:
            raise HourRefused(f"rows came after the close of {state.hour:%Y-%m-%dT%H}: kalshi-platform close-hour")
        try:
            found = self._find(partition)
        except LakeCorrupt as error:
            raise HourRefused(f"the lake's partition is damaged: {error}; kalshi-platform export {name}") from error
        if found is None:
            raise HourRefused(f"{name} is missing in the lake: kalshi-platform export {name}")
        if found.manifest.state != "closed":
            raise HourRefused(f"{name} is open in the lake: kalshi-platform export {name}")
        if not _is_made_from(found.manifest, state):
            raise HourRefused(f"{name} is stale, its hour was closed again since: kalshi-platform export {name}")
        self._verify(partition, name, found)
        return HeldHour(partition, state.close_id, found.manifest.rows, found.digest)

    def _find(self, partition: Partition) -> _Found | None:
        found = find_manifest(self._store, partition)
        content = None if found is None else self._store.read(f"{found[0]}/{MANIFEST_NAME}")
        if found is None or content is None:
            return None
        return _Found(*found, hashlib.sha256(content).hexdigest())

    def _verify(self, partition: Partition, name: str, found: _Found) -> None:
        """Read the partition back, unless that was done lately and its manifest and sizes are what they were."""
        with self._production.transaction() as transaction:
            row = transaction.fetch_one(_SQL["read_verification"], (self._store.root, partition.path))
        known: tuple[str, datetime] | None = row if row is None else (row[0], row[1])
        is_known = known is not None and known[0] == found.digest
        if is_known and known is not None and known[1] >= self._verified_since:
            self._check_sizes(name, found)
            return
        try:
            verify(self._store, found.path, found.manifest)
        except LakeArchived as error:
            if not is_known:
                raise HourRefused(
                    f"{name} is archived and was never verified: restore its objects, then run retention again"
                ) from error
            self._check_sizes(name, found)
            return
        except LakeCorrupt as error:
            raise HourRefused(f"the lake's partition is damaged: {error}; kalshi-platform export {name}") from error
        if self._remembers:
            with self._production.transaction() as transaction:
                transaction.execute(
                    _SQL["record_verification"],
                    {
                        "lake": self._store.root,
                        "partition": partition.path,
                        "starts_at": partition.start,
                        "digest": found.digest,
                        "rows": found.manifest.rows,
                        "bytes": found.manifest.bytes,
                        "now": self._now,
                    },
                )

    def _check_sizes(self, name: str, found: _Found) -> None:
        stored = {each.path.removeprefix(f"{found.path}/"): each.bytes for each in self._store.list(f"{found.path}/")}
        wrong = [file.name for file in found.manifest.files if stored.get(file.name) != file.bytes]
        if wrong:
            raise HourRefused(
                f"the lake's partition is damaged: {', '.join(wrong)} missing or of another size;"
                f" kalshi-platform export {name}"
            )


def lock_name(store: ObjectStore, partition: Partition) -> tuple[str, str, str]:
    """The lock under which exports write a partition."""
    return ("lake export", store.root, partition.path)


def _is_made_from(manifest: Manifest, state: HourState) -> bool:
    if manifest.closes:
        return manifest.closes == closes_of([state])
    # Version 0.1.0 wrote down only when the hour was closed last.
    return manifest.closed_at == state.closed_at
