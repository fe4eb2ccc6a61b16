"""Makes foreign text harmless for a console or a log: what controls a terminal or forges a line is escaped. Pure.

Escaped are C0 and C1 control characters, DEL, the line separators of Unicode, what turns the writing direction, and
halves of surrogate pairs, which cannot be written at all.
"""

from __future__ import annotations

import re

FIELD_LIMIT = 4_000
"""Characters of one field or message; a longer one keeps its beginning."""
_URL_PASSWORD = re.compile(r"(\w[\w+.-]*://[^\s:/@]*):[^\s/@]+@")
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def plain(text: str, limit: int = FIELD_LIMIT) -> str:
    """One line without anything that a terminal obeys, of about `limit` characters at most."""
    more = len(text) - limit
    shown = _UNSAFE.sub(_escaped, text[:limit]) if more > 0 else _UNSAFE.sub(_escaped, text)
    return f"{shown}… ({more:,} more characters)" if more > 0 else shown


def plain_lines(text: str, limit: int = 5 * FIELD_LIMIT) -> str:
    """The same line by line: line feeds stay. A longer text keeps its beginning and its end."""
    if len(text) > limit:
        left_out = len(text) - limit
        text = f"{text[: limit // 2]}\n… ({left_out:,} characters left out) …\n{text[-(limit // 2) :]}"
    return "\n".join(plain(line, limit) for line in text.split("\n"))


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    code = ord(character)
    return _NAMED.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def mask_secrets(text: str) -> str:
    """Replace passwords of URLs and private keys by ***: the last line of defence, no text should hold one."""
    text = _URL_PASSWORD.sub(r"\1:***@", text) if "://" in text else text
    return _PRIVATE_KEY.sub("***", text) if "PRIVATE KEY" in text else text
