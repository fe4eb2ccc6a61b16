"""What a running stack tells others: `data/local.json` for scripts, a block in `.env` for commands and `dagster dev`.

Both hold passwords of the local databases, so both are readable by their owner only. Lines of `.env` outside the block
belong to the user and are kept.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

BLOCK_START = "# >>> written by kalshi-platform up; lines between these marks are replaced at every start"
BLOCK_END = "# <<< kalshi-platform up"


def write_local_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` atomically, mode 0600."""
    _replace(path, json.dumps(content, indent=2, sort_keys=True) + "\n")


def write_env_block(path: Path, values: Mapping[str, str]) -> None:
    """Put `values` into the block of `path`; everything around the block stays as it is."""
    before, after = _around_block(path)
    lines = [BLOCK_START, *(f"{key}={_quoted(value)}" for key, value in sorted(values.items())), BLOCK_END]
    parts = [part for part in (before.rstrip("\n"), "\n".join(lines), after.strip("\n")) if part]
    _replace(path, "\n".join(parts) + "\n")


def users_part(path: Path) -> str:
    """The text of `.env` without the block: what the user has set."""
    before, after = _around_block(path)
    return before + after


def _around_block(path: Path) -> tuple[str, str]:
    if not path.exists():
        return "", ""
    text = path.read_text(encoding="utf-8")
    before, start, rest = text.partition(BLOCK_START)
    if not start:
        return text, ""
    _block, _end, after = rest.partition(BLOCK_END)
    return before, after


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".new")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    aside.chmod(0o600)
    aside.replace(path)
