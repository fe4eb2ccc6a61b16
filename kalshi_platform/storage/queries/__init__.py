"""Run-time statements: files of SQL in which each statement has a name, a description, and examples of its parameters.

    -- database: production                  the kind of database, for the file or for one statement
    -- example low: TIMESTAMPTZ '2026-11-20'   what may stand for {low}, %(low)s or, with a number, for the n-th %s

    -- name: closed_hours
    -- Hours of [low, high) that are closed; one row each: hour.
    SELECT hour FROM hour_closes WHERE hour >= {low}

A clause that another statement takes as a placeholder begins with WHERE, and stands over the rows s of its `-- example
rows`.

Statements of several rooms lie in this folder, by subject; those of one room in a file of its own:

    _SQL = load(Path(__file__).with_name("queries.sql"))

A test runs EXPLAIN on every statement of every such file against a migrated database, and fails where one has no
description. Examples are for that test alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)
_COMMENT = re.compile(r"\A(?:--.*\n|\n)*")
_DATABASE = re.compile(r"^-- database: (\w+)$", re.MULTILINE)
_EXAMPLE = re.compile(r"^-- example (\w+): (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Statement:
    """One statement as its file has it. `examples`: what may stand for its parameters; `database`: a kind, or ""."""

    name: str
    text: str
    description: str
    database: str = ""
    examples: dict[str, str] = field(default_factory=dict)


def load(file: str | Path) -> dict[str, str]:
    """Return the statements of a file by name: of `storage/queries/<file>.sql`, or of a room's own file by its path."""
    return _texts(_path(file))


def statements(file: str | Path) -> Iterator[Statement]:
    """Yield the statements of a file with what it says of them."""
    head, *parts = _NAME.split(_path(file).read_text(encoding="utf-8"))
    for name, part in zip(parts[::2], parts[1::2], strict=True):
        body = part.strip() + "\n"
        comments = _COMMENT.match(body)
        notes = "" if comments is None else comments.group()
        # What follows the last statement of a section may speak of the next one.
        text = re.sub(r"(?:\n--.*|\n)*\Z", "", body[len(notes) :])
        database = _DATABASE.search(notes) or _DATABASE.search(head)
        yield Statement(
            name,
            text,
            " ".join(line[3:] for line in _EXAMPLE.sub("", _DATABASE.sub("", notes)).splitlines() if line.strip()),
            "" if database is None else database[1],
            dict(_EXAMPLE.findall(head)) | dict(_EXAMPLE.findall(notes)),
        )


def _path(file: str | Path) -> Path:
    return file if isinstance(file, Path) else Path(__file__).parent / f"{file}.sql"


@cache
def _texts(path: Path) -> dict[str, str]:
    return {statement.name: statement.text for statement in statements(path)}
