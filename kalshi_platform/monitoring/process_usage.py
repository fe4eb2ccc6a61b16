"""Measures what this process uses."""

from __future__ import annotations

import contextlib
import threading

import psutil


def process_usage() -> dict[str, int | None]:
    """Return `rss_bytes`, `threads` and `open_files` (handles of any kind); None where the system does not say."""
    process = psutil.Process()
    rss_bytes: int | None = None
    open_files: int | None = None
    with contextlib.suppress(psutil.Error, OSError):
        rss_bytes, open_files = process.memory_info().rss, process.num_fds()
    return {"rss_bytes": rss_bytes, "threads": threading.active_count(), "open_files": open_files}
