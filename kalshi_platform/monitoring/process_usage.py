"""Measures what this process uses, with psutil."""

from __future__ import annotations

import threading

import msgspec
import psutil


class ProcessStatus(msgspec.Struct, kw_only=True):
    """Resident memory, Python threads and open file descriptors; None where the system does not tell."""

    rss_bytes: int | None = None
    threads: int | None = None
    open_files: int | None = None


def process_usage() -> ProcessStatus:
    """Return the figures of this process as of now."""
    try:
        process = psutil.Process()
        rss_bytes, open_files = process.memory_info().rss, process.num_fds()
    except (psutil.Error, OSError):
        return ProcessStatus(threads=threading.active_count())
    return ProcessStatus(rss_bytes=rss_bytes, threads=threading.active_count(), open_files=open_files)
