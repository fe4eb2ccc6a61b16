"""Publishes a running stack's addresses: `data/local.json` for scripts, a block in `.env` for commands and Dagster.

Both hold passwords of the local databases, so both are made readable by their owner only. Lines of `.env` outside the
block belong to the user and are kept as they are, and so are the file's owner, its mode, and a link in its place. Where
the marks of the block are not what `up` wrote, nothing is written: what lies between them could be the user's.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kalshi_platform.config import env_file_text
from kalshi_platform.errors import ConfigurationError

BLOCK_START = "# >>> written by kalshi-platform up; lines between these marks are replaced at every start"
BLOCK_END = "# <<< kalshi-platform up"


def write_local_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` atomically, mode 0600."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    _replace(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_env_block(path: Path, values: Mapping[str, str]) -> None:
    """Put `values` into the block of `path`; everything around the block stays as it is. Raises ConfigurationError."""
    before, after = _around_block(path)
    if before and not before.endswith("\n"):
        before += "\n"
    lines = [BLOCK_START, *(f"{key}={_quoted(value)}" for key, value in sorted(values.items())), BLOCK_END]
    try:
        _replace(path, before + "\n".join(lines) + "\n" + after)
    except (OSError, UnicodeEncodeError) as error:
        why = getattr(error, "strerror", None) or "a path in it is not UTF-8"
        raise ConfigurationError([f"{path} cannot be written ({why}): start in a folder where it can"]) from error


def users_part(path: Path) -> str:
    """The text of `.env` without the block: what the user has set. Raises ConfigurationError."""
    before, after = _around_block(path)
    return before + after


def _around_block(path: Path) -> tuple[str, str]:
    """The text before the block and after it. Raises ConfigurationError where its marks are not one pair."""
    lines = env_file_text(path).split("\n")
    starts = [number for number, line in enumerate(lines) if line.strip() == BLOCK_START]
    ends = [number for number, line in enumerate(lines) if line.strip() == BLOCK_END]
    if not starts and not ends:
        return "\n".join(lines), ""
    if len(starts) != 1 or len(ends) != 1 or ends < starts:
        raise ConfigurationError([f"{path}: {_marks_problem(starts, ends)}"])
    before = lines[: starts[0]]
    return "".join(f"{line}\n" for line in before), "\n".join(lines[ends[0] + 1 :])


def _marks_problem(starts: list[int], ends: list[int]) -> str:
    if not ends:
        return (
            f"the mark in line {starts[0] + 1} begins lines that `kalshi-platform up` replaces, and the mark that ends"
            f" them is gone: put the line `{BLOCK_END}` below the last of them; what is below it stays yours"
        )
    if not starts:
        return (
            f"the mark in line {ends[0] + 1} ends lines that `kalshi-platform up` wrote, and the mark that begins them"
            " is gone: remove that line, and those above it that are not yours"
        )
    return (
        f"lines {', '.join(str(number + 1) for number in sorted(starts + ends))} hold marks of lines that"
        " `kalshi-platform up` replaces; one pair is right, in its order: remove what is too much"
    )


def _quoted(value: str) -> str:
    # Readers of `.env` put variables in the place of ${…}, also between single quotes; the default of one without a
    # name is a plain $.
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'").replace("${", "${:-$}{") + "'"


def _replace(path: Path, text: str) -> None:
    """Write the file that `path` names or links to, whole or not at all; owner and mode stay (0600 for a new one)."""
    target = path.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        known = target.stat()
    except FileNotFoundError:
        known = None
    descriptor, name = tempfile.mkstemp(prefix=f"{target.name}.", suffix=".new", dir=target.parent)  # 0600
    aside = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if known is not None:
            with contextlib.suppress(PermissionError):  # only root gives files away
                os.chown(aside, known.st_uid, known.st_gid)
            aside.chmod(known.st_mode & 0o7777)
        aside.replace(target)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
