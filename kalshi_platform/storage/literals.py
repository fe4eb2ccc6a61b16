"""Writes Python values as SQL literals, for queries that run as `COPY (query) TO STDOUT`, which takes no parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

_ELEMENTS = {int: "bigint", datetime: "timestamptz"}
_PARAMETER = re.compile(r"\$([1-9][0-9]*)")


def inlined(query: str, params: Sequence[Any]) -> str:
    """Replace `$1`, `$2` … by literals.

    Values may be None, bool, int, str, aware datetimes, and lists of int, str or datetimes. Raises IndexError for a
    parameter that was not given, TypeError for another type. The query itself must not hold `$1` inside a string.
    """
    return _PARAMETER.sub(lambda match: literal(params[int(match.group(1)) - 1]), query)


def literal(value: Any) -> str:
    """Return `value` as an SQL literal with its type."""
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"({value})"
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise TypeError("a time without a zone")
        return f"TIMESTAMPTZ '{value.isoformat()}'"
    if isinstance(value, (list, tuple)):
        kind = _ELEMENTS.get(type(value[0]), "text") if value else "text"
        return f"ARRAY[{', '.join(literal(item) for item in value)}]::{kind}[]"
    raise TypeError(f"{type(value).__name__} is no parameter type")


def _text(value: str) -> str:
    if "\x00" in value:
        raise TypeError("PostgreSQL has no text with NUL characters")
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"E'{escaped}'" if "\\" in value else f"'{escaped}'"
