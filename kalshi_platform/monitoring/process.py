"""What this process uses, from /proc; where that is missing, the figures are, too."""

from __future__ import annotations

import os
import threading
from pathlib import Path

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def process_figures() -> dict[str, int | None]:
    """`rss_bytes`, `threads` and `open_files` (handles of any kind) of this process."""
    return {"rss_bytes": _rss_bytes(), "threads": threading.active_count(), "open_files": _open_files()}


def _rss_bytes() -> int | None:
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return None


def _open_files() -> int | None:
    try:
        return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counted, not read
    except OSError:
        return None
