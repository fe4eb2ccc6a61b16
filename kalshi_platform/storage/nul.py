"""Replaces U+0000 in texts: PostgreSQL holds it neither in text nor as an escape in jsonb."""

from __future__ import annotations

import re

# An escape counts only after an even number of backslashes: in "\\u0000" the backslash itself is escaped.
_JSON_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")


def strip_nul(text: str) -> str:
    """Return `text` with U+FFFD (replacement character) for each U+0000."""
    return text.replace("\x00", "\ufffd")


def strip_escaped_nul(text: str) -> str:
    """Return JSON text with U+FFFD for each escaped U+0000."""
    if "\\u0000" not in text:
        return text
    return _JSON_NUL.sub(r"\1\\ufffd", text)
