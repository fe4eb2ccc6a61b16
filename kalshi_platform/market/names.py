"""What may name a market, a trade, a channel: texts that stand in the keys of tables. Pure."""

from __future__ import annotations

LONGEST_NAME = 200
"""Characters. An index entry holds 2,704 bytes: two names of four bytes a character fit beside what else a key has."""


def is_name(text: str) -> bool:
    """Whether `text` may name a row: not empty, not too long, and of characters that can be seen."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()


def readable(text: str, longest: int = LONGEST_NAME) -> str:
    """Return `text` as it can be stored and shown anywhere: what cannot be seen as an escape, the end cut off."""
    text = text[:longest]
    if not text.isprintable():
        text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)[:longest]
    return text
