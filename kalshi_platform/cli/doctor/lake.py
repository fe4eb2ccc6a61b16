"""Looks at the lake: whether an object can be written, listed, read back and removed, and whether frames get there."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import timedelta

from kalshi_platform import config
from kalshi_platform.archive.archive_frames import find_hours_to_archive, journal_folder
from kalshi_platform.cli.doctor.findings import Finding
from kalshi_platform.clock import SYSTEM_CLOCK
from kalshi_platform.errors import ConfigurationError, KalshiPlatformError
from kalshi_platform.lake.store import open_store

_ARCHIVE_DUE = timedelta(hours=2)
"""The schedule archives an hour at :03 after it, and every half hour what failed."""
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


def check_frames() -> Iterator[Finding]:
    """Say for each gatherer with a journal on this host whether its frames reach the lake."""
    for name in config.gatherer_names():
        subject = f"frames {name}"
        try:
            gatherer = config.load_gatherer(name)
            if not journal_folder(gatherer).is_dir():
                continue
            if not gatherer.archive_frames:
                text = f"not archived: gone {gatherer.journal_keep_s / 3600:g} hours after they are in the database"
                yield Finding(subject, "ok", text)
                continue
            root = open_store(config.load_lake()).root
            hours = find_hours_to_archive(gatherer, root, SYSTEM_CLOCK)
        except ConfigurationError:
            continue  # a finding of the settings
        except OSError as error:
            yield Finding(subject, "fail", f"the journal cannot be read: {error}", "give this user the folder")
            continue
        late = [hour for hour in hours if SYSTEM_CLOCK.now() - hour > _ARCHIVE_DUE]
        if late:
            text = f"{len(late)} hours are not in the lake, {late[0]:%Y-%m-%dT%H} the first: they stay on the disk"
            yield Finding(subject, "warn", text, f"kalshi-platform journal archive {name}")
        else:
            yield Finding(subject, "ok", f"they reach {root}: none waits for longer than two hours")
