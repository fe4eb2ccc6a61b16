"""Lets pyiceberg read and write its metadata through the lake's own store.

So that one set of S3 settings holds for all, and a metadata file is whole and durable before a catalog names it.
Addresses are what the metadata holds: the root's address and a path of the lake.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from kalshi_platform.errors import ConfigurationError
from kalshi_platform.lake.settings import BucketRoot, parse_root
from kalshi_platform.lake.store.objects import ObjectStore

STORE = "kalshi.store"
"""The property of a catalog under which `StoreFileIO` finds the store; it is never written anywhere."""


def root_address(store: ObjectStore) -> str:
    """The address of the lake's root as Iceberg metadata names it, without a slash at the end.

    Engines take a file's address letter by letter: a space stays a space there. Raises ConfigurationError for a folder
    that cannot be named so.
    """
    root = parse_root(store.root)
    if isinstance(root, BucketRoot):
        return f"s3://{root.bucket}/{root.prefix}".rstrip("/")
    folder = str(root.folder)
    if set(folder) & set("#?%"):
        raise ConfigurationError(
            [f"{folder}: a lake whose path holds #, ? or % cannot be registered, engines read it in different ways"]
        )
    return f"file://{folder}"


class StoreFileIO(FileIO):
    """Reads and writes small objects of the lake by their address. What pyiceberg makes from `py-io-impl`."""

    def __init__(self, properties: Mapping[str, Any]) -> None:
        super().__init__(dict(properties))
        self._store: ObjectStore = properties[STORE]
        self._root = root_address(self._store)

    def new_input(self, location: str) -> InputFile:
        """The object at an address, for reading."""
        return _Input(location, self._store, self.path_of(location))

    def new_output(self, location: str) -> OutputFile:
        """The object at an address, for writing."""
        return _Output(location, self._store, self.path_of(location))

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete an object; none there is no error."""
        self._store.delete(self.path_of(location if isinstance(location, str) else location.location))

    def path_of(self, location: str) -> str:
        """The path of the lake that an address names. Raises ConfigurationError for one of elsewhere."""
        path = location.removeprefix(f"{self._root}/")
        if path == location:
            raise ConfigurationError(
                [
                    f"{location} does not lie in the lake {self._root}: the tables were registered for another lake;"
                    " run: kalshi-platform catalog register --rebuild"
                ]
            )
        return path


class _Input(InputFile):
    def __init__(self, location: str, store: ObjectStore, path: str) -> None:
        super().__init__(location)
        self._store = store
        self._path = path

    def __len__(self) -> int:
        return len(self._content())

    def exists(self) -> bool:
        return self._store.read(self._path) is not None

    def open(self, seekable: bool = True) -> InputStream:  # noqa: ARG002 - pyiceberg's signature
        return io.BytesIO(self._content())

    def _content(self) -> bytes:
        content = self._store.read(self._path)
        if content is None:
            raise FileNotFoundError(f"{self.location} is not there")
        return content


class _Output(OutputFile):
    def __init__(self, location: str, store: ObjectStore, path: str) -> None:
        super().__init__(location)
        self._store = store
        self._path = path

    def __len__(self) -> int:
        return len(self.to_input_file())

    def exists(self) -> bool:
        return self.to_input_file().exists()

    def to_input_file(self) -> InputFile:
        return _Input(self.location, self._store, self._path)

    def create(self, overwrite: bool = False) -> OutputStream:  # noqa: ARG002 - names carry a UUID, none is used twice
        return _Writing(self._store, self._path)


class _Writing(io.BytesIO):
    """Collects an object and stores it when it is closed, unless the block around it failed."""

    def __init__(self, store: ObjectStore, path: str) -> None:
        super().__init__()
        self._store = store
        self._path = path

    def close(self) -> None:
        if not self.closed:
            self._store.write(self._path, self.getvalue())
        super().close()

    def __exit__(
        self,
        exctype: type[BaseException] | None,
        excinst: BaseException | None,
        exctb: TracebackType | None,
    ) -> None:
        if exctype is None:
            self.close()
        else:
            super().close()
