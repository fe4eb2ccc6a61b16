"""Looks at the lake: whether an object can be written, listed, read back and removed."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

from kalshi_platform import config
from kalshi_platform.cli.doctor.findings import Finding
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConfigurationError, KalshiPlatformError
from kalshi_platform.lake.store import open_store

_REMEDY = "see the address, the keys and what they may do (list, read, write, delete): KALSHI_LAKE_ROOT, AWS_…"


def check_lake() -> Iterator[Finding]:
    """Write a small object below `_doctor/`, list it, read it and remove it."""
    try:
        settings = config.load_lake()
    except ConfigurationError:
        return  # a finding of the settings
    content = secrets.token_bytes(64)
    path = f"_doctor/{secrets.token_hex(8)}"
    began = SYSTEM_CLOCK.monotonic()
    try:
        store = open_store(settings)
        store.write(path, content)
        try:
            listed = any(each.path == path for each in store.list("_doctor/"))
            same = store.read(path) == content
        finally:
            store.delete(path)
    except KalshiPlatformError as error:
        yield Finding("lake", "fail", f"{settings.root}: {error}", _REMEDY)
        return
    took_ms = (SYSTEM_CLOCK.monotonic() - began) * 1_000
    if listed and same:
        yield Finding(
            "lake", "ok", f"{settings.root}: an object was written, listed, read and removed ({took_ms:.0f} ms)"
        )
    else:
        what = "not read back as it was written" if listed else "written, and is not listed"
        yield Finding("lake", "fail", f"{settings.root}: an object was {what}", _REMEDY)
