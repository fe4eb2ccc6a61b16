"""Texts that PostgreSQL can hold, and values as SQL literals."""

from __future__ import annotations

import json
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_platform.storage.literals import inlined, literal
from kalshi_platform.storage.nul import strip_escaped_nul, strip_nul


@given(st.text(alphabet=["\x00", "\\", "u", "0", "a", '"']))
def test_json_keeps_everything_but_nul(text: str) -> None:
    cleaned = json.loads(strip_escaped_nul(json.dumps([text])))
    assert cleaned == [strip_nul(text)]


def test_text_without_nul() -> None:
    assert strip_nul("a\x00b") == "a\ufffdb"


def test_parameters_are_replaced_by_number() -> None:
    query = "SELECT $2, $1, $11, $1"
    values = [1, "it's", *range(8), "last"]
    assert inlined(query, values) == "SELECT 'it''s', (1), 'last', (1)"


@pytest.mark.parametrize("value", [1.5, b"x", datetime(2026, 1, 1), "\x00"])  # noqa: DTZ001
def test_values_without_an_exact_literal_are_refused(value: object) -> None:
    with pytest.raises(TypeError):
        literal(value)


def test_a_missing_parameter_is_an_error() -> None:
    with pytest.raises(IndexError):
        inlined("SELECT $2", [1])
