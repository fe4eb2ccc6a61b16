"""Publishes a partition in place of the one that was there: at no moment is less to be seen than one of the two.

The data files of the new partition get names of their own (they carry the hash of their content), one write of the
manifest makes them the partition, and the old files are removed after that. A reader that goes by the manifest sees the
old rows or the new ones. A reader of all files of the folder sees the rows of both between the moment in which the new
files appear and the one in which the old ones are gone; never less. Where the content is the same, no data file is
touched at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import msgspec

from kalshi_platform.errors import KalshiPlatformError, LakeArchived, LakeCorrupt, LakeUnavailable, PartitionBusy
from kalshi_platform.lake.export.parquet import Parts
from kalshi_platform.lake.layout import MANIFEST_NAME, is_part_name
from kalshi_platform.lake.manifest import DataFile, Manifest, encode, read_manifest
from kalshi_platform.lake.store import sha256
from kalshi_platform.lake.store.objects import ObjectStore
from kalshi_platform.monitoring.event_log import event_logger

_log = event_logger(__name__)


def read_current(store: ObjectStore, path: str) -> Manifest | None:
    """The manifest of the partition that is there now; None also where what lies in its place cannot be read."""
    try:
        return read_manifest(store, path)
    except LakeCorrupt as error:
        _log.warning("manifest_unreadable", partition=path, error=error, consequence="it counts as not published")
        return None


def publish(
    store: ObjectStore,
    path: str,
    parts: Parts,
    manifest: Manifest,
    replaced: Manifest | None,
    holds_lock: Callable[[], bool] = lambda: True,
) -> Manifest:
    """Put a partition in place of `replaced` (what `read_current` said before); return the manifest that stands now.

    `holds_lock` is called before anything that others could see. Raises PartitionBusy when it says no or another export
    has published meanwhile, LakeUnavailable. Whatever is raised, and wherever this is cut short, the partition can be
    read by its manifest: the old one, or the new one where the message says so.
    """
    kept = _intact(store, path, replaced, parts)
    files = tuple(
        DataFile(
            kept[file.sha256].name if file.sha256 in kept else file.path.name,
            file.bytes,
            file.sha256,
            file.rows,
            file.ticker_min,
            file.ticker_max,
        )
        for file in parts.files
    )
    manifest = msgspec.structs.replace(manifest, files=files)
    if replaced is not None and len(kept) == len(parts.files) and _is_same(replaced, manifest):
        manifest = replaced
    else:
        _require_lock(path, holds_lock)
        with (
            _explain_failure(f"{path} was not replaced: what was published there stands"),
            _undo_on_failure(store, path, parts, holds_lock),
        ):
            new = {f"{path}/{file.path.name}": file.path for file in parts.files if file.sha256 not in kept}
            if new:
                store.put_files(new)
            _require_lock(path, holds_lock)
            if read_current(store, path) != replaced:
                raise PartitionBusy(
                    f"another export has published {path} meanwhile; nothing was replaced, export it again"
                )
        # From here on nothing is taken back: a write that fails may have taken effect, or take it later.
        with _explain_failure(
            f"{path}: the new manifest may be written or not; either way it is whole, export it again to know"
        ):
            store.write(f"{path}/{MANIFEST_NAME}", encode(manifest))
    _require_lock(path, holds_lock)
    with _explain_failure(
        f"{path} is published, but what was there before may lie beside it; export it again to remove that"
    ):
        _remove_all_others(store, path, manifest)
    return manifest


def republish(
    store: ObjectStore, path: str, manifest: Manifest, replaced: Manifest, holds_lock: Callable[[], bool] = lambda: True
) -> Manifest:
    """Write another manifest of the same files in place of `replaced`; return the one that stands now.

    Raises PartitionBusy and LakeUnavailable as publish() does.
    """
    _require_lock(path, holds_lock)
    if read_current(store, path) != replaced:
        raise PartitionBusy(f"another export has published {path} meanwhile; nothing was replaced, export it again")
    if _is_same(replaced, manifest):
        manifest = replaced
    else:
        with _explain_failure(
            f"{path}: the new manifest may be written or not; either way it is whole, export it again to know"
        ):
            store.write(f"{path}/{MANIFEST_NAME}", encode(manifest))
    _require_lock(path, holds_lock)
    _remove_all_others(store, path, manifest)
    return manifest


def remove(store: ObjectStore, path: str) -> None:
    """Take away a partition that is published in another folder now; its manifest first, so that it is gone at once."""
    stored = sorted(found.path for found in store.list(f"{path}/"))
    for name in sorted(stored, key=lambda each: not each.endswith(f"/{MANIFEST_NAME}")):
        if name.endswith(f"/{MANIFEST_NAME}") or is_part_name(name.rpartition("/")[2]):
            store.delete(name)


def _intact(store: ObjectStore, path: str, replaced: Manifest | None, parts: Parts) -> Mapping[str, DataFile]:
    """Of the files of the new partition, by SHA-256, those that the old one has already, as they should be."""
    wanted = {file.sha256 for file in parts.files}
    stored = [file for file in (() if replaced is None else replaced.files) if file.sha256 in wanted]
    return {file.sha256: file for file in stored if _is_intact(store, f"{path}/{file.name}", file)}


def _is_intact(store: ObjectStore, path: str, file: DataFile) -> bool:
    try:
        return sha256(store, path) == (file.sha256, file.bytes)
    except LakeArchived:  # nobody writes there, and to look at it would cost a restoration
        return any(stored.bytes == file.bytes for stored in store.list(path) if stored.path == path)


def _is_same(old: Manifest, new: Manifest) -> bool:
    """Whether two manifests differ in nothing but when, and by which code, they were written."""
    return old == msgspec.structs.replace(new, exported_at=old.exported_at, code_version=old.code_version)


def _require_lock(path: str, holds_lock: Callable[[], bool]) -> None:
    if not holds_lock():
        raise PartitionBusy(
            f"the export of {path} has lost its lock (the connection to production broke), and another one may write"
            " there now: it has stopped; export the partition again"
        )


@contextmanager
def _undo_on_failure(store: ObjectStore, path: str, parts: Parts, holds_lock: Callable[[], bool]) -> Iterator[None]:
    """Where the block fails, remove the new files, so that nobody who reads all files sees them beside the old ones.

    Not when others may be at work: their files can have the same names.
    """
    try:
        yield
    except BaseException:
        with suppress(KalshiPlatformError):
            if holds_lock():
                current = read_manifest(store, path)
                named = set() if current is None else {file.name for file in current.files}
                for file in parts.files:
                    if file.path.name not in named:
                        store.delete(f"{path}/{file.path.name}")
        raise


@contextmanager
def _explain_failure(what: str) -> Iterator[None]:
    """Say what a failure of the store left behind."""
    try:
        yield
    except LakeUnavailable as error:
        raise LakeUnavailable(f"{what} ({error})") from error


def _remove_all_others(store: ObjectStore, path: str, manifest: Manifest) -> None:
    """Remove what replaced partitions and exports that were cut short have left."""
    stored = {found.path.removeprefix(f"{path}/"): found.bytes for found in store.list(f"{path}/")}
    gone = [file.name for file in manifest.files if stored.get(file.name) != file.bytes]
    if gone:
        raise LakeUnavailable(f"{', '.join(gone)} vanished while the partition was published; export it again")
    ours = {file.name for file in manifest.files}
    for name in stored:
        if is_part_name(name) and name not in ours:
            store.delete(f"{path}/{name}")
