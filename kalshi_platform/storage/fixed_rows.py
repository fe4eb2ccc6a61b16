"""Reads rows of fixed width as records of numpy: a third of the client's work of reading them column by column.

COPY's binary format gives such rows one length, so that a block of them is an array as it stands. Texts travel as their
64-bit hashes (`hashtextextended(column, 0)`). The rows are those of an `ArrowSnapshot`, on a connection of their own.
"""

from __future__ import annotations

import io
import queue
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import psycopg2

from kalshi_platform.errors import StatementRejected
from kalshi_platform.market.tables import Column, SqlType
from kalshi_platform.storage.connect import connect, connection_url
from kalshi_platform.storage.read import ArrowSnapshot
from kalshi_platform.storage.sqlstate import DRIVER_ERRORS, translate_error

BLOCK_BYTES = 4 * 1024 * 1024
Records: TypeAlias = npt.NDArray[np.void]

_WIRE: Mapping[SqlType, str] = MappingProxyType(
    {
        "text": ">i8",
        "bigint": ">i8",
        "integer": ">i4",
        "timestamptz": ">i8",
        "boolean": ">i1",
        "double precision": ">f8",
    }
)
_MAGIC_BYTES = 19  # the signature and two empty fields of the header
_TRAILER = b"\xff\xff"
_EPOCH_US = 946_684_800_000_000
"""PostgreSQL counts from 2000-01-01."""


def has_fixed_width(columns: Iterable[Column]) -> bool:
    """Whether all rows of these columns have one length, texts as hashes: nothing is null, no list, no JSON."""
    return all(column.type in _WIRE and not column.nullable for column in columns)


def record_type(columns: Sequence[Column]) -> np.dtype[np.void]:
    """What `decode` gives for a row: native integers, times in µs since 1970, texts as hashes."""
    return np.dtype([(column.name, _WIRE[column.type].replace(">", "=")) for column in columns])


def decode(blocks: Iterable[bytes], columns: Sequence[Column]) -> Iterator[Records]:
    """Yield the rows of a stream of COPY in binary format, cut anywhere into `blocks`, in records of `record_type`.

    Raises StatementRejected where it is not such a stream, or ends early.
    """
    wire = _wire_type(columns)
    rest, header, ended = b"", _MAGIC_BYTES, False
    for block in blocks:
        data = rest + block
        if len(data) < header:
            rest = data
            continue
        count = (len(data) - header) // wire.itemsize
        rows = np.frombuffer(data, wire, count, header)
        rest = data[header + count * wire.itemsize :]
        header = 0
        if count:
            yield _native(rows, columns)
        ended = rest == _TRAILER
    if not ended:
        raise StatementRejected("rows of another width came than their columns have, or the stream of them was cut")


@contextmanager
def copied(snapshot: ArrowSnapshot, query: str, block_bytes: int = BLOCK_BYTES) -> Iterator[Iterator[bytes]]:
    """Yield what COPY sends for a query on the snapshot's rows, in blocks of about `block_bytes`.

    A thread reads ahead by some blocks; it has ended when the `with` block has. Raises DatabaseUnavailable and
    StatementRejected.
    """
    blocks: queue.Queue[bytes | BaseException | None] = queue.Queue(2)
    stop = threading.Event()
    connection = _join(snapshot)

    def copy() -> None:
        end: BaseException | None = None
        try:
            sink = io.BufferedWriter(_Sink(blocks, stop), block_bytes)
            with connection.cursor() as cursor:
                cursor.copy_expert(f"COPY ({query}) TO STDOUT (FORMAT binary)", sink, block_bytes)
            sink.flush()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for it
            end = error
        if not stop.is_set():
            blocks.put(end)

    thread = threading.Thread(target=copy, name="copy rows", daemon=True)
    thread.start()
    try:
        yield _until_end(blocks, snapshot.where, connection)
    finally:
        stop.set()
        with suppress(*DRIVER_ERRORS):
            if thread.is_alive():
                connection.cancel()
        while thread.is_alive():
            with suppress(queue.Empty):  # the thread may wait for room
                blocks.get(timeout=0.05)
        thread.join()
        with suppress(*DRIVER_ERRORS):
            connection.close()


class _Sink(io.RawIOBase):
    """Puts every full buffer into a queue."""

    def __init__(self, blocks: queue.Queue[Any], stop: threading.Event) -> None:
        super().__init__()
        self._blocks = blocks
        self._stop = stop

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        if self._stop.is_set():
            raise BrokenPipeError("nobody reads on")
        self._blocks.put(bytes(data))
        return len(data)


def _until_end(blocks: queue.Queue[bytes | BaseException | None], where: str, connection: Any) -> Iterator[bytes]:
    while (item := blocks.get()) is not None:
        if isinstance(item, DRIVER_ERRORS):
            raise translate_error(item, where, connection) from item
        if isinstance(item, BaseException):
            raise item
        yield item


def _join(snapshot: ArrowSnapshot) -> Any:
    """A connection that sees what the snapshot sees."""
    name = snapshot.export()
    try:
        connection = connect(connection_url(snapshot.url, "kalshi-platform reader", "-c timezone=UTC"))
        with connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            cursor.execute("SET TRANSACTION SNAPSHOT %s", (name,))
    except psycopg2.Error as error:
        raise translate_error(error, snapshot.where) from error
    return connection


def _wire_type(columns: Sequence[Column]) -> np.dtype[np.void]:
    """A row as COPY sends it: the number of its fields, then each with its length before it."""
    fields: list[tuple[str, str]] = [("fields", ">i2")]
    for column in columns:
        fields += [(f"{column.name} bytes", ">i4"), (column.name, _WIRE[column.type])]
    return np.dtype(fields)


def _native(rows: Records, columns: Sequence[Column]) -> Records:
    made = np.empty(len(rows), record_type(columns))
    is_whole = bool((rows["fields"] == len(columns)).all())
    for column in columns:
        values = rows[column.name]
        is_whole &= bool((rows[f"{column.name} bytes"] == values.dtype.itemsize).all())
        made[column.name] = values
        if column.type == "timestamptz":
            made[column.name] += _EPOCH_US
    if not is_whole:
        raise StatementRejected("rows of another width came than their columns have")
    return made
