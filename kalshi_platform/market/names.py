"""Checks names of markets, trades and channels: texts that are part of table keys. Pure."""

from __future__ import annotations

LONGEST_NAME = 200
"""Most characters of a name: two of four bytes a character fit an index entry of 2,704 bytes beside other columns."""


def is_name(text: str) -> bool:
    """Return whether `text` may name a row: not empty, not too long, and printable."""
    return 0 < len(text) <= LONGEST_NAME and text.isprintable()


def readable(text: str, longest: int = LONGEST_NAME) -> str:
    """Return `text` so that it can be stored and shown anywhere: escaped where not printable, and cut to a length."""
    text = text[:longest]
    if not text.isprintable():
        text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)[:longest]
    return text
