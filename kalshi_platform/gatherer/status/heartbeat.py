"""The sign of life: a row in `heartbeats` and a file. A fresh file counts as alive while the database is away."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from kalshi_platform.storage import services
from kalshi_platform.storage.pool import Database

FILE_NAME = "heartbeat.json"


@dataclass(frozen=True)
class Heartbeat:
    """One sign of life of one service. `at`, by this host's clock, dates the file. `details` holds figures only."""

    service: str
    at: datetime
    started_at: datetime
    state: str
    run_id: str | None = None
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    details: Mapping[str, Any] = field(default_factory=dict)


def write_row(database: Database, beat: Heartbeat) -> None:
    """Write the service's row, dated by the database's clock. Raises DatabaseUnavailable."""
    services.write_heartbeat(
        database,
        service=beat.service,
        started_at=beat.started_at,
        host=beat.host,
        pid=beat.pid,
        run_id=beat.run_id,
        state=beat.state,
        details=beat.details,
    )


def write_file(path: Path, beat: Heartbeat) -> None:
    """Replace the file in one step: a reader sees the old or the new one, never half of it."""
    content = {
        "service": beat.service,
        "at": beat.at.isoformat(),
        "started_at": beat.started_at.isoformat(),
        "host": beat.host,
        "pid": beat.pid,
        "run_id": beat.run_id,
        "state": beat.state,
        "details": beat.details,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(f".{beat.pid}.tmp")
    fresh.write_text(json.dumps(content), encoding="utf-8")
    fresh.replace(path)


def read_file(path: Path) -> dict[str, Any] | None:
    """What `write_file` wrote (times as ISO text), None when there is nothing that can be read."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        datetime.fromisoformat(content["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return dict(content)


def last_batch_no(path: Path) -> int:
    """The last batch that the process which wrote the file had committed; 0 when it does not say."""
    writer = ((read_file(path) or {}).get("details") or {}).get("writer") or {}
    number = writer.get("batch_no")
    return number if isinstance(number, int) else 0


def should_run(database: Database, service: str) -> bool:
    """Whether the off switch is not set. Raises DatabaseUnavailable."""
    return services.switch_of(database, service).enabled
