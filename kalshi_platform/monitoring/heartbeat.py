"""Defines the heartbeat of a service and its file. The status of the service is its `details`.

The file is written by the host that runs the service and counts as a sign of life while the database is away.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

FILE_NAME = "heartbeat.json"
_Struct = TypeVar("_Struct", bound=msgspec.Struct)
Details = TypeVar("Details")


class Heartbeat(msgspec.Struct, Generic[Details], frozen=True):
    """One sign of life. `at` is by this host's clock and dates the file; a row is dated by its database."""

    service: str
    at: datetime
    started_at: datetime
    state: str
    details: Details
    run_id: str | None = None
    host: str = msgspec.field(default_factory=socket.gethostname)
    pid: int = msgspec.field(default_factory=os.getpid)


class _File(msgspec.Struct):
    """The file as far as it must be readable; details are decoded by themselves."""

    at: datetime
    service: str = ""
    started_at: datetime | None = None
    state: str = ""
    run_id: str | None = None
    host: str = ""
    pid: int = 0
    details: msgspec.Raw = msgspec.Raw(b"{}")


def encode(status: object) -> bytes:
    """Return a struct as JSON. Halves of surrogate pairs, which no JSON text can hold, become question marks."""
    try:
        return msgspec.json.encode(status)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(status), ensure_ascii=False).encode("utf-8", "replace")


def decode_details(content: bytes | str, details: type[_Struct]) -> _Struct:
    """Decode the status in a heartbeat of any version: unknown fields are ignored, missing ones have their default.

    A status whose fields have other types by now counts as not reported at all.
    """
    try:
        return msgspec.json.decode(content, type=details, strict=False)
    except ValueError:  # msgspec.DecodeError is one, and so is a byte that is no UTF-8
        return details()


def write_file(path: Path, heartbeat: Heartbeat[Any]) -> None:
    """Replace the file in one step: a reader sees the old or the new one, never half of it. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{heartbeat.pid}.tmp")
    part.write_bytes(encode(heartbeat))
    part.replace(path)


def read_file(path: Path, details: type[_Struct]) -> Heartbeat[_Struct] | None:
    """Return what `write_file` wrote, None when there is nothing that can be read."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, ValueError):
        return None
    at = found.at if found.at.tzinfo else found.at.replace(tzinfo=UTC)
    return Heartbeat(
        service=found.service,
        at=at,
        started_at=found.started_at or at,
        state=found.state,
        run_id=found.run_id,
        host=found.host,
        pid=found.pid,
        details=decode_details(bytes(found.details), details),
    )
