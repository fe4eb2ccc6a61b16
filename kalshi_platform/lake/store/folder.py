"""The lake in a folder of this machine. A file appears by rename, after it and its folder have reached the disk."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kalshi_platform.errors import ConfigurationError, LakeUnavailable
from kalshi_platform.lake.settings import FolderRoot
from kalshi_platform.lake.store.objects import StoredObject

# Its name on disk since version 0.1, whose leavings are removed too.
_STAGING = ".spool"
# Only a killed process leaves a staging folder behind; no export runs for a day.
_LEFT_OVER_S = 86_400


class FolderStore:
    """`file:///…`. Spooled files lie below the root too, so that storing one is a rename."""

    def __init__(self, root: FolderRoot) -> None:
        self._folder = root.folder

    @property
    def root(self) -> str:
        """The folder as a file:// URL."""
        return self._folder.as_uri()

    @property
    def scan_options(self) -> Mapping[str, str]:
        """Nothing: the files lie on this machine."""
        return {}

    def address(self, path: str) -> str:
        """The path of a file."""
        return str(self._folder / path)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Give a folder on the same file system for files that `put_files` then moves."""
        with self._errors():
            parent = self._folder / _STAGING
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent))
            _remove_left_over(parent, newest=folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put_files(self, files: Mapping[str, Path]) -> None:
        """Write all files through to the disk, then move them to their paths; one that exists is replaced."""
        targets = {self._folder / path: file for path, file in files.items()}
        folders = {target.parent for target in targets}
        with self._errors():
            for folder in folders:
                folder.mkdir(parents=True, exist_ok=True)
            for file in targets.values():
                _sync(file)
            for target, file in targets.items():
                file.replace(target)
            for folder in folders:
                _sync(folder)

    def write(self, path: str, content: bytes) -> None:
        """Put an object of these bytes at `path`, at once and durable."""
        with self.staging() as folder:
            file = folder / "object"
            with self._errors():
                file.write_bytes(content)
            self.put_files({path: file})

    def read(self, path: str) -> bytes | None:
        """Return an object's bytes, None where there is none."""
        with self._errors():
            try:
                return (self._folder / path).read_bytes()
            except FileNotFoundError:
                return None

    def open(self, path: str) -> BinaryIO | None:
        """Open an object for reading, None where there is none."""
        with self._errors():
            try:
                return (self._folder / path).open("rb")
            except FileNotFoundError:
                return None

    def fetch(self, path: str, file: Path) -> bool:
        """Link an object into a staging folder, or copy it where the file system has no links."""
        with self._errors():
            try:
                file.hardlink_to(self._folder / path)
            except FileNotFoundError:
                return False
            except OSError:
                try:
                    shutil.copyfile(self._folder / path, file)
                except FileNotFoundError:
                    return False
            return True

    def delete(self, path: str) -> None:
        """Delete an object and the folder that it leaves empty; none there is no error."""
        target = self._folder / path
        with self._errors():
            target.unlink(missing_ok=True)
            if target.parent.is_dir():
                _sync(target.parent)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects whose paths begin with `prefix`, by path."""
        with self._errors():
            # The deepest folder that the prefix names wholly; the rest is compared as text.
            base = self._folder / prefix.rpartition("/")[0]
            found = []
            for folder, folders, files in os.walk(base):
                folders[:] = [name for name in folders if name != _STAGING]
                for name in files:
                    file = Path(folder) / name
                    path = file.relative_to(self._folder).as_posix()
                    if path.startswith(prefix):
                        found.append(StoredObject(path, file.stat().st_size))
        yield from sorted(found, key=lambda item: item.path)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (PermissionError, FileExistsError, NotADirectoryError) as error:
            reason = error.strerror or type(error).__name__
            raise ConfigurationError(
                [f"the lake's folder {self._folder} cannot be used ({reason}); make it writable or set another"]
            ) from error
        except OSError as error:
            raise LakeUnavailable(f"the lake's folder {self._folder}: {error.strerror or error}") from error


def _remove_left_over(parent: Path, newest: Path) -> None:
    now_s = newest.stat().st_mtime
    for folder in parent.iterdir():
        # Another thread or process may just have removed its own.
        with contextlib.suppress(FileNotFoundError):
            if now_s - folder.stat().st_mtime > _LEFT_OVER_S:
                shutil.rmtree(folder, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
